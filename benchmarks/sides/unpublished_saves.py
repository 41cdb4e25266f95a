"""Saves of a model that nobody publishes, with the signals that redis_events connects and without them, in turn.

Prints the µs per save of both, and exits 1 when anything listens to the model's own signals or has replaced its saving.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import django
from django.db import models, transaction
from django.db.models import signals

from benchmarks.timing import seconds_for

SIGNALS = (signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete)


@contextmanager
def nothing_connected() -> Iterator[None]:
    """Take every receiver of every model out of the signals for a moment."""
    connected = [signal.receivers for signal in SIGNALS]
    for signal in SIGNALS:
        signal.receivers = []
    yield
    for signal, receivers in zip(SIGNALS, connected, strict=True):
        signal.receivers = receivers


def refuse_a_watched_model(model: type[models.Model]) -> None:
    if any(signal.has_listeners(model) for signal in SIGNALS):
        sys.exit("something listens to the signals of a model that nobody publishes")
    if model.save_base is not models.Model.save_base:
        sys.exit("something has replaced how a model that nobody publishes is saved")


def main() -> None:
    django.setup()
    from benchmarks.project.models import UnpublishedOrder

    refuse_a_watched_model(UnpublishedOrder)
    row = UnpublishedOrder(customer="Ada Lovelace", status="paid", total="1234.50")
    row.save()
    with_us, without_us = [], []
    with transaction.atomic():
        for _ in range(int(os.environ["BENCH_SAVES"])):
            with_us.append(seconds_for(row.save))
            with nothing_connected():
                without_us.append(seconds_for(row.save))
    # The fastest: what is looked for is smaller than what the machine adds to the others.
    print(json.dumps({"with_us": min(with_us) * 1e6, "without_us": min(without_us) * 1e6}))


if __name__ == "__main__":
    main()
