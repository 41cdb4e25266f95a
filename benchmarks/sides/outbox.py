"""Saves through an outbox, and a relay that empties it, in one process.

Prints the µs per save in a transaction of its own: of a model nobody publishes, of the same with a ready-made row
inserted beside it, of one whose event is only written, of one whose event is sent right after the commit too; and the
events/s of our relay and of a plain loop on the same rows.
"""

import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import django
import redis
from django.db import connection, transaction

from benchmarks.timing import seconds_for

CLIENT = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
LIMIT = 500
TABLE = "redis_events_outboxevent"
INSERT = (
    f"INSERT INTO {TABLE} (channel, event_id, type, key, body, created_at, discarded)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id"
)
READY = ("bench.outbox", "0" * 36, "shop.order.created", "1", b"x" * 550, "2026-11-25 12:00:00+00:00", False)


def save(model: Any) -> None:
    with transaction.atomic():
        model(customer="Ada Lovelace", status="paid", total="1234.50").save()


def save_beside_insert(model: Any) -> None:
    """The least a row of its own can cost: one INSERT that somebody has made ready."""
    with transaction.atomic():
        model(customer="Ada Lovelace", status="paid", total="1234.50").save()
        with connection.cursor() as cursor:
            cursor.execute(INSERT, READY)
            cursor.fetchall()


def saves(turns: int) -> dict[str, float]:
    """The median µs of one save of each kind, taking turns."""
    from benchmarks.project.models import OutboxedOrder, UnpublishedOrder
    from redis_events.posting import Poster

    post = Poster.send
    kinds = {
        "nobody": (save, UnpublishedOrder, post),
        "inserted": (save_beside_insert, UnpublishedOrder, post),
        "written": (save, OutboxedOrder, skip),
        "sent": (save, OutboxedOrder, post),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(turns):
        for name, (work, model, Poster.send) in kinds.items():
            seconds[name].append(seconds_for(lambda work=work, model=model: work(model)))
    Poster.send = post
    return {name: median(values) * 1e6 for name, values in seconds.items()}


def skip(poster: Any, batch: Any) -> None:
    """In place of sending."""


def fill(events: int) -> None:
    """An outbox of so many unsent rows that no relay takes for too young."""
    from redis_events import outbox, publish
    from redis_events.posting import Poster

    outbox.HEAD_START, post, Poster.send = -3600.0, Poster.send, skip
    data = {"id": 1, "customer": "Ada Lovelace", "status": "paid", "total": "1234.50", "note": "x" * 250}
    with transaction.atomic():
        for number in range(events):
            publish("bench.outbox", data, type="shop.order.updated", key=number)
    Poster.send = post


def per_second(events: int, empty: Callable[[], None]) -> float:
    fill(events)
    before = CLIENT.xlen("bench.outbox")
    started = time.perf_counter()
    empty()
    seconds = time.perf_counter() - started
    assert CLIENT.xlen("bench.outbox") - before == events
    return events / seconds


def relay() -> None:
    from redis_events.relaying import Relay

    ours = Relay(["default"])
    ours.drain()
    ours.close()


def relay_by_hand() -> None:
    """What a careful hand-writer runs: in one transaction select, send in a pipeline, mark."""
    lock = " FOR UPDATE SKIP LOCKED" if connection.vendor == "postgresql" else ""
    where = "WHERE NOT discarded AND sent_ms IS NULL ORDER BY id"
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SELECT id, channel, body FROM {TABLE} {where} LIMIT {LIMIT}{lock}")
            rows = cursor.fetchall()
            if not rows:
                return
            pipeline = CLIENT.pipeline(transaction=False)
            for _, channel, body in rows:
                pipeline.xadd(channel, {"event": bytes(body)})
            sent = [id.split(b"-") for id in pipeline.execute()]
            marks = [(int(ms), int(seq), row[0]) for row, (ms, seq) in zip(rows, sent, strict=True)]
            cursor.executemany(f"UPDATE {TABLE} SET sent_ms = %s, sent_seq = %s WHERE id = %s", marks)


def main() -> None:
    django.setup()
    events = int(os.environ["BENCH_EVENTS"])
    result = saves(int(os.environ["BENCH_SAVES"]))
    CLIENT.delete("bench.outbox")
    fill(0)
    relay()
    print(json.dumps(result | {"relay": per_second(events, relay), "by_hand": per_second(events, relay_by_hand)}))


if __name__ == "__main__":
    main()
