"""Saves of a model that nobody publishes; run with redis_events among the apps and without.

Prints the µs per save, and exits 1 when anything listens to the model's signals.
"""

import json
import os
import sys
from typing import Any

import django
from django.db import transaction
from django.db.models import signals

from benchmarks.timing import seconds_for

ROWS = 100


def save_often(row: Any) -> None:
    with transaction.atomic():
        for _ in range(ROWS):
            row.save()


def main() -> None:
    django.setup()
    from benchmarks.project.models import UnpublishedOrder

    watched = (signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete)
    if any(signal.has_listeners(UnpublishedOrder) for signal in watched):
        sys.exit("something listens to the signals of a model that nobody publishes")
    row = UnpublishedOrder(customer="Ada Lovelace", status="paid", total="1234.50")
    row.save()
    # The fastest chunk: what is looked for is smaller than what the machine adds to a slow one.
    fastest = min(seconds_for(lambda: save_often(row)) for _ in range(int(os.environ["BENCH_CHUNKS"])))
    print(json.dumps({"us": fastest / ROWS * 1e6}))


if __name__ == "__main__":
    main()
