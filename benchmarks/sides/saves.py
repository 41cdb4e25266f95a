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


def save_one(model: Any) -> None:
    model(customer="Ada Lovelace", status="paid", total="1234.50").save()


def save_together(model: Any) -> None:
    with transaction.atomic():
        for _ in range(ROWS):
            save_one(model)


def microseconds(save: Callable[[Any], None], *, turns: int) -> dict[str, float]:
    """The median µs of one `save` per model, the models taking turns."""
    from benchmarks.project.models import HandPublishedOrder, PublishedOrder, UnpublishedOrder

    models = {"nobody": UnpublishedOrder, "ours": PublishedOrder, "hand": HandPublishedOrder}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(turns):
        for name, model in models.items():
            seconds[name].append(seconds_for(lambda model=model: save(model)))
    return {name: median(values) * 1e6 for name, values in seconds.items()}


def main() -> None:
    django.setup()
    from benchmarks.project.models import HandPublishedOrder

    post_save.connect(publish_by_hand, sender=HandPublishedOrder)
    alone = microseconds(save_one, turns=int(os.environ["BENCH_SAVES"]))
    together = microseconds(save_together, turns=int(os.environ["BENCH_TRANSACTIONS"]))
    print(json.dumps({"alone": alone, "together": {name: value / ROWS for name, value in together.items()}}))


if __name__ == "__main__":
    main()
