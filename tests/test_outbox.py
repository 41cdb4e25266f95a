"""The outbox: a change and its event are committed together or not at all, and every committed event is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.db.models.signals import post_save

from redis_events import ModelPublisher, outbox, posting, publishes
from redis_events.models import OutboxEvent
from redis_events.transports.stream import StreamTransport
from tests.servers import Server
from tests.testapp.models import Order

pytestmark = pytest.mark.usefixtures("declared", "real_transactions")
CHANNEL = "shop.orders"


@pytest.fixture(params=["sqlite", "postgres"])
def alias(request: pytest.FixtureRequest) -> str:
    """Each kind of database: one with a single writer, one with row locks."""
    return request.getfixturevalue("postgres_alias") if request.param == "postgres" else "default"


@pytest.fixture
def outboxed(settings: Any, events_settings: dict[str, Any]) -> dict[str, Any]:
    """REDIS_EVENTS with an outbox for CHANNEL, at the session's server."""
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {CHANNEL: {"OUTBOX": True}}}
    return settings.REDIS_EVENTS


@pytest.fixture
def order_publisher(outboxed: dict[str, Any]) -> type[ModelPublisher]:
    @publishes(Order)
    class OrderPublisher(ModelPublisher):
        channel = CHANNEL
        type_prefix = "shop.order"
        fields = ("id", "status")

    return OrderPublisher


@pytest.fixture
def entries(server: Server, prefix: str) -> Iterator[Callable[..., list[tuple[str, dict[str, Any]]]]]:
    """What the stream has: entry ids and documents."""
    client = server.client()

    def read(channel: str = CHANNEL) -> list[tuple[str, dict[str, Any]]]:
        found = client.xrange(f"{prefix}:{channel}")
        return [(id.decode(), json.loads(fields[b"event"])) for id, fields in found]

    yield read
    client.close()


def rows(alias: str) -> list[OutboxEvent]:
    return list(OutboxEvent.objects.using(alias).order_by("id"))


def relay(alias: str, **options: Any) -> int:
    """What a relay does, once: the number of events sent."""
    from redis_events.conf import conf

    transport = StreamTransport(conf.LOCATION)
    try:
        return len(outbox.send_some(transport, using=alias, **options).sent)
    finally:
        transport.close()


@pytest.fixture
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sends right after a commit: rows wait for a relay, also on SQLite from their first moment."""
    monkeypatch.setattr(posting.Poster, "send", lambda self, batch: None)
    monkeypatch.setattr(outbox, "HEAD_START", -60.0)


# ------------------------------------------------------------------ together or not at all


def test_a_lone_save_has_its_event_in_the_outbox_and_on_the_stream(
    alias: str, order_publisher: Any, entries: Any
) -> None:
    order = Order(status="paid")
    order.save(using=alias)
    ((entry_id, document),) = entries()
    (row,) = rows(alias)
    assert document["data"] == {"id": order.pk, "status": "paid"}
    assert (row.event_id, row.type, row.key) == (document["id"], "shop.order.created", str(order.pk))
    assert json.loads(bytes(row.body)) == document
    assert f"{row.sent_ms}-{row.sent_seq}" == entry_id


def test_a_rolled_back_save_leaves_neither(alias: str, order_publisher: Any, entries: Any) -> None:
    with pytest.raises(KeyError), transaction.atomic(using=alias):
        Order().save(using=alias)
        raise KeyError
    assert (rows(alias), entries(), Order.objects.using(alias).count()) == ([], [], 0)


def test_a_rolled_back_savepoint_takes_only_its_own_events(alias: str, order_publisher: Any, entries: Any) -> None:
    with transaction.atomic(using=alias):
        Order(status="kept").save(using=alias)
        with pytest.raises(KeyError), transaction.atomic(using=alias):
            Order(status="dropped").save(using=alias)
            raise KeyError
        Order(status="kept too").save(using=alias)
        assert entries() == []
    assert [document["data"]["status"] for _, document in entries()] == ["kept", "kept too"]
    assert [row.sent_ms is not None for row in rows(alias)] == [True, True]


def test_another_receiver_of_post_save_that_raises_undoes_a_lone_save(
    alias: str, order_publisher: Any, entries: Any
) -> None:
    def fail(**_: Any) -> None:
        raise KeyError

    post_save.connect(fail, sender=Order)
    try:
        with pytest.raises(KeyError):
            Order().save(using=alias)
    finally:
        post_save.disconnect(fail, sender=Order)
    assert (rows(alias), entries(), Order.objects.using(alias).count()) == ([], [], 0)
