"""The overview of a large installation: 100,000 events on 50 channels, 10,000 dead letters."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from redis_events import receives
from redis_events.conf import conf
from redis_events.events import now
from redis_events.models import HeldDelivery, Overview
from tests.pages import logged_in, page, text_of, user
from tests.servers import Server

pytestmark = [
    pytest.mark.usefixtures("declared"),
    pytest.mark.django_db(databases=["default", "other"]),
    pytest.mark.slow,
]

CHANNELS, EVENTS, LETTERS = 50, 100_000, 10_000
LONGEST = 0.15
"""Seconds of the server for one overview."""
DOCUMENT = (
    b'{"specversion":"1.0","id":"%d","source":"shop","type":"shop.order.paid","time":"2026-01-01T00:00:00.000000Z",'
    b'"datacontenttype":"application/json","data":{"number":%d}}'
)


def fill(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(EVENTS):
        pipe.xadd(conf.redis_name(f"shop.c{number % CHANNELS}"), {"event": DOCUMENT % (number, number)})
        if number % 5_000 == 4_999:
            pipe.execute()
    for number in range(CHANNELS):
        receives(f"shop.c{number}", name=f"tests.r{number}")(lambda event: None)
        client.xgroup_create(conf.redis_name(f"shop.c{number}"), "shop", "0")
        client.xreadgroup("shop", "ghost", {conf.redis_name(f"shop.c{number}"): ">"}, count=200)
    HeldDelivery.objects.bulk_create((letter(number) for number in range(LETTERS)), batch_size=1_000)


def letter(number: int) -> HeldDelivery:
    return HeldDelivery(
        source="shop",
        event_id=f"e{number}",
        group="shop",
        receiver=f"tests.r{number % CHANNELS}",
        channel=f"shop.c{number % CHANNELS}",
        type="shop.order.paid",
        key=str(number),
        entry_id="",
        state="dead",
        attempt=8,
        raw=DOCUMENT % (number, number),
        reason="refused",
        exception="ConnectionError",
        traceback="Traceback" * 100,
        fingerprint=f"{number % 20:016x}",
        created_at=now(),
        updated_at=now(),
    )


def test_the_overview_of_100_000_events_takes_150_ms_at_most(
    settings: Any, events_settings: dict[str, Any], server: Server
) -> None:
    channels = {f"shop.c{number}": {"TRANSPORT": "stream"} for number in range(CHANNELS)}
    settings.REDIS_EVENTS = {**events_settings, "SERVICE": "shop", "CHANNELS": channels}
    with server.client() as client:
        fill(client)
        root = logged_in(user("root", is_superuser=True))
        took = []
        for _ in range(7):
            began = time.perf_counter()
            answer = root.get(page(Overview))
            took.append(time.perf_counter() - began)
        client.delete(*(conf.redis_name(name) for name in channels))
    text = text_of(answer.content.decode())
    assert "Dead letters 10,000" in text
    assert min(took) <= LONGEST, [f"{each:.3f}" for each in took]
