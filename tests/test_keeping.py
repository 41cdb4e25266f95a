"""Showing that a process is alive while its receivers run, and writing down how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis
from django.db import OperationalError

from redis_events import heartbeat, keeping
from redis_events.conf import conf
from redis_events.exceptions import Unreachable
from redis_events.keeping import Keeper, Recorder
from redis_events.registry import Receiver
from redis_events.transports.client import Wire
from redis_events.transports.memory import MemoryTransport
from tests.listeners import receiver
from tests.processes import open_descriptors
from tests.servers import Server, free_port, wait_for


class Watched(MemoryTransport):
    """Counts how often it is looked after."""

    def __init__(self) -> None:
        super().__init__("memory://keeping")
        self.kept = self.recorded = 0
        self.error: Exception | None = None

    def keep(self) -> None:
        self.kept += 1
        if self.error:
            raise self.error

    def record(self) -> None:
        self.recorded += 1
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def _settings(settings: Any, events_settings: dict[str, Any]) -> None:
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def noted() -> list[list[Receiver]]:
    return []


@pytest.fixture
def keeper(noted: list[list[Receiver]]) -> Iterator[Keeper]:
    keeper = Keeper(heartbeat.card([receiver(mine)], version="1"), [Watched()], note=noted.append)
    yield keeper
    keeper._drop_wire()


def mine(event: Any) -> None: ...


def theirs(event: Any) -> None: ...


def another(id: str, service: str = "shop") -> heartbeat.Card:
    """Somebody else's card, beaten once."""
    card = heartbeat.card([receiver(theirs, types=("a.*",), group="search")], version="2")
    other = heartbeat.Card(
        **{name: getattr(card, name) for name in card.__struct_fields__} | {"id": id, "service": service}
    )
    wire = Wire(conf.LOCATION, timeout=1.0)
    heartbeat.beat(wire, other)
    wire.close()
    return other


def test_a_beat_learns_what_the_other_listeners_of_the_service_have(
    keeper: Keeper, noted: list[list[Receiver]]
) -> None:
    assert not keeper.beat()
    another("host:1:a")
    another("host:1:b", service="billing")
    assert keeper.beat()
    assert noted[0] == []
    assert [(each.name, each.channel, each.types, each.group) for each in noted[1]] == [
        ("app.theirs", "orders", ("a.*",), "search")
    ]


def test_another_service_is_no_company(keeper: Keeper) -> None:
    another("host:1:b", service="billing")
    assert not keeper.beat()


def test_the_transports_are_kept_with_each_beat(keeper: Keeper) -> None:
    keeper.beat()
    keeper.beat()
    assert keeper._transports[0].kept == 2  # type: ignore[attr-defined]


def test_what_channels_says_is_announced_and_announced_again_when_it_was_lost(
    keeper: Keeper, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = conf.redis_name("redis-events:announcements")
    keeper.beat()
    assert client.hkeys(key) == [b"shop orders"]
    client.delete(key)
    monkeypatch.setattr(keeper, "_next_announcement", 0.0)
    keeper.beat()
    assert client.hkeys(key) == [b"shop orders"]


def test_a_server_that_is_away_is_beaten_to_again_with_nothing_left_open(keeper: Keeper, settings: Any) -> None:
    good = settings.REDIS_EVENTS
    keeper.beat()
    settings.REDIS_EVENTS = {**good, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    keeper._drop_wire()
    before = open_descriptors()
    for _ in range(10):
        assert not keeper.beat()
    assert open_descriptors() <= before
    settings.REDIS_EVENTS = good
    another("host:1:a")
    assert keeper.beat()


def test_a_killed_connection_costs_one_beat(keeper: Keeper, client: redis.Redis) -> None:
    another("host:1:a")
    keeper.beat()
    assert keeper._wire
    host, port = keeper._wire.socket.getsockname()
    client.client_kill_filter(addr=f"{host}:{port}")
    assert [keeper.beat(), keeper.beat()] == [False, True]


def test_running_it_beats_and_stopping_it_says_good_bye(
    keeper: Keeper, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "BEAT", 0.02)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    key = conf.redis_name(f"redis-events:listeners:{keeper.own.id}")
    wait_for(lambda: client.exists(key), what="a heartbeat")
    keeper.stop()
    thread.join(5)
    assert not client.exists(key)
    assert client.zscore(conf.redis_name("redis-events:listeners"), keeper.own.id) is None


# ------------------------------------------------------------------ what is kept in databases


def test_claims_are_renewed_every_third_of_claim_after(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CLAIM_AFTER": 0.3}
    renewals: list[float] = []
    recorder = Recorder([], renew=lambda: renewals.append(time.monotonic()))
    thread = threading.Thread(target=recorder.run)
    thread.start()
    wait_for(lambda: len(renewals) >= 4, what="four renewals")
    recorder.stop()
    thread.join(5)
    assert all(later - sooner < 0.29 for sooner, later in pairwise(renewals))


def test_trouble_with_the_database_or_the_server_ends_no_recorder(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CLAIM_AFTER": 0.03}
    broken, whole = Watched(), Watched()
    broken.error = Unreachable("away")

    def renew() -> None:
        raise OperationalError("away")

    recorder = Recorder([broken, whole], renew=renew)
    thread = threading.Thread(target=recorder.run)
    thread.start()
    wait_for(lambda: whole.recorded > 3, what="the rounds to go on")
    recorder.stop()
    thread.join(5)
    assert broken.recorded == whole.recorded


@pytest.mark.usefixtures("real_transactions")
def test_the_last_look_comes_after_the_stop() -> None:
    """The listener has settled its last batch by then."""
    transport = Watched()
    recorder = Recorder([transport], renew=lambda: None)
    recorder.stop()
    recorder.run()
    assert transport.recorded == 1
