"""Saves of a model that nobody publishes; run with redis_events among the apps and without.

Prints the µs per save, and exits 1 when anything listens to the model's signals.
"""

import json
import os
import sys

import django
from django.db import transaction
from django.db.models import signals

from benchmarks.timing import seconds_for


def main() -> None:
    django.setup()
    from benchmarks.project.models import UnpublishedOrder

    watched = (signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete)
    if any(signal.has_listeners(UnpublishedOrder) for signal in watched):
        sys.exit("something listens to the signals of a model that nobody publishes")
    row = UnpublishedOrder(customer="Ada Lovelace", status="paid", total="1234.50")
    row.save()
    # The fastest one: what is looked for is smaller than what the machine adds to the others.
    with transaction.atomic():
        fastest = min(seconds_for(row.save) for _ in range(int(os.environ["BENCH_SAVES"])))
    print(json.dumps({"us": fastest * 1e6}))


if __name__ == "__main__":
    main()
