"""redis_events, from a stream and from pub/sub: `publish()` and `manage.py listen_events`, nothing switched off.

The receiver is `benchmarks.project.receivers`, which has the meter.
"""

from collections.abc import Iterable

import django
from django.core.management import execute_from_command_line

from benchmarks.event import STREAM, TYPE, order
from benchmarks.peers.runner import Hit, run


def publish(numbers: Iterable[int]) -> None:
    django.setup()
    import redis_events

    for number in numbers:
        redis_events.publish(STREAM, order(number), type=TYPE, key=number)


def consume(hit: Hit) -> None:
    execute_from_command_line(["manage.py", "listen_events"])


if __name__ == "__main__":
    run(publish=publish, consume=consume)
