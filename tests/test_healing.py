"""What Redis loses of the outbox comes back: flushes, torn files, promoted copies, taken ids, cuts on purpose.

LONG=1 runs the same with the numbers the promise is measured with.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, transaction

from redis_events import floors, healing, heartbeat
from redis_events.conf import conf
from redis_events.events import now
from redis_events.exceptions import TransportError
from redis_events.healing import Healer
from redis_events.listening import Listener
from redis_events.models import ChannelState, OutboxEvent
from redis_events.transports import claims
from redis_events.transports.base import Subscription
from redis_events.transports.client import Wire
from redis_events.transports.groups import Groups
from redis_events.transports.keeper import Recorder
from redis_events.transports.roads import delivery
from redis_events.transports.stream import StreamTransport
from redis_events.transports.trimming import Trimmer
from tests.listeners import document, receiver
from tests.servers import Server, needs, wait_for
from tests.torn import Torn

LONG = bool(os.environ.get("LONG"))
CHANNEL = "orders"

pytestmark = pytest.mark.usefixtures("real_transactions")


@pytest.fixture(scope="module", params=["", "redis7"], ids=["default", "redis7"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server these tests may flush, tear and restart."""
    with Server(aof=True, binary=needs(request.param) if request.param else "") as server:
        yield server


@pytest.fixture(autouse=True)
def _settings(settings: Any, events_settings: dict[str, Any], own_server: Server) -> None:
    settings.REDIS_EVENTS = {
        **events_settings,
        "LOCATION": own_server.url,
        "CHANNELS": {CHANNEL: {"OUTBOX": True}},
        "POLL": 0.05,
    }


class Shop:
    """A service with an outbox, its relay's healing, and groups that read: all of it without its processes."""

    def __init__(self, server: Server, using: str = "default") -> None:
        self.server = server
        self.using = using
        self.stream = conf.redis_name(CHANNEL)
        self.client = server.client()
        self.healer = Healer(using)
        self.sent: list[bytes] = []
        self.runs: dict[str, Counter[bytes]] = {}
        self.settled: dict[str, set[bytes]] = {}
        self._numbers = count()
        self._groups: dict[str, Groups] = {}

    def write(self, number: int) -> list[OutboxEvent]:
        bodies = [b"e%d" % next(self._numbers) for _ in range(number)]
        self.sent += bodies
        rows = [
            OutboxEvent(channel=CHANNEL, event_id=body.decode(), type="t", key="", body=body, created_at=now())
            for body in bodies
        ]
        return OutboxEvent.objects.using(self.using).bulk_create(rows)

    def send(self, number: int) -> list[OutboxEvent]:
        rows = self.write(number)
        self.add(rows)
        OutboxEvent.objects.using(self.using).bulk_update(rows, ["sent_ms", "sent_seq"])
        return rows

    def add(self, rows: Sequence[OutboxEvent]) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for row in rows:
                pipeline.xadd(self.stream, {"event": row.body})
            for row, entry_id in zip(rows, pipeline.execute(), strict=True):
                row.sent_ms, row.sent_seq = floors.parse(entry_id.decode())

    def consume(self, group: str, most: int = 10**9, *, settles: bool = True) -> int:
        """Run what is there for a group, as a listener does; how many deliveries."""
        self.open(group)
        done = 0
        while done < most:
            answer = self.client.xreadgroup(group, "c", {self.stream: ">"}, count=min(100, most - done))
            if not answer:
                break
            for entry_id, fields in answer[0][1]:  # type: ignore[index]
                self._run(group, entry_id, [part for item in fields.items() for part in item], settles)
                done += 1
        return done

    def _run(self, group: str, entry_id: bytes, fields: list[bytes], settles: bool) -> None:
        found = delivery(CHANNEL, group, entry_id, fields)
        self.runs.setdefault(group, Counter())[found.body] += not found.is_settled
        if settles:
            self.client.xack(self.stream, group, entry_id)
            self.settled.setdefault(group, set()).add(found.body)

    def redeliver(self, group: str) -> None:
        """What a listener that came back finds pending under its own name."""
        answer = self.client.xreadgroup(group, "c", {self.stream: "0"}, count=10_000)
        for entry_id, fields in answer[0][1] if answer else ():  # type: ignore[index]
            if fields:
                self._run(group, entry_id, [part for item in fields.items() for part in item], True)

    def open(self, group: str) -> None:
        """Have the group, made again as a listener makes it; its floor is written down as a listener does."""
        wire = Wire(conf.LOCATION, timeout=2.0)
        assert self._groups.setdefault(group, Groups()).open(wire, (CHANNEL, group))
        wire.close()

    def record(self, *groups: str) -> None:
        recorder = Recorder(conf.LOCATION)
        recorder.record([(CHANNEL, group) for group in groups])
        recorder.close()

    def poll(self) -> None:
        """As the relay does: trouble with Redis is tried again at the next poll."""
        try:
            self.healer.poll()
        except TransportError:
            self.healer.poll()

    def heal(self) -> None:
        self.poll()
        wait_for(lambda: not self.healer._healings or self.poll(), timeout=30, what="all to be healed")

    def missed(self, group: str) -> set[bytes]:
        return set(self.sent) - {body for body, runs in self.runs.get(group, {}).items() if runs}

    def repeated(self, group: str) -> set[bytes]:
        return {body for body, runs in self.runs.get(group, {}).items() if runs > 1}

    def finish(self, *groups: str) -> None:
        """Poll until all is healed, let each group work off what is there, and check that nothing is lost."""
        self.heal()
        for group in groups:
            self.open(group)
            self.redeliver(group)
            self.consume(group)
            assert not self.missed(group), group

    def close(self) -> None:
        self.healer.close()
        self.client.close()


