"""Saves of the three models in turn, in one process, so that what is added stands out from what a save costs.

Prints the µs per save of each model: alone, and in transactions of 100.
"""

import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

import django
import redis
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models.signals import post_save

from benchmarks.event import CHANNEL
from benchmarks.timing import seconds_for

ROWS = 100
CLIENT = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])


def publish_by_hand(instance: Any, created: bool, **_: object) -> None:
    """What a careful hand-writer connects to `post_save`."""
    document = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "shop",
        "type": "shop.order.created" if created else "shop.order.updated",
        "subject": str(instance.pk),
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": {field.attname: getattr(instance, field.attname) for field in instance._meta.concrete_fields},
    }
    body = json.dumps(document, cls=DjangoJSONEncoder)
    transaction.on_commit(lambda: CLIENT.publish(CHANNEL, body))


def save_rows(model: Any) -> None:
    for _ in range(ROWS):
        model(customer="Ada Lovelace", status="paid", total="1234.50").save()


def save_rows_together(model: Any) -> None:
    with transaction.atomic():
        save_rows(model)


def microseconds(save: Callable[[Any], None], chunks: int) -> dict[str, float]:
    """The median over `chunks` chunks of the µs per save, the models taking turns."""
    from benchmarks.project.models import HandPublishedOrder, PublishedOrder, UnpublishedOrder

    models = {"nobody": UnpublishedOrder, "ours": PublishedOrder, "hand": HandPublishedOrder}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(chunks):
        for name, model in models.items():
            seconds[name].append(seconds_for(lambda model=model: save(model)))
    return {name: median(values[1:]) / ROWS * 1e6 for name, values in seconds.items()}


def main() -> None:
    django.setup()
    from benchmarks.project.models import HandPublishedOrder

    post_save.connect(publish_by_hand, sender=HandPublishedOrder)
    chunks = int(os.environ["BENCH_CHUNKS"])
    print(json.dumps({"alone": microseconds(save_rows, chunks), "together": microseconds(save_rows_together, chunks)}))


if __name__ == "__main__":
    main()
