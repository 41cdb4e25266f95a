"""`redis_events.publish`, 100 events in each transaction."""

import json
import os
import time

import django
from django.db import transaction

from benchmarks.event import CHANNEL, TYPE, order

COMMIT = 100


def commit() -> None:
    """One transaction with its events."""
    from redis_events import publish

    with transaction.atomic():
        for number in range(COMMIT):
            publish(CHANNEL, order(number), type=TYPE, key=number)


def main() -> None:
    django.setup()
    commits = int(os.environ["BENCH_EVENTS"]) // COMMIT
    for _ in range(int(os.environ["BENCH_WARM"]) // COMMIT):
        commit()
    started = time.perf_counter()
    for _ in range(commits):
        commit()
    print(json.dumps({"per_second": commits * COMMIT / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main()
