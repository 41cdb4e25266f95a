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

from .acts import (
    claim,
    count_dead,
    discard,
    foresee_replay,
    move_group,
    obstacle,
    pause,
    remove_consumer,
    replay,
    resume,
    skip,
    stop_listener,
)
from .effective import Setting, effective_settings
from .facts import (
    ChannelFacts,
    Check,
    ConsumerFacts,
    Done,
    Drift,
    ErrorGroup,
    EventFacts,
    EventPage,
    GroupFacts,
    ListenerFacts,
    Minute,
    OutboxFacts,
    Overview,
    PendingFacts,
    ReceiverFacts,
    ServerFacts,
    ServiceFacts,
    Step,
    Trouble,
)
from .feeding import Feed, feed
from .glance import condition, drift, overview, server_facts
from .health import checks
from .log import event, events
from .people import listeners, receivers, services
from .rates import throughput
from .rows import dead_count, errors, held_deliveries, outboxes
from .server import Server
from .streams import channel, channel_raw, channels, consumers, groups, pending, unreadable
from .tracing import trace

__all__ = [
    "ChannelFacts",
    "Check",
    "ConsumerFacts",
    "Done",
    "Drift",
    "ErrorGroup",
    "EventFacts",
    "EventPage",
    "Feed",
    "GroupFacts",
    "ListenerFacts",
    "Minute",
    "OutboxFacts",
    "Overview",
    "PendingFacts",
    "ReceiverFacts",
    "Server",
    "ServerFacts",
    "ServiceFacts",
    "Setting",
    "Step",
    "Trouble",
    "channel",
    "channel_raw",
    "channels",
    "checks",
    "claim",
    "condition",
    "consumers",
    "count_dead",
    "dead_count",
    "discard",
    "drift",
    "effective_settings",
    "errors",
    "event",
    "events",
    "feed",
    "foresee_replay",
    "groups",
    "held_deliveries",
    "listeners",
    "move_group",
    "obstacle",
    "outboxes",
    "overview",
    "pause",
    "pending",
    "receivers",
    "remove_consumer",
    "replay",
    "resume",
    "server_facts",
    "services",
    "skip",
    "stop_listener",
    "throughput",
    "trace",
    "unreadable",
]
