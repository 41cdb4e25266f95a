"""Takes from the database what listeners know of streams: the next one finds its stream for the first time.

Otherwise a stream that the server has lost meanwhile is one whose entries may all have been processed before, and every
batch is looked up.
"""

import json

import django


def main() -> None:
    django.setup()
    from redis_events.models import ChannelState

    ChannelState.objects.all().delete()
    print(json.dumps({}))


if __name__ == "__main__":
    main()
