"""What happens to every event, for whoever wants to see it or act on it: the admin and the commands only render this.

    from redis_events import inspection

    with inspection.Server() as server:
        for group in inspection.groups(server=server):
            print(group.channel, group.name, group.lag)
        if server.trouble:
            print(server.trouble.message)

Every function takes ``server=``, one look that several questions share; without one it makes its own. Reading raises
nothing where Redis is in trouble: what is unknown is ``None``, never 0. Acting raises.
"""
