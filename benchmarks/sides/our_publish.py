"""`redis_events.publish`, one event at a time."""

import django

from benchmarks.event import CHANNEL, TYPE, order
from benchmarks.timing import rate_of


def main() -> None:
    django.setup()
    from redis_events import publish

    rate_of(lambda number: publish(CHANNEL, order(number), type=TYPE, key=number))


if __name__ == "__main__":
    main()