@pytest.fixture
def shop(own_server: Server) -> Iterator[Shop]:
    own_server.client().flushall()
    shop = Shop(own_server)
    yield shop
    shop.close()


@pytest.fixture
def postgres_shop(own_server: Server, postgres_alias: str) -> Iterator[Shop]:
    own_server.client().flushall()
    shop = Shop(own_server, postgres_alias)
    yield shop
    shop.close()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "redis_events.relay")
    return caplog


def settled_by_now(shop: Shop) -> dict[str, set[bytes]]:
    return {group: set(bodies) for group, bodies in shop.settled.items()}


# ------------------------------------------------------------------ what is lost as a whole


@pytest.mark.parametrize("loses", ["flushall", "delete"])
def test_a_lost_stream_comes_back_and_only_what_was_settled_since_the_last_poll_runs_again(
    shop: Shop, loses: str, lines: pytest.LogCaptureFixture
) -> None:
    shop.send(500)
    shop.consume("fast")
    shop.consume("slow", 10)
    shop.poll()
    shop.send(20)
    shop.consume("fast", 5)
    shop.consume("slow", 3)
    shop.client.flushall() if loses == "flushall" else shop.client.delete(shop.stream)
    shop.send(7)
    shop.finish("fast", "slow")
    assert len(shop.repeated("fast")) == 5
    assert len(shop.repeated("slow")) == 3
    assert [record.getMessage() for record in lines.records] == [
        "healed orders: its stream was lost; 510 events sent again; "
        "plain receivers may run again, at most by group: fast 20, slow 510"
    ]


@pytest.mark.parametrize("flushes", [20 if LONG else 2])
def test_flushed_again_while_a_service_is_away_it_finds_everything_when_it_comes_back(shop: Shop, flushes: int) -> None:
    shop.open("slow")
    for _ in range(flushes):
        shop.send(100)
        shop.consume("fast")
        shop.poll()
        shop.client.flushall()
        shop.heal()
        shop.consume("fast")
        shop.poll()
    shop.finish("fast", "slow")
    assert not shop.repeated("fast")
    assert not shop.repeated("slow")


def test_a_group_of_a_service_that_is_away_is_made_again_so_that_trimming_waits_for_it(shop: Shop) -> None:
    shop.send(10)
    shop.consume("away", 4)
    shop.consume("there")
    shop.poll()
    shop.client.flushall()
    shop.poll()
    assert {each["name"] for each in shop.client.xinfo_groups(shop.stream)} == {b"away", b"there", b"~relay:shop"}
    shop.finish("away", "there")
    assert not shop.repeated("away")
    assert not shop.repeated("there")


def test_what_was_trimmed_or_settled_by_all_is_never_sent_again(shop: Shop) -> None:
    shop.send(50)
    shop.consume("fast")
    shop.consume("slow")
    shop.poll()
    shop.client.xtrim(shop.stream, minid=_last(shop), approximate=False)
    shop.send(5)
    shop.consume("new", 0)
    shop.poll()
    shop.poll()
    shop.client.flushall()
    shop.poll()
    assert [fields[b"event"] for _, fields in shop.client.xrange(shop.stream)] == shop.sent[49:]


