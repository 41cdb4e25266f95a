"""Streams that are too long, and groups nobody serves: nothing goes silently."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis

from redis_events import heartbeat
from redis_events.announcements import Announcement
from redis_events.transports.client import Wire
from redis_events.transports.trimming import Trimmer
from tests.listeners import receiver
from tests.servers import Server


@pytest.fixture
def client(server: Server) -> redis.Redis:
    return server.client()


@pytest.fixture
def wire(redis_location: str) -> Iterator[Wire]:
    wire = Wire(redis_location, timeout=5.0)
    yield wire
    wire.close()


@pytest.fixture
def orders(events_settings: dict[str, Any], settings: Any, prefix: str) -> str:
    """The key of the channel `orders`, a stream of at most 10 entries."""
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream", "MAX_LENGTH": 10}}}
    return f"{prefix}:orders"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.WARNING, "redis_events.listen")
    return Lines(caplog)  # type: ignore[return-value]


class Lines:
    """What was logged since the last look."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def new(self) -> list[str]:
        found = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return found


def fill(client: redis.Redis, key: str, count: int) -> None:
    """Entries of this very moment: RETENTION keeps them all."""
    with client.pipeline() as pipeline:
        for number in range(count):
            pipeline.xadd(key, {"data": number})
        pipeline.execute()


def read(client: redis.Redis, key: str, group: str, count: int) -> list[bytes]:
    answer = client.xreadgroup(group, "somebody", {key: ">"}, count=count)
    return [id for _, entries in answer for id, _ in entries]  # type: ignore[union-attr]


def serve(wire: Wire, channel: str = "orders") -> None:
    heartbeat.beat(wire, heartbeat.card([receiver(print, channel)], version="test"))


# ------------------------------------------------------------------ MAX_LENGTH


def test_at_max_length_an_alarm_comes_first_then_the_oldest_go_and_the_unsettled_are_counted(
    orders: str, client: redis.Redis, wire: Wire, lines: Lines
) -> None:
    client.xgroup_create(orders, "shop", "0", mkstream=True)
    fill(client, orders, 25)
    client.xack(orders, "shop", *read(client, orders, "shop", 4))
    serve(wire)
    trimmer = Trimmer()

    trimmer.trim(wire, ["orders"])
    assert client.xlen(orders) == 25
    (said,) = lines.new()
    assert said.startswith("orders has 25 entries, more than MAX_LENGTH (10)")

    trimmer.trim(wire, ["orders"])
    assert [entry[b"data"] for _, entry in client.xrange(orders)] == [str(n).encode() for n in range(15, 25)]
    assert lines.new() == ["orders: MAX_LENGTH removed 11 entries that not every group had settled"]

    trimmer.trim(wire, ["orders"])
    assert lines.new() == ["orders is within MAX_LENGTH again: 15 entries were removed, 11 of them unsettled"]
    trimmer.trim(wire, ["orders"])
    assert lines.new() == []


def test_what_is_pending_counts_as_unsettled_and_the_groups_that_are_ours_do_not_count(
    orders: str, client: redis.Redis, wire: Wire, lines: Lines
) -> None:
    for group in ("shop", "billing", "~relay:shop"):
        client.xgroup_create(orders, group, "0", mkstream=True)
    fill(client, orders, 20)
    client.xack(orders, "billing", *read(client, orders, "billing", 20))
    ids = read(client, orders, "shop", 20)
    client.xack(orders, "shop", *ids[:7], *ids[8:])
    trimmer = Trimmer()
    for _ in range(3):
        trimmer.trim(wire, ["orders"])
    assert client.xlen(orders) == 10
    # From its oldest pending entry on a group has not settled: 7, 8 and 9 of the ten that went.
    assert "10 entries were removed, 3 of them unsettled" in lines.new()[-1]


def test_a_stream_that_is_settled_is_cut_without_loss(
    orders: str, client: redis.Redis, wire: Wire, lines: Lines
) -> None:
    client.xgroup_create(orders, "shop", "0", mkstream=True)
    fill(client, orders, 1_200)
    client.xack(orders, "shop", *read(client, orders, "shop", 1_200))
    trimmer = Trimmer()
    for _ in range(3):
        trimmer.trim(wire, ["orders"])
    assert client.xlen(orders) == 10
    assert [line for line in lines.new() if "unsettled" in line] == [
        "orders is within MAX_LENGTH again: 1,190 entries were removed, 0 of them unsettled"
    ]


def test_the_cap_another_service_announced_is_kept_to(
    events_settings: dict[str, Any], prefix: str, client: redis.Redis, wire: Wire
) -> None:
    told = Announcement(service="crm", channel="order*", transport="stream", retention=60.0, max_length=5)
    client.hset(f"{prefix}:redis-events:announcements", "crm order*", msgspec.json.encode(told))
    fill(client, f"{prefix}:orders", 9)
    trimmer = Trimmer()
    for _ in range(2):
        trimmer.trim(wire, ["orders"])
    assert client.xlen(f"{prefix}:orders") == 5


# ------------------------------------------------------------------ groups nobody serves


def test_a_group_without_a_listener_that_has_work_waiting_is_an_alarm_once_and_its_end_a_line(
    orders: str, client: redis.Redis, wire: Wire, lines: Lines
) -> None:
    for group in ("shop", "~relay:shop", "finished"):
        client.xgroup_create(orders, group, "0", mkstream=True)
    fill(client, orders, 3)
    client.xack(orders, "finished", *read(client, orders, "finished", 3))
    trimmer = Trimmer()
    trimmer.trim(wire, ["orders"])
    assert lines.new() == []  # a restart looks like this too
    trimmer.trim(wire, ["orders"])
    assert lines.new() == ["orders: no listener of shop is alive; what it has not read is kept for it"]
    trimmer.trim(wire, ["orders"])
    assert lines.new() == []
    serve(wire, "ord*")
    trimmer.trim(wire, ["orders"])
    assert lines.new() == ["orders: shop is served again, or has nothing left to read"]


def test_a_listener_of_another_channel_or_group_serves_nobody_here(
    orders: str, client: redis.Redis, wire: Wire, lines: Lines
) -> None:
    client.xgroup_create(orders, "shop:search", "0", mkstream=True)
    fill(client, orders, 1)
    serve(wire, "invoices")
    trimmer = Trimmer()
    for _ in range(2):
        trimmer.trim(wire, ["orders"])
    assert lines.new() == ["orders: no listener of shop:search is alive; what it has not read is kept for it"]
    assert client.xlen(orders) == 1


def test_a_group_whose_name_is_no_text_keeps_nobody_from_looking_after_the_others(
    orders: str, wire: Wire, client: redis.Redis, lines: Lines
) -> None:
    """Anybody may make one. It crashed the thread that beats the heart."""
    fill(client, orders, 3)
    for group in (b"\xff\xfe", b"billing"):
        client.xgroup_create(orders, group, "0")
    trimmer = Trimmer()
    for _ in range(2):
        trimmer.trim(wire, ["orders"])
    assert [line.partition(";")[0] for line in lines.new()] == [
        "orders: no listener of billing is alive",
        "orders: no listener of \\xff\\xfe is alive",
    ]
