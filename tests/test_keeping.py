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

from redis_events import heartbeat, keeping, pauses, tally
from redis_events.conf import conf
from redis_events.exceptions import Unreachable
from redis_events.keeping import Keeper, Recorder
from redis_events.registry import Receiver
from redis_events.retry import DONE
from redis_events.runner import Result
from redis_events.tally import Tally
from redis_events.transports.client import Wire
from redis_events.transports.memory import MemoryTransport
from tests.listeners import delivery, document, receiver, run
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


def test_what_channels_says_is_announced_and_announced_again_with_the_next_beat_when_it_was_lost(
    keeper: Keeper, client: redis.Redis
) -> None:
    key = conf.redis_name("redis-events:announcements")
    keeper.beat()
    assert client.hkeys(key) == [b"shop orders"]
    client.delete(key)
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


# ------------------------------------------------------------------ what goes with a beat


class Told:
    """A keeper's process: what it was told."""

    def __init__(self) -> None:
        self.paused: list[frozenset[str]] = []
        self.left = 0
        self.tally = Tally()
        self.keeper = Keeper(
            heartbeat.card([receiver(mine)], version="1", started=12.5),
            [],
            note=lambda _: None,
            note_paused=self.paused.append,
            leave=self.leave,
            in_flight=lambda: 7,
            tally=self.tally,
        )

    def leave(self) -> None:
        self.left += 1


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    yield told
    told.keeper._drop_wire()


def call(*commands: Any) -> list[Any]:
    wire = Wire(conf.LOCATION, timeout=1.0)
    answers = wire.call(commands)
    wire.close()
    return answers


def pause(name: str, service: str = "shop") -> None:
    call(pauses.pause(name, service=service, by="ann", at=1))


def count_one(own: Tally) -> None:
    own.note([Result(run(receiver(mine), document()), DONE, None, 0.1)], failed=[], settled=[delivery(b"")])


def settled() -> int:
    minutes = tally.last_minutes(2, at=time.time())
    found = tally.read_minutes(minutes, answers=call(*tally.asked_minutes(minutes)))
    return sum(each.settled.get("orders", 0) for each in found if each)