def _last(shop: Shop) -> bytes:
    return shop.client.xinfo_stream(shop.stream)["last-generated-id"]  # type: ignore[no-any-return]


def test_a_new_group_gets_none_of_the_past_that_was_trimmed_not_even_after_a_loss(shop: Shop) -> None:
    shop.send(30)
    shop.consume("old")
    shop.poll()
    shop.client.xtrim(shop.stream, maxlen=0, approximate=False)
    shop.open("new")
    shop.send(1)
    shop.poll()
    shop.client.flushall()
    shop.poll()
    shop.consume("new")
    assert list(shop.runs["new"]) == shop.sent[30:]


# ------------------------------------------------------------------ what is lost in part


@pytest.mark.parametrize("cuts", [30 if LONG else 5])
def test_a_torn_tail_with_later_appends_loses_nothing(shop: Shop, cuts: int) -> None:
    chance = random.Random(cuts)
    torn = Torn(shop.server)
    for _ in range(cuts):
        shop.send(chance.randrange(1, 60))
        shop.consume("fast")
        shop.consume("slow", chance.randrange(40))
        shop.poll()
        size, before = torn.size(), settled_by_now(shop)
        repeated = {group: shop.repeated(group) for group in before}
        shop.send(chance.randrange(1, 60))
        shop.consume("fast", chance.randrange(60))
        shop.consume("slow", chance.randrange(60), settles=bool(chance.randrange(2)))
        torn.cut(chance.randrange(size, torn.size()))
        shop.send(chance.randrange(20))
        shop.consume("fast", chance.randrange(30))
        shop.finish("fast", "slow")
        for group, done in before.items():
            assert not (shop.repeated(group) - repeated[group]) & done, group
    assert_in_order(shop)


@pytest.mark.parametrize("cuts", [30 if LONG else 4])
def test_a_tail_torn_off_from_before_the_last_poll_loses_nothing_either(shop: Shop, cuts: int) -> None:
    chance = random.Random(cuts)
    torn = Torn(shop.server)
    for _ in range(cuts):
        size = torn.size()
        for _ in range(3):
            shop.send(chance.randrange(1, 30))
            shop.consume("fast", chance.randrange(40))
            shop.consume("slow", chance.randrange(20), settles=bool(chance.randrange(2)))
            shop.record("fast", "slow")
            shop.poll()
        torn.cut(chance.randrange(size, torn.size()))
        shop.send(chance.randrange(20))
        shop.finish("fast", "slow")
    assert_in_order(shop)


@pytest.mark.parametrize("promotions", [5 if LONG else 2])
def test_a_lagging_copy_that_is_promoted_loses_nothing(shop: Shop, promotions: int, tmp_path: Path) -> None:
    torn = Torn(shop.server)
    for number in range(promotions):
        shop.send(40)
        shop.consume("fast")
        shop.poll()
        torn.copy(tmp_path / str(number))
        shop.send(30)
        shop.consume("fast", 20)
        shop.consume("slow", 15)
        shop.record("fast", "slow")
        shop.poll()
        shop.send(10)
        torn.promote(tmp_path / str(number))
        shop.send(5)
        shop.finish("fast", "slow")
    assert_in_order(shop)


def assert_in_order(shop: Shop) -> None:
    """Every row knows where its entry is, and the marker stands at the last of them."""
    for row in OutboxEvent.objects.using(shop.using).order_by("-pk")[:50]:
        entry = shop.client.xrange(shop.stream, f"{row.sent_ms}-{row.sent_seq}", f"{row.sent_ms}-{row.sent_seq}")
        assert entry[0][1][b"event"] == bytes(row.body)
    groups = {each["name"]: each["last-delivered-id"] for each in shop.client.xinfo_groups(shop.stream)}
    assert groups[b"~relay:shop"] == _last(shop)


def test_an_entry_that_somebody_removed_from_the_middle_comes_back(shop: Shop, lines: pytest.LogCaptureFixture) -> None:
    rows = shop.send(10)
    shop.consume("shop", 3)
    shop.poll()
    shop.client.xtrim(shop.stream, maxlen=4, approximate=False)
    shop.finish("shop")
    assert not shop.repeated("shop")
    assert "healed orders: an entry was lost; 3 events sent again" in lines.text
    assert len(rows) == 10


