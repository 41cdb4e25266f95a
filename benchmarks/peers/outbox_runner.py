"""What the runners of all outboxes share: saves that leave an event, then a relay that sends what is left.

Each runs in a process and with an empty database of its own, and prints one line of JSON. BENCH_WARM saves are timed of
each kind; their events the relay sends before its clock starts. BENCH_EVENTS are relayed against the clock.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import django
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import CharField, DateTimeField, DecimalField, Model

from benchmarks.timing import seconds_for

URL = os.environ["BENCH_REDIS_URL"]
STREAM = "bench.outbox"
TOGETHER = 500
CLIENT = redis.Redis.from_url(URL)

Leave = Callable[[int], object]
"""Puts event `number` into the outbox, in the current transaction."""


def setup_peer(app: str, **more: Any) -> None:
    """Django with this app and what some of them depend on."""
    settings.configure(
        SECRET_KEY="for benchmarks only",
        USE_TZ=True,
        LOGGING_CONFIG=None,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={"default": json.loads(os.environ["BENCH_DATABASE"])},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", app],
        **more,
    )
    logging.disable(logging.INFO)  # some log every event
    django.setup()


def send(body: object) -> None:
    """For those that leave it to their user how an event gets to Redis."""
    CLIENT.xadd(STREAM, {"event": body if isinstance(body, str) else json.dumps(body)})


def run(*, relay: Callable[[], object], write: Leave, **more: Leave) -> None:
    """Measure one outbox. `write` sends nothing; `more` names other ways to leave an event."""
    call_command("migrate", verbosity=0)
    model = order_model()
    added = {way: microseconds_added(model, leave) for way, leave in {"write": write, **more}.items()}
    relay()
    leave_together(write)
    print(json.dumps(added | relayed(relay)), flush=True)


def order_model() -> type[Model]:
    """What is saved, of no app: one would be searched for events and receivers."""

    class Order(Model):
        customer = CharField(max_length=100)
        status = CharField(max_length=20)
        total = DecimalField(max_digits=10, decimal_places=2)
        placed_at = DateTimeField(auto_now_add=True)

        class Meta:
            app_label = "bench"

    with connection.schema_editor() as editor:
        editor.create_model(Order)
    return Order


def microseconds_added(model: type[Model], leave: Leave) -> float:
    """To a save in a transaction of its own that leaves nothing; the two take turns, and their medians count.

    Nothing else has a turn: what one way wakes elsewhere, a third would wait for.
    """
    without, with_event = list[float](), list[float]()
    for number in range(int(os.environ["BENCH_WARM"])):
        without.append(seconds_for(lambda: save(model)))
        with_event.append(seconds_for(lambda number=number: save(model, leave, number)))
    return (median(with_event) - median(without)) * 1e6


def save(model: type[Model], leave: Leave | None = None, number: int = 0) -> None:
    with transaction.atomic():
        model(customer="Ada Lovelace", status="paid", total="1234.50").save()
        if leave:
            leave(number)


def leave_together(leave: Leave) -> None:
    """All that is relayed, in few transactions."""
    numbers = range(int(os.environ["BENCH_EVENTS"]))
    for first in range(0, len(numbers), TOGETHER):
        with transaction.atomic():
            for number in numbers[first : first + TOGETHER]:
                leave(number)


def relayed(relay: Callable[[], object]) -> dict[str, float]:
    """How fast the relay was. None may be missing on the stream, and none be there twice."""
    events, before = int(os.environ["BENCH_EVENTS"]), CLIENT.xlen(STREAM)
    cpu_before = time.process_time()
    seconds = seconds_for(relay)
    cpu = time.process_time() - cpu_before
    assert CLIENT.xlen(STREAM) - before == events, f"{CLIENT.xlen(STREAM) - before} of {events} arrived"
    return {"per_second": events / seconds, "cpu_us": cpu / events * 1e6}