def test_a_beat_tells_which_of_its_own_receivers_are_paused_and_says_each_change_once(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    pause("app.mine")
    pause("app.theirs")
    pause("app.mine", service="billing")
    told.keeper.beat()
    told.keeper.beat()
    call(*pauses.resume("app.mine", service="shop"))
    told.keeper.beat()
    assert told.paused == [{"app.mine"}, {"app.mine"}, frozenset()]
    assert [line.partition(":")[0] for line in caplog.messages] == [
        "app.mine was paused by ann",
        "app.mine was resumed",
    ]


def test_a_pause_that_the_server_has_forgotten_stays_and_is_said_again(
    told: Told, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Only people let a receiver run again, not a FLUSHALL."""
    pause("app.mine")
    told.keeper.beat()
    client.delete(conf.redis_name("redis-events:paused"))
    told.keeper.beat()
    told.keeper.beat()
    assert told.paused == [{"app.mine"}] * 3
    assert [line.partition(":")[0] for line in caplog.messages] == [
        "app.mine was paused by ann",
        "the server has forgotten that app.mine is paused",
    ]
    found = pauses.of_service(call(pauses.asked())[0], "shop")
    assert found is not None
    assert found["app.mine"] == pauses.Pause(by="ann", at=1)


def test_what_is_paused_stays_so_while_nobody_can_say(
    told: Told, client: redis.Redis, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pause("app.mine")
    told.keeper.beat()
    good = settings.REDIS_EVENTS
    settings.REDIS_EVENTS = {**good, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    told.keeper._drop_wire()
    assert not told.keeper.beat()
    settings.REDIS_EVENTS = good
    client.set(conf.redis_name("redis-events:paused"), "x")
    told.keeper.beat()
    told.keeper.beat()
    assert told.paused == [{"app.mine"}]
    assert len([line for line in caplog.messages if line.startswith("nobody can say what is paused: WRONGTYPE")]) == 1


def test_who_may_not_know_what_is_paused_says_once_what_comes_of_it(
    told: Told, client: redis.Redis, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def let_see(keys: str) -> None:
        every = {"enabled": True, "nopass": True, "commands": ["+@all"], "reset_keys": True}
        client.acl_setuser("unsure", **every, keys=[f"{conf.PREFIX}:redis-events:{keys}"])

    pause("app.mine")
    let_see("[^p]*")
    good = settings.REDIS_EVENTS
    settings.REDIS_EVENTS = {**good, "LOCATION": good["LOCATION"].replace("redis://", "redis://unsure:x@")}
    try:
        told.keeper.begin()
        told.keeper.beat()
        let_see("*")
        told.keeper.beat()
        let_see("[^p]*")
        told.keeper.beat()
    finally:
        client.acl_deluser("unsure")
    assert told.paused == [{"app.mine"}]
    before, learned, after = caplog.messages
    assert before.startswith("nobody can say what is paused: NOPERM")
    assert before.endswith("(until the server says, every receiver runs, a paused one too)")
    assert learned.startswith("app.mine was paused by ann")
    assert after.endswith("(until the server says, what was paused stays so)")


def test_a_listener_does_not_begin_without_knowing_what_is_paused(told: Told, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    with pytest.raises(Unreachable):
        told.keeper.begin()
    assert told.paused == []


def test_it_knows_what_is_paused_though_a_full_server_takes_no_heartbeat(settings: Any) -> None:
    with Server() as full, full.client() as client:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": full.url, "CHANNELS": {}}
        pause("app.mine")
        client.config_set("maxmemory", 1)
        told = Told()
        told.keeper.begin()
        assert told.paused == [{"app.mine"}]


def test_a_listener_that_is_asked_to_stop_is_told_once_and_by_whom(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.keeper.beat()
    assert told.left == 0
    call(heartbeat.stop(told.keeper.own.id, who="ann\nforged"))
    told.keeper.beat()
    told.keeper.beat()
    assert told.left == 1, "a second signal would abandon what is in hand"
    assert caplog.messages == ["asked to stop by ann forged"]


def test_a_card_says_how_it_is_at_each_beat_and_when_it_began(told: Told, client: redis.Redis) -> None:
    told.keeper.beat()
    (card,) = heartbeat.cards(told.keeper._wire)  # type: ignore[arg-type]
    assert (card.in_flight, card.started) == (7, 12.5)


def test_what_was_counted_goes_with_the_beat(told: Told) -> None:
    count_one(told.tally)
    told.keeper.beat()
    assert settled() == 1
    told.keeper.beat()
    assert settled() == 1


def test_what_was_counted_last_goes_with_the_good_bye(told: Told) -> None:
    told.keeper.beat()
    count_one(told.tally)
    told.keeper.stop()
    told.keeper.run()
    assert settled() == 1


def test_statistics_that_are_refused_stop_no_heartbeat(
    told: Told, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for minute in tally.last_minutes(3, at=time.time() + 60):
        client.set(conf.redis_name(f"redis-events:stats:{minute}"), "x")
    for _ in range(2):
        count_one(told.tally)
        told.keeper.beat()
    assert client.exists(conf.redis_name(f"redis-events:listeners:{told.keeper.own.id}"))
    assert len([line for line in caplog.messages if line.startswith("statistics are not kept: WRONGTYPE")]) == 1


def test_how_much_its_streams_ever_had_is_noted(told: Told, client: redis.Redis) -> None:
    client.xadd(conf.redis_name("orders"), {"event": "x"})
    told.keeper.beat()
    told.keeper.beat()
    minutes = tally.last_minutes(2, at=time.time())
    found = tally.read_minutes(minutes, answers=call(*tally.asked_minutes(minutes)))
    assert {"orders": 1} in [each.added for each in found if each]


def test_all_this_costs_no_round_trip_more(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    trips: list[int] = []
    call = Wire.call
    monkeypatch.setattr(Wire, "call", lambda wire, commands: trips.append(len(commands)) or call(wire, commands))
    told.keeper.beat()
    first, trips[:] = len(trips), []
    count_one(told.tally)
    told.keeper.beat()
    assert len(trips) == 3, "the heartbeat, the list of listeners, their cards"
    assert first == 3 + 1, "and every ten seconds what is announced"


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