def test_a_destroyed_group_goes_on_at_its_floor(shop: Shop) -> None:
    shop.send(20)
    shop.consume("shop", 12)
    shop.record("shop")
    shop.poll()
    shop.client.xgroup_destroy(shop.stream, "shop")
    shop.finish("shop")
    assert not shop.repeated("shop")


def test_an_id_that_another_entry_took_is_no_proof_of_presence_and_ids_never_go_back(shop: Shop) -> None:
    (row,) = shop.write(1)
    far = "5000000000000-0"
    shop.client.xadd(shop.stream, {"event": row.body}, id=far)
    row.sent_ms, row.sent_seq = floors.parse(far)
    row.save()
    shop.poll()
    shop.client.flushall()
    shop.client.xadd(shop.stream, {"event": b"foreign"}, id=far)
    shop.poll()
    entries = shop.client.xrange(shop.stream)
    assert [fields[b"event"] for _, fields in entries] == [b"foreign", row.body]
    assert floors.parse(entries[1][0].decode()) > floors.parse(far)


def test_events_sent_below_the_old_ids_before_healing_are_not_skipped_by_a_group_made_again(shop: Shop) -> None:
    shop.client.xadd(shop.stream, {"event": b"foreign"}, id="5000000000000-0")
    shop.send(3)
    shop.consume("shop")
    shop.record("shop")
    shop.poll()
    shop.client.flushall()
    shop.send(2)  # the clock of this server is behind: these ids are below the floor
    shop.finish("shop")
    assert not shop.repeated("shop")


def test_a_marker_that_was_destroyed_is_made_again_and_nothing_is_sent_again(
    shop: Shop, lines: pytest.LogCaptureFixture
) -> None:
    shop.send(5)
    shop.open("shop")
    shop.poll()
    shop.client.xgroup_destroy(shop.stream, "~relay:shop")
    shop.poll()
    assert shop.client.xlen(shop.stream) == 5
    assert "0 events sent again" in lines.text
    assert_in_order(shop)


def test_what_all_groups_had_settled_needs_no_sending_and_the_line_says_so(
    shop: Shop, lines: pytest.LogCaptureFixture
) -> None:
    shop.send(5)
    shop.consume("shop")
    shop.record("shop")
    shop.poll()
    shop.client.flushall()
    shop.heal()
    assert lines.messages == [
        "healed orders: its stream was lost; every group had settled all of it, nothing to send again"
    ]
    assert shop.client.xlen(shop.stream) == 0


# ------------------------------------------------------------------ what is being sent at that moment


def test_what_a_sender_had_in_flight_when_the_stream_was_lost_is_found_once_it_commits(shop: Shop) -> None:
    shop.send(10)
    shop.consume("shop", 10)
    shop.poll()
    rows = shop.write(3)
    shop.add(rows)  # its sender has the reply and has not committed yet
    shop.client.flushall()
    for _ in range(3):
        shop.poll()
        assert shop.healer._healings
    later = shop.send(2)
    shop.poll()
    OutboxEvent.objects.bulk_update(rows, ["sent_ms", "sent_seq"])
    assert later
    shop.finish("shop")
    assert not shop.repeated("shop")


