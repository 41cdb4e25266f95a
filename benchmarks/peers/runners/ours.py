"""redis_events, from a stream and from pub/sub: `publish()` and `manage.py listen_events`, nothing switched off.

The receiver is `benchmarks.project.receivers`, which has the meter.
"""

from collections.abc import Iterable

import django
from django.core.management import execute_from_command_line
from django.db import transaction

from benchmarks.event import STREAM, TYPE, order
from benchmarks.peers.runner import Hit, run

TOGETHER = 500


def publish(numbers: range) -> None:
    """In few transactions: it is done before every peer's turn."""
    django.setup()
    for first in range(0, len(numbers), TOGETHER):
        publish_together(numbers[first : first + TOGETHER])


@transaction.atomic
def publish_together(numbers: Iterable[int]) -> None:
    import redis_events

    for number in numbers:
        redis_events.publish(STREAM, order(number), type=TYPE, key=number)


def consume(hit: Hit) -> None:
    execute_from_command_line(["manage.py", "listen_events"])


if __name__ == "__main__":
    run(publish=publish, consume=consume)