def test_a_relay_that_dies_before_the_second_scan_leaves_it_to_the_next(shop: Shop) -> None:
    shop.send(10)
    shop.consume("shop")
    shop.poll()
    rows = shop.write(1)
    shop.add(rows)
    shop.client.flushall()
    shop.poll()
    shop.send(5)
    shop.consume("shop")
    shop.poll()
    shop.healer.close()
    shop.healer = Healer()
    OutboxEvent.objects.bulk_update(rows, ["sent_ms", "sent_seq"])
    shop.finish("shop")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_two_relays_that_heal_at_once_send_each_event_once(
    shop: Shop, database: str, request: pytest.FixtureRequest
) -> None:
    if database == "postgres":
        shop = request.getfixturevalue("postgres_shop")
    shop.send(300)
    shop.poll()
    healers = [Healer(shop.using) for _ in range(3)]
    for healer in healers:
        healer.poll()
    shop.client.flushall()
    start = threading.Barrier(len(healers))
    threads = [threading.Thread(target=_heal_together, args=(healer, start)) for healer in healers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(fields[b"event"] for _, fields in shop.client.xrange(shop.stream)) == sorted(shop.sent)
    shop.finish("shop")


def _heal_together(healer: Healer, start: threading.Barrier) -> None:
    try:
        start.wait(5)
        wait_for(lambda: healer.poll() or not healer._healings, timeout=15)
    finally:
        healer.close()
        connections.close_all()


def test_a_row_another_relay_has_locked_is_waited_for(postgres_shop: Shop) -> None:
    shop = postgres_shop
    shop.send(5)
    shop.poll()
    shop.client.flushall()
    done, locked = threading.Event(), threading.Event()
    holder = threading.Thread(target=_hold_rows, args=(shop.using, locked, done))
    holder.start()
    locked.wait(5)
    shop.poll()
    assert shop.healer._healings
    assert shop.client.xlen(shop.stream) == 0
    done.set()
    holder.join(5)
    shop.finish("shop")


def _hold_rows(using: str, locked: threading.Event, done: threading.Event) -> None:
    with transaction.atomic(using=using):
        list(OutboxEvent.objects.using(using).select_for_update())
        locked.set()
        done.wait(5)
    connections.close_all()


@pytest.mark.parametrize("is_begun", [False, True], ids=["alone", "another_relay_heals"])
def test_a_flush_between_two_looks_does_not_move_the_mark(
    shop: Shop, is_begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.send(5)
    shop.poll()
    shop.send(5)
    seen, mark = healing.look, ChannelState.objects.get(group="~relay:shop").floor

    def look_then_lose(wire: Wire, channel: str) -> Any:
        stream = seen(wire, channel)
        shop.client.flushall()
        if is_begun:
            shop.client.xadd(shop.stream, {"event": "new"})
            shop.client.xgroup_create(shop.stream, "~relay:shop", "0")
        return stream

    monkeypatch.setattr(healing.Healer, "_is_holed", lambda *_: False)
    monkeypatch.setattr(healing, "look", look_then_lose)
    shop.poll()
    monkeypatch.undo()
    assert ChannelState.objects.get(group="~relay:shop").floor == mark
    markers = [each["last-delivered-id"] for each in shop.client.xinfo_groups(shop.stream)] if is_begun else []
    assert markers == [b"0-0"] * is_begun
    assert shop.client.exists(shop.stream) == is_begun
    shop.finish("shop")


# ------------------------------------------------------------------ what a listener does with an entry sent again


def again(shop: Shop, data: str, settled: str) -> bytes:
    return shop.client.xadd(shop.stream, {"event": document(data), "settled": settled})  # type: ignore[return-value]


def test_a_listener_runs_nothing_for_what_its_group_had_settled_and_settles_it(shop: Shop) -> None:
    for data, settled in (("1", "shop"), ("2", "other shop more"), ("3", "shop2 ashop shop:search"), ("4", "")):
        again(shop, data, settled)
    shop.client.xadd(shop.stream, {"event": document("5")})
    seen: list[str] = []
    listener = Listener(StreamTransport(conf.LOCATION), [receiver(lambda event: seen.append(event.data), CHANNEL)])
    listener.connect()
    listener.run(drain=True)
    assert seen == ["3", "4", "5"]
    assert (listener.settled, listener.counts.total()) == (5, 3)
    (group,) = shop.client.xinfo_groups(shop.stream)
    assert (group["pending"], group["last-delivered-id"]) == (0, _last(shop))


def test_what_was_sent_again_may_have_run_before(shop: Shop) -> None:
    found = [
        delivery(CHANNEL, group, b"1-0", [b"event", b"x", b"settled", b"shop other"]) for group in ("shop", "", "o")
    ]
    assert [each.is_settled for each in found] == [True, False, False]
    assert all(each.is_repeated and each.is_document and each.body == b"x" for each in found)
    usual = delivery(CHANNEL, "shop", b"1-0", [b"event", b"x"])
    assert (usual.is_settled, usual.is_repeated) == (False, False)


@pytest.mark.parametrize("owner", ["gone", "own"])
def test_it_is_known_as_settled_on_every_way_in(shop: Shop, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "SILENCE", 0.0)
    again(shop, "1", "shop")
    transport = StreamTransport(conf.LOCATION)
    shop.client.xgroup_create(shop.stream, "shop", "0")
    shop.client.xreadgroup("shop", transport.consumer if owner == "own" else "gone", {shop.stream: ">"})
    transport.subscribe([Subscription(channel=CHANNEL, group="shop")])
    found = wait_for(lambda: transport.receive(limit=10, timeout=0.1))
    transport.close()
    assert [each.is_settled for each in found] == [True]
    assert not StreamTransport(conf.LOCATION).browse(CHANNEL)[0].is_settled


# ------------------------------------------------------------------ removed on purpose


@pytest.fixture
def capped(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": {CHANNEL: {"OUTBOX": True, "MAX_LENGTH": 10}}}


@pytest.mark.usefixtures("capped")
def test_what_max_length_removed_is_discarded_and_never_sent_again(shop: Shop) -> None:
    shop.send(25)
    shop.consume("shop", 4)
    shop.poll()
    wire = Wire(conf.LOCATION, timeout=2.0)
    heartbeat.beat(wire, heartbeat.card([receiver(print, CHANNEL)], version="test"))
    trimmer = Trimmer()
    for _ in range(2):
        trimmer.trim(wire, [CHANNEL])
    wire.close()
    shop.poll()
    discarded = OutboxEvent.objects.filter(discarded=True).order_by("pk")
    assert [bytes(row.body) for row in discarded] == shop.sent[4:15]
    shop.client.flushall()
    shop.poll()
    assert [fields[b"event"] for _, fields in shop.client.xrange(shop.stream)] == shop.sent[15:]


@pytest.mark.usefixtures("capped")
def test_healing_never_goes_above_the_cap_and_the_rest_follows_when_there_is_room(shop: Shop) -> None:
    shop.send(25)
    shop.open("shop")
    shop.poll()
    shop.client.flushall()
    shop.poll()
    assert shop.client.xlen(shop.stream) == 10
    for length in (10, 7):  # a trim leaves the last entry that was read
        shop.consume("shop")
        shop.poll()
        assert shop.client.xlen(shop.stream) == length
    shop.finish("shop")
    assert not shop.repeated("shop")


@pytest.mark.parametrize("command", ["xlen", "eval"])
def test_a_cap_whose_room_may_not_be_asked_for_ends_no_relay(
    shop: Shop, command: str, settings: Any, lines: pytest.LogCaptureFixture
) -> None:
    """It was a TypeError in the relay's thread, hence the end of the process, at every start."""
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": {CHANNEL: {"OUTBOX": True, "MAX_LENGTH": 10}}}
    shop.send(25)
    shop.open("shop")
    shop.poll()
    shop.client.flushall()
    shop.poll()
    shop.client.execute_command("ACL", "SETUSER", "default", f"-{command}")
    try:
        shop.poll()
        assert command == "eval" or "orders is not looked after: " in lines.text
    finally:
        shop.client.execute_command("ACL", "SETUSER", "default", "+@all")
    shop.consume("shop")
    shop.poll()
    assert shop.client.xlen(shop.stream) == 10


# ------------------------------------------------------------------ what is stored, and what is told


def test_floors_are_never_above_what_is_settled(shop: Shop) -> None:
    rows = shop.send(10)
    shop.consume("done")
    shop.consume("pending", 6, settles=False)
    shop.open("idle")
    shop.client.xack(shop.stream, "pending", *(f"{row.sent_ms}-{row.sent_seq}" for row in rows[:3] + rows[4:5]))
    shop.poll()
    shop.poll()
    stored = dict(ChannelState.objects.values_list("group", "floor"))
    ids = [f"{row.sent_ms}-{row.sent_seq}" for row in rows]
    assert stored["~relay:shop"] == stored["~floor:done"] == ids[9]
    assert stored["~floor:pending"] == floors.before(ids[3])
    assert floors.parse(stored["~floor:idle"]) < floors.parse(ids[0])
    assert set(stored) == {"~relay:shop", "~floor:done", "~floor:pending", "~floor:idle"}


def test_the_floor_of_a_group_that_was_removed_long_ago_is_forgotten(shop: Shop) -> None:
    shop.send(2)
    shop.consume("gone")
    shop.poll()
    shop.client.xgroup_destroy(shop.stream, "gone")
    shop.poll()
    assert ChannelState.objects.filter(group="~floor:gone").exists()
    ChannelState.objects.update(updated_at="2020-01-01T00:00:00Z")
    shop.poll()
    assert not ChannelState.objects.filter(group="~floor:gone").exists()


def test_a_restart_that_lost_nothing_is_not_told(shop: Shop, lines: pytest.LogCaptureFixture) -> None:
    shop.send(5)
    shop.poll()
    shop.server.kill()
    shop.server.start()
    shop.finish("shop")
    assert lines.records == []


def test_a_channel_the_server_refuses_is_told_once_and_the_others_go_on(
    shop: Shop, settings: Any, lines: pytest.LogCaptureFixture
) -> None:
    channels = {"a.first": {"OUTBOX": True}, CHANNEL: {"OUTBOX": True}}
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": channels}
    shop.client.set(conf.redis_name("a.first"), "in the way")
    shop.send(3)
    for _ in range(2):
        shop.poll()
    assert [record.getMessage().startswith("a.first is not looked after: ") for record in lines.records] == [True]
    shop.client.delete(conf.redis_name("a.first"), shop.stream)
    shop.finish("shop")


def test_a_second_database_has_a_marker_of_its_own(postgres_shop: Shop) -> None:
    shop = postgres_shop
    shop.send(5)
    shop.poll()
    assert [each["name"] for each in shop.client.xinfo_groups(shop.stream)] == [b"~relay:shop:postgres"]
    shop.client.flushall()
    shop.finish("shop")
    assert not shop.repeated("shop")


def test_channels_with_rows_in_the_retention_are_looked_after_without_an_entry_of_their_own(
    shop: Shop, settings: Any
) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": {"ord*": {"OUTBOX": True}}}
    shop.send(2)
    OutboxEvent.objects.create(
        channel="ancient", event_id="x", type="t", key="", body=b"x", created_at=now(), sent_ms=5, sent_seq=0
    )
    shop.poll()
    assert shop.healer._channels == [CHANNEL]


def test_a_retention_longer_than_there_are_dates_ends_no_relay(shop: Shop, settings: Any) -> None:
    forever = {"OUTBOX": True, "RETENTION": timedelta.max}
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": {CHANNEL: forever}}
    shop.send(3)
    shop.poll()
    shop.client.flushall()
    shop.finish("fast")


def test_channels_that_are_healed_at_once_share_the_time_the_relay_has_for_it(
    shop: Shop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each took a second of its own: with sixty of them the relay sent nothing for a minute."""
    monkeypatch.setattr(healing, "HEAL_FOR", 0.0)
    names = [f"channel-{number}" for number in range(3)]
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": {name: {"OUTBOX": True} for name in names}}
    facts = {"type": "t", "key": "", "body": b"{}", "created_at": now(), "sent_ms": int(time.time() * 1000)}
    OutboxEvent.objects.bulk_create(
        OutboxEvent(channel=name, event_id=str(number), sent_seq=number, **facts) for name in names for number in (1, 2)
    )
    healed: list[int] = []
    for _ in names:
        shop.poll()
        healed.append(sum(shop.client.xlen(conf.redis_name(name)) > 0 for name in names))
    assert healed == [1, 2, 3]
    shop.heal()
    assert [shop.client.xlen(conf.redis_name(name)) for name in names] == [2, 2, 2]


# ------------------------------------------------------------------ groups of others


@pytest.mark.parametrize("group", [b"a\xff", b"a\x00", b"a" * 500])
def test_a_group_of_any_name_is_looked_after_and_ends_no_relay(shop: Shop, postgres_shop: Shop, group: bytes) -> None:
    """Anybody may make one. It ended the relay, and with it the process, at every start; or no floor was stored."""
    for own in (shop, postgres_shop):
        own.send(3)
        own.consume("fast")
        own.client.xgroup_create(own.stream, group, "0", mkstream=True)
        own.poll()
        states = ChannelState.objects.using(own.using).filter(group__startswith=healing.FLOOR)
        assert set(states.values_list("floor", flat=True)) == {"0-0", f"{rows_sent(own)}"}
        own.record("fast")
        assert ChannelState.objects.filter(group="fast").exists()
        own.client.flushall()
        own.finish("fast")
        assert {each["name"] for each in own.client.xinfo_groups(own.stream)} == {b"fast", own.healer.marker.encode()}
        own.client.flushall()


def rows_sent(shop: Shop) -> str:
    ms, seq = (
        OutboxEvent.objects.using(shop.using).order_by("-sent_ms", "-sent_seq").values_list("sent_ms", "sent_seq")[0]
    )
    return f"{ms}-{seq}"
