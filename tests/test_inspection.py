"""What a look at the server and the tables finds, and what acts do: on a real server, with real listeners' keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
import redis
from django.db import connection
from django.test.utils import CaptureQueriesContext

from redis_events import Reject, Retry, inbox, inspection, publish, receives
from redis_events.events import now
from redis_events.exceptions import ActError, Refused, Unreachable
from redis_events.heartbeat import Announced, beat, card, own_id
from redis_events.inspection import Server
from redis_events.inspection.feeding import LISTENS
from redis_events.listening import Listener
from redis_events.models import HeldDelivery, OutboxEvent
from redis_events.registry import all_receivers
from redis_events.transports.client import Wire
from redis_events.transports.stream import StreamTransport
from tests.servers import Server as OwnServer
from tests.servers import free_port, wait_for

pytestmark = pytest.mark.usefixtures("declared", "real_transactions")


@pytest.fixture
def streams(settings: Any, events_settings: dict[str, Any]) -> dict[str, Any]:
    """`shop.*` are streams of the service `shop`."""
    settings.REDIS_EVENTS = {**events_settings, "SERVICE": "shop", "CHANNELS": {"shop.*": {"TRANSPORT": "stream"}}}
    return settings.REDIS_EVENTS


@pytest.fixture
def client(server: OwnServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def narrow(client: Any, streams: dict[str, Any]) -> Iterator[Callable[[str], str]]:
    """Makes a user who lacks one right; where to connect as him."""

    def make(right: str) -> str:
        every = {"keys": ["*"], "channels": ["*"], "commands": ["+@all", right]}
        client.acl_setuser("narrow", enabled=True, passwords=["+p"], **every)
        return str(streams["LOCATION"].replace("redis://", "redis://narrow:p@"))

    yield make
    client.acl_deluser("narrow")


def order(number: int, **data: Any) -> Any:
    return publish("shop.orders", {"number": number, **data}, type="shop.order.paid", key=number, strict=True)


def listen(*, until: int = 1) -> Listener:
    """A listener of this process that has settled so many deliveries, and has gone."""
    transport = StreamTransport(_location())
    listener = Listener(transport, all_receivers())
    listener.connect()
    while listener.settled < until:
        found = transport.receive(limit=100, timeout=5.0)
        assert found, f"only {listener.settled} of {until} came"
        listener.process(found)
    transport.receive(limit=1, timeout=0)  # takes the last acknowledgement along
    transport.close()
    return listener


def _location() -> str:
    from redis_events.conf import conf

    return conf.LOCATION


# ------------------------------------------------------------------ groups and channels


def test_a_group_behind_says_how_far_and_since_when(streams: Any) -> None:
    receives("shop.orders")(lambda event: None)
    order(1)
    listen()
    began = now()
    for number in range(3):
        order(number)
    (group,) = inspection.groups()
    assert (group.channel, group.name, group.service) == ("shop.orders", "shop", "shop")
    assert (group.lag, group.is_behind, group.pending, group.is_served) == (3, True, 0, False)
    assert abs((group.behind_since - began).total_seconds()) < 2
    listen(until=3)
    (group,) = inspection.groups()
    assert (group.lag, group.is_behind, group.behind_since) == (0, False, None)


def test_the_group_longest_behind_comes_first_and_ours_are_hidden(streams: Any, client: Any, prefix: str) -> None:
    for name in ("shop.a", "shop.b"):
        publish(name, 1, type="shop.thing.done", strict=True)
        wait_for(lambda: time.time_ns() % 2_000_000 > 1_000_000, what="another millisecond")
    for group, name, start in (("x", "shop.b", "0"), ("y", "shop.a", "0"), ("z", "shop.a", "$"), ("~m", "shop.a", "0")):
        client.xgroup_create(f"{prefix}:{name}", group, start)
    assert [(each.channel, each.name) for each in inspection.groups()] == [
        ("shop.a", "y"),
        ("shop.b", "x"),
        ("shop.a", "z"),
    ]


def test_pending_entries_say_who_has_them_and_whether_he_is_alive(streams: Any, client: Any, prefix: str) -> None:
    order(1), order(2)
    key = f"{prefix}:shop.orders"
    client.xgroup_create(key, "shop", "0")
    client.xreadgroup("shop", "ghost", {key: ">"}, count=1)
    receives("shop.orders")(lambda event: None)
    with _beating():
        client.xreadgroup("shop", own_id(), {key: ">"}, count=1)
        first, second = inspection.pending("shop.orders", "shop")
        assert (first.consumer, first.is_alive, first.deliveries) == ("ghost", False, 1)
        assert (second.consumer, second.is_alive) == (own_id(), True)
        (rest,) = inspection.pending("shop.orders", "shop", after=first.entry_id)
        assert rest.entry_id == second.entry_id
        (group,) = inspection.groups()
        assert (group.pending, group.consumers, group.is_served) == (2, 2, True)
        assert {each.name: each.pending for each in inspection.consumers("shop.orders", "shop")} == {
            "ghost": 1,
            own_id(): 1,
        }


class _beating:
    """A heartbeat with this process's receivers, as a listener would have."""

    def __enter__(self) -> None:
        self.wire = Wire(_location(), timeout=1.0)
        beat(self.wire, card(all_receivers(), version="1"))

    def __exit__(self, *_: object) -> None:
        from redis_events.heartbeat import retire

        retire(self.wire, card(all_receivers(), version="1"))
        self.wire.close()


def test_a_channel_says_what_carries_it_and_who_takes_part(streams: Any) -> None:
    receives("shop.orders")(lambda event: None)
    receives("live.*")(lambda event: None)
    order(1)
    listen()
    by_name = {each.name: each for each in inspection.channels()}
    assert by_name.keys() == {"shop.orders", "shop.*", "live.*"}
    orders, live = by_name["shop.orders"], by_name["live.*"]
    assert (orders.transport, orders.length, orders.groups, orders.lag) == ("stream", 1, 1, 0)
    assert orders.announced_by == ("shop",)
    assert len(orders.receivers) == 1
    assert (live.transport, live.length, live.groups, live.is_pattern) == ("pubsub", None, None, True)
    assert inspection.channel("shop.orders") == orders
    assert inspection.channel("nobody") is None


def test_what_the_server_says_of_a_stream_has_no_bodies(streams: Any) -> None:
    order(1, secret="hidden")
    raw = inspection.channel_raw("shop.orders")
    assert raw is not None
    assert raw["length"] == 1
    assert raw["first-entry"] == raw["last-generated-id"]
    assert "hidden" not in json.dumps(raw, default=str)


def test_a_key_of_another_kind_is_that_channels_problem_alone(streams: Any, client: Any, prefix: str) -> None:
    order(1)
    receives("shop.broken")(lambda event: None)
    client.set(f"{prefix}:shop.broken", "a string")
    by_name = {each.name: each for each in inspection.channels()}
    assert "WRONGTYPE" in (by_name["shop.broken"].problem or "")
    assert by_name["shop.broken"].length is None
    assert by_name["shop.orders"].length == 1


# ------------------------------------------------------------------ listeners and receivers


def test_a_receiver_is_known_from_the_code_and_from_listeners(streams: Any) -> None:
    @receives("shop.orders", once=True, retry=Retry(attempts=3))
    def invoice(event: Any) -> None: ...

    (before,) = inspection.receivers()
    assert (before.is_here, before.listeners, before.once) == (True, 0, True)
    assert before.retry == "3 runs, at most 1–600 s apart"
    assert before.place
    assert "test_inspection.py:" in before.place
    with _beating():
        (after,) = inspection.receivers()
        (listener,) = inspection.listeners()
        assert after.listeners == 1
        assert (listener.id, listener.is_alive, listener.service) == (own_id(), True, "shop")
        assert listener.receivers == (after.name,)


def test_a_listener_without_a_heartbeat_is_listed_as_gone(streams: Any, client: Any, prefix: str) -> None:
    client.zadd(f"{prefix}:redis-events:listeners", {"host:123:abc": int(time.time()) - 60})
    (gone,) = inspection.listeners()
    assert (gone.is_alive, gone.host, gone.pid, gone.service) == (False, "host", 123, None)
    assert 55 < (now() - gone.last_beat).total_seconds() < 70


def test_drift_names_what_only_one_side_knows(streams: Any) -> None:
    receives("shop.orders", name="here")(lambda event: None)
    order(1)
    listen()
    order(2)
    row = _dead_letter("nobody", state="waiting")
    kinds = {(each.kind, each.name) for each in inspection.drift()}
    assert kinds == {("receiver-unserved", "here"), ("group-unserved", "shop"), ("rows-unknown", "nobody")}
    row.delete()


# ------------------------------------------------------------------ events


def test_what_is_parked_for_a_receiver_that_nobody_has_is_told(streams: Any) -> None:
    _dead_letter("renamed.since", state="parked")
    assert [(each.kind, each.name) for each in inspection.drift()] == [("rows-unknown", "renamed.since")]


def test_what_anybody_may_write_in_redis_keeps_no_page_from_being_there(streams: Any, client: Any, prefix: str) -> None:
    receives("shop.orders", name="here")(lambda event: None)
    ours, hour = f"{prefix}:redis-events", int(time.time() // 3600)
    theirs = msgspec.structs.replace(card((), version="1"), id="theirs", started=1e300)
    client.zadd(f"{ours}:listeners", {"theirs": "inf", "nobody": "-inf"})
    client.set(f"{ours}:listeners:theirs", msgspec.json.encode(theirs))
    client.hset(f"{ours}:paused", "shop here", '{"by": "ann", "at": 1e300}')
    client.hset(f"{ours}:stats:hour:{hour}", mapping={"ms999999 shop here": 1, "last shop here": 10**18})
    assert {each.id for each in inspection.listeners()} == {"theirs", "nobody"}
    (receiver,) = inspection.receivers()
    assert (receiver.is_paused, receiver.p50) == (True, None)


@pytest.mark.parametrize("hours", [-12, 12])
def test_the_first_and_the_last_moment_there_is_can_be_asked_for(streams: Any, hours: int) -> None:
    order(1)
    zone = timezone(timedelta(hours=hours))
    first, last = datetime.min.replace(tzinfo=zone), datetime.max.replace(tzinfo=zone)
    assert len(inspection.events(since=first, until=last).events) == 1
    assert not inspection.events(since=last).events
    assert not inspection.events(until=first).events


def test_events_are_found_by_what_is_in_them(streams: Any) -> None:
    for number in range(30):
        order(number, name="Ünïcode" if number == 4 else "Plain")
    event = publish("shop.orders", {"number": 99}, type="shop.order.refunded", key="r", strict=True)
    assert [each.key for each in inspection.events(text='"number":7').events] == ["7"]
    assert [each.key for each in inspection.events(text="ÜnïCODE").events] == ["4"]
    assert len(inspection.events(text="plain").events) == 29
    assert [each.key for each in inspection.events(type="*.refunded").events] == ["r"]
    assert [each.key for each in inspection.events(key="12").events] == ["12"]
    assert [each.key for each in inspection.events(id=event.id).events] == ["r"]
    assert inspection.events("other.*").events == []


def test_pages_of_several_streams_are_one_log_newest_first(streams: Any) -> None:
    for number in range(60):
        publish(f"shop.{'abc'[number % 3]}", number, type="shop.thing.done", strict=True)
    seen: list[int] = []
    before = ""
    while page := inspection.events(before=before, limit=7):
        seen += [each.data for each in page.events]
        before = page.next
        if not before:
            break
    assert sorted(seen, reverse=True) == list(range(59, -1, -1))
    assert len(seen) == 60
    moments = [each.moment for each in inspection.events(limit=60).events]
    assert moments == sorted(moments, reverse=True)


def test_a_search_says_how_far_back_it_looked_and_goes_on_there(streams: Any) -> None:
    for number in range(500):
        order(number)
    page = inspection.events(text='"number":3}', scan=200)
    assert (page.events, page.scanned, bool(page.next)) == ([], 200, True)
    rest = inspection.events(text='"number":3}', before=page.next)
    assert ([each.key for each in rest.events], rest.scanned, rest.next) == (["3"], 300, "")


def test_a_search_of_ten_thousand_entries_in_a_busy_stream_among_idle_ones_is_few_round_trips(
    streams: Any, client: Any, prefix: str
) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(12_000):
        pipeline.xadd(f"{prefix}:shop.orders", {"event": f'{{"n": {number}}}'})
    pipeline.execute()
    for number in range(20):
        publish(f"shop.idle{number}", 1, type="shop.thing.done", strict=True)
    order(1)
    with Server(patience=5) as server:
        page = inspection.events(text="not there", server=server)
        assert (page.scanned, page.events) == (10_000, [])
        assert server.round_trips <= 12


def test_a_search_through_fifty_equally_busy_streams_is_few_round_trips(streams: Any, client: Any, prefix: str) -> None:
    for number in range(50):
        publish(f"shop.c{number}", 1, type="shop.thing.done", strict=True)
    pipeline = client.pipeline(transaction=False)
    for number in range(10_000):
        pipeline.xadd(f"{prefix}:shop.c{number % 50}", {"event": f'{{"n": {number}}}'})
    pipeline.execute()
    with Server(patience=5) as server:
        assert len(inspection.events(server=server).events) == 50
        assert server.round_trips <= 6
        page = inspection.events(text="not there", server=server)
        assert page.scanned == 10_000
        assert server.round_trips <= 20
    with Server(patience=5) as server:
        assert [each.raw for each in inspection.events(text='"n": 77}', server=server).events] == [b'{"n": 77}']


def test_what_is_no_event_is_shown_with_its_problem(streams: Any, client: Any, prefix: str) -> None:
    client.xadd(f"{prefix}:shop.orders", {"event": b"\xff\xfe"})
    client.xadd(f"{prefix}:shop.orders", {"data": "Hello"})
    hello, broken = inspection.events("shop.orders").events
    assert (hello.data, hello.problem, hello.type) == ("Hello", "", "")
    assert (broken.data, broken.raw) == (None, b"\xff\xfe")
    assert "not UTF-8" in broken.problem


def test_one_event_is_found_by_its_place_and_junk_is_nothing(streams: Any) -> None:
    order(7)
    (event,) = inspection.events().events
    assert inspection.event("shop.orders", event.entry_id) == event
    assert inspection.event("shop.orders", "1-1") is None
    assert inspection.event("shop.orders", "- +") is None
    for junk in ("junk", f"{2**64}-0 shop.orders"):
        assert inspection.events(before=junk).events


def test_a_trace_tells_of_groups_rows_and_the_inbox(streams: Any, client: Any, prefix: str) -> None:
    @receives("shop.orders", once=True, name="invoice")
    def invoice(event: Any) -> None: ...

    @receives("shop.orders", name="refuse")
    def refuse(event: Any) -> None:
        raise Reject("not today")

    event = order(7)
    listen()
    client.xgroup_create(f"{prefix}:shop.orders", "later", "0")
    client.xgroup_create(f"{prefix}:shop.orders", "stuck", "0")
    client.xreadgroup("stuck", "ghost", {f"{prefix}:shop.orders": ">"})
    (found,) = inspection.events(id=event.id).events
    steps = {(step.place, step.who, step.state) for step in inspection.trace(found)}
    assert steps == {
        ("stream", "shop.orders", "present"),
        ("group", "shop", "settled"),
        ("group", "later", "waiting"),
        ("group", "stuck", "pending"),
        ("held", "refuse", "dead"),
        ("inbox", "invoice", "done"),
    }


def test_a_trace_tells_of_no_other_services_rows(streams: Any) -> None:
    event = order(7)
    for number, group in enumerate(("shop", "shop:search", "billing", "Shop:search")):
        row = _dead_letter(f"r{number}")
        HeldDelivery.objects.filter(pk=row.pk).update(group=group, source=event.source, event_id=event.id)
    (found,) = inspection.events(id=event.id).events
    held = [step.who for step in inspection.trace(found) if step.place == "held"]
    assert held == ["r0", "r1"]


# ------------------------------------------------------------------ the live feed


def cursor_now(pattern: str) -> str:
    """Where the feed begins: on a busy machine the server may be too slow for a first look."""
    return wait_for(lambda: inspection.feed(pattern).cursor, what="a cursor")


def test_a_feed_leaves_nothing_out_and_shows_nothing_twice(streams: Any) -> None:
    cursor = cursor_now("shop.*")
    done = threading.Event()

    def publish_some() -> None:
        for number in range(300):
            publish(f"shop.{'ab'[number % 2]}", number, type="shop.thing.done", strict=True)
        done.set()

    thread = threading.Thread(target=publish_some)
    thread.start()
    seen: list[int] = []

    def all_seen() -> bool:
        nonlocal cursor
        found = inspection.feed("shop.*", after=cursor)
        assert not found.skipped
        seen.extend(each.data for each in found.events)
        cursor = found.cursor
        return done.is_set() and len(seen) >= 300

    wait_for(all_seen, what="300 events")
    thread.join()
    assert sorted(seen) == list(range(300))  # of one millisecond, two streams have no order


def test_of_two_that_write_down_what_is_heard_one_gives_way(streams: Any, client: Any, prefix: str) -> None:
    writer, before = f"{prefix}:redis-events:recent:writer", set(threading.enumerate())
    inspection.feed()
    (ours,) = set(threading.enumerate()) - before
    client.set(writer, "another", ex=60)  # ours was frozen for longer than its turn lasts
    wait_for(lambda: not ours.is_alive(), what="the end of ours", timeout=5)
    assert client.get(writer) == b"another"


def test_at_a_cursor_from_the_future_nothing_is_said_to_be_left_out(streams: Any, client: Any, prefix: str) -> None:
    client.set(f"{prefix}:redis-events:recent:writer", "1")  # another process hears pub/sub
    order(1)
    feed = inspection.feed(after="9" * 15)
    assert (feed.events, feed.skipped) == ((), False)
    assert int(feed.cursor) < time.time() * 1000 + 60_000


def test_a_stream_that_begins_while_a_look_is_taken_is_whole_in_the_next(streams: Any) -> None:
    order(1)
    cursor = cursor_now("shop.*")
    with Server(patience=5) as server:
        inspection.services(server=server)  # by now it is asked which streams there are
        publish("shop.fresh", "first", type="shop.thing.done", strict=True)
        moment = time.time_ns()
        wait_for(lambda: time.time_ns() - moment > 5_000_000, what="its millisecond to be over")
        early = inspection.feed("shop.*", after=cursor, server=server)
    late = inspection.feed("shop.*", after=early.cursor)
    assert [each.data for each in (*early.events, *late.events) if each.channel == "shop.fresh"] == ["first"]


def test_more_than_one_look_can_take_comes_with_the_next(streams: Any, client: Any, prefix: str) -> None:
    cursor = cursor_now("shop.*")
    for _ in range(5):
        pipeline = client.pipeline(transaction=False)
        for number in range(100):
            pipeline.xadd(f"{prefix}:shop.orders", {"data": number})
        pipeline.execute()
    seen: list[str] = []

    def all_seen() -> bool:
        nonlocal cursor
        found = inspection.feed("shop.orders", after=cursor)
        seen.extend(each.entry_id for each in found.events)
        cursor = found.cursor
        return len(seen) >= 500

    order(1)
    wait_for(all_seen, what="500 entries")
    assert len(set(seen)) == len(seen)


def test_what_is_heard_on_pubsub_is_in_the_feed_of_every_process(streams: Any, client: Any, prefix: str) -> None:
    inspection.feed("live.*")
    wait_for(lambda: client.pubsub_numpat(), what="somebody who listens")
    cursor = cursor_now("live.*")
    publish("live.toasts", {"text": "hi"}, type="live.toast.shown", strict=True)
    publish("other", "not wanted", strict=True)
    wait_for(lambda: client.xlen(f"{prefix}:redis-events:recent") == 2, what="both to be written down")
    seen: list[Any] = []

    def is_seen() -> bool:
        seen.extend(inspection.feed("live.*", after=cursor).events)
        return bool(seen)

    wait_for(is_seen, what="the toast")
    assert [(each.channel, each.data, each.entry_id) for each in seen[:1]] == [("live.toasts", {"text": "hi"}, "")]
    assert 0 < client.ttl(f"{prefix}:redis-events:recent") <= LISTENS
    client.delete(f"{prefix}:redis-events:recent:wanted")  # nobody watches any more
    wait_for(lambda: not client.exists(f"{prefix}:redis-events:recent:writer"), timeout=10, what="the end of listening")


# ------------------------------------------------------------------ acts


def test_what_is_claimed_from_a_consumer_is_run_by_a_living_listener(streams: Any, client: Any, prefix: str) -> None:
    seen: list[str] = []
    receives("shop.orders")(lambda event: seen.append(event.key))
    key = f"{prefix}:shop.orders"
    for number in range(3):
        order(number)
    client.xgroup_create(key, "shop", "0")
    client.xreadgroup("shop", "hung", {key: ">"})
    first = inspection.pending("shop.orders", "shop")[0]
    assert inspection.claim("shop.orders", "shop", ids=[first.entry_id, "1-1"]).done == 1
    done = inspection.claim("shop.orders", "shop", consumer="hung")
    assert (done.done, done.left) == (2, {})
    assert {each.consumer for each in inspection.pending("shop.orders", "shop")} == {f"claimed:{own_id()}"}
    assert {each.deliveries for each in inspection.pending("shop.orders", "shop")} == {1}
    transport = StreamTransport(_location())
    listener = Listener(transport, all_receivers())
    listener.connect()
    wait_for(
        lambda: listener.process(transport.receive(limit=100, timeout=0.1)) or len(seen) == 3, what="3 runs", timeout=15
    )
    transport.close()
    assert sorted(seen) == ["0", "1", "2"]


def test_what_is_claimed_from_the_one_who_gets_it_comes_to_an_end(streams: Any, client: Any, prefix: str) -> None:
    order(1)
    client.xgroup_create(f"{prefix}:shop.orders", "shop", "0")
    heir = f"claimed:{own_id()}"
    client.xreadgroup("shop", heir, {f"{prefix}:shop.orders": ">"})
    claiming = threading.Thread(target=inspection.claim, args=["shop.orders", "shop"], kwargs={"consumer": heir})
    claiming.daemon = True
    claiming.start()
    claiming.join(5)
    assert not claiming.is_alive()


def test_what_is_skipped_leaves_a_dead_letter_for_each_receiver_that_says_who(
    streams: Any, client: Any, prefix: str
) -> None:
    receives("shop.orders", name="one")(lambda event: None)
    receives("shop.orders", name="two", types="other.*")(lambda event: None)
    key = f"{prefix}:shop.orders"
    order(1), order(2)
    client.xgroup_create(key, "shop", "0")
    client.xreadgroup("shop", "hung", {key: ">"})
    first, second = inspection.pending("shop.orders", "shop")
    assert inspection.skip("shop.orders", "shop", [first.entry_id, "1-1"], who="ann").done == 1
    assert [each.entry_id for each in inspection.pending("shop.orders", "shop")] == [second.entry_id]
    (row,) = inspection.held_deliveries(state="dead")
    assert (row.receiver, row.reason, row.key, row.entry_id) == ("one", "skipped by ann", "1", first.entry_id)


def test_what_only_another_release_would_have_run_is_not_lost_by_skipping(
    streams: Any, client: Any, prefix: str
) -> None:
    receives("shop.orders", name="one")(lambda event: None)
    order(1)
    client.xgroup_create(f"{prefix}:shop.orders", "shop", "0")
    client.xreadgroup("shop", "hung", {f"{prefix}:shop.orders": ">"})
    (entry,) = inspection.pending("shop.orders", "shop")
    newer = Announced(name="newer", channel="shop.*", types=None, group="")
    theirs = msgspec.structs.replace(card((), version="2"), id="other:1:x", receivers=(newer,))
    wire = Wire(_location(), timeout=1.0)
    beat(wire, theirs)
    assert inspection.skip("shop.orders", "shop", [entry.entry_id], who="ann").done == 1
    wire.close()
    assert sorted(each.receiver for each in inspection.held_deliveries(state="dead")) == ["newer", "one"]


def test_what_had_its_effect_before_leaves_no_dead_letter_when_it_is_skipped(
    streams: Any, client: Any, prefix: str
) -> None:
    receives("shop.orders", name="done", once=True)(lambda event: None)
    receives("shop.orders", name="open")(lambda event: None)
    event = order(1)
    client.xgroup_create(f"{prefix}:shop.orders", "shop", "0")
    client.xreadgroup("shop", "died.before.xack", {f"{prefix}:shop.orders": ">"})
    (entry,) = inspection.pending("shop.orders", "shop")
    inbox.insert([inbox.digest("shop", event.id, "shop", "done")], using="default")
    assert inspection.skip("shop.orders", "shop", [entry.entry_id], who="ann").done == 1
    assert [each.receiver for each in inspection.held_deliveries(state="dead")] == ["open"]


def test_what_cannot_be_read_is_not_settled_by_skipping(
    settings: Any, streams: Any, client: Any, prefix: str, narrow: Callable[[str], str]
) -> None:
    order(1)
    client.xgroup_create(f"{prefix}:shop.orders", "shop", "0")
    client.xreadgroup("shop", "hung", {f"{prefix}:shop.orders": ">"})
    (entry,) = inspection.pending("shop.orders", "shop")
    settings.REDIS_EVENTS = {**streams, "LOCATION": narrow("-xrange")}
    with pytest.raises(Refused):
        inspection.skip("shop.orders", "shop", [entry.entry_id], who="ann")
    settings.REDIS_EVENTS = streams
    assert len(inspection.pending("shop.orders", "shop")) == 1


def test_another_services_entries_are_not_skipped_here(streams: Any) -> None:
    with pytest.raises(ActError, match="another service"):
        inspection.skip("shop.orders", "billing", ["1-1"], who="ann")
    with pytest.raises(ActError, match="no entry id"):
        inspection.skip("shop.orders", "shop", ["; FLUSHALL"], who="ann")


def test_a_consumer_with_something_pending_is_not_removed(streams: Any, client: Any, prefix: str) -> None:
    key = f"{prefix}:shop.orders"
    order(1)
    client.xgroup_create(key, "shop", "0")
    client.xreadgroup("shop", "hung", {key: ">"})
    with pytest.raises(ActError, match="claim them first"):
        inspection.remove_consumer("shop.orders", "shop", "hung")
    client.xack(key, "shop", inspection.pending("shop.orders", "shop")[0].entry_id)
    inspection.remove_consumer("shop.orders", "shop", "hung")
    assert inspection.consumers("shop.orders", "shop") == []


def test_a_group_is_moved_to_where_it_is_told(streams: Any, client: Any, prefix: str) -> None:
    order(1)
    client.xgroup_create(f"{prefix}:shop.orders", "shop", "0")
    assert inspection.groups()[0].lag == 1
    inspection.move_group("shop.orders", "shop", "$")
    assert inspection.groups()[0].lag == 0
    for nowhere in ("nowhere", f"{2**64}-0", f"1-{2**64}"):
        with pytest.raises(ActError, match="no entry id"):
            inspection.move_group("shop.orders", "shop", nowhere)


def _dead_letter(receiver: str, *, state: str = "dead", fingerprint: str = "f1", **fields: Any) -> HeldDelivery:
    number = HeldDelivery.objects.count()
    return HeldDelivery.objects.create(
        source="shop",
        event_id=f"e{number}",
        group="shop",
        receiver=receiver,
        channel="shop.orders",
        type="shop.order.paid",
        key=str(number),
        entry_id=f"{number + 1}-0",
        state=state,
        attempt=3,
        due=now() if state == "waiting" else None,
        raw=b"{}",
        reason="boom",
        exception="ValueError",
        traceback="",
        fingerprint=fingerprint,
        created_at=now() - timedelta(hours=1),
        updated_at=now(),
        **fields,
    )


def test_dead_letters_are_grouped_by_their_error_and_replayed_by_it(streams: Any) -> None:
    receives("shop.orders", name="here")(lambda event: None)
    for fingerprint in ("f1", "f1", "f2"):
        _dead_letter("here", fingerprint=fingerprint)
    _dead_letter("here", state="waiting")
    groups = inspection.errors()
    assert {(each.fingerprint, each.count, each.reason) for each in groups} == {("f1", 2, "boom"), ("f2", 1, "boom")}
    assert inspection.dead_count() == 3
    assert inspection.count_dead(fingerprint="f1") == 2
    early = _dead_letter("here", state="waiting", fingerprint="f1")
    until = now()
    HeldDelivery.objects.filter(pk=early.pk).update(state="dead", updated_at=now())
    late = _dead_letter("here", fingerprint="f1")  # after somebody looked and confirmed
    assert inspection.replay(fingerprint="f1", until=until).done == 2
    assert {row.pk for row in inspection.held_deliveries(fingerprint="f1", state="dead")} == {early.pk, late.pk}
    assert inspection.discard(fingerprint="f1").done == 2
    assert inspection.dead_count() == 1
    with pytest.raises(ActError):
        inspection.discard()


def test_rows_of_another_service_are_neither_shown_nor_touched(streams: Any) -> None:
    _dead_letter("theirs")
    HeldDelivery.objects.update(group="billing")
    assert (inspection.errors(), inspection.dead_count(), inspection.held_deliveries()) == ([], 0, [])
    assert inspection.discard(receiver="theirs").done == 0
    receives("shop.orders", name="theirs")(lambda event: None)  # an app that both services have
    assert inspection.replay(receiver="theirs").done == inspection.replay(fingerprint="f1").done == 0


def test_a_pause_is_seen_with_who_and_when(streams: Any) -> None:
    receives("shop.orders", name="here")(lambda event: None)
    inspection.pause("here", who="ann")
    (paused,) = inspection.receivers()
    assert (paused.is_paused, paused.paused_by) == (True, "ann")
    assert inspection.resume("here")
    assert not inspection.resume("here")
    assert not inspection.receivers()[0].is_paused


def test_a_listener_that_is_asked_to_stop_is_seen_stopping(streams: Any) -> None:
    with _beating():
        inspection.stop_listener(own_id(), who="ann")
        assert inspection.listeners()[0].is_stopping


def test_the_outbox_says_what_has_not_left(streams: Any) -> None:
    for number in range(3):
        OutboxEvent.objects.create(
            channel="shop.orders", event_id=str(number), type="t", key="", body=b"{}", created_at=now()
        )
    found = {each.using: each.unsent for each in inspection.outboxes()}
    assert found["default"] == 3


# ------------------------------------------------------------------ budgets, and a server in trouble


def test_the_overview_is_a_dozen_round_trips_and_fifteen_queries(streams: Any) -> None:
    for number in range(50):
        publish(f"shop.c{number}", 1, type="shop.thing.done", strict=True)
    with Server(patience=5) as server, CaptureQueriesContext(connection) as queries:
        overview = inspection.overview(server=server)
    assert overview.server.name
    assert len(overview.channels) == 51
    assert len(overview.events) == 10
    assert server.round_trips <= 12
    assert len(queries) <= 15


def test_a_server_that_is_not_there_makes_everything_unknown_at_once(settings: Any, streams: Any) -> None:
    settings.REDIS_EVENTS = {**streams, "LOCATION": "redis://:secret@127.0.0.1:1/0"}
    receives("shop.orders")(lambda event: None)
    began = time.monotonic()
    overview = inspection.overview()
    assert time.monotonic() - began < 1.0
    assert overview.trouble is not None
    assert overview.trouble.kind == "refused"
    assert "secret" not in overview.trouble.message
    assert overview.server.name is None
    assert overview.listeners_alive is None
    assert [each.lag for each in overview.channels] == [None, None]
    assert inspection.receivers()[0].listeners is None
    with pytest.raises(Unreachable):
        inspection.pause("here", who="ann")


def test_a_frozen_server_costs_a_page_less_than_a_second_and_the_next_one_nothing(settings: Any, streams: Any) -> None:
    with OwnServer() as frozen:
        settings.REDIS_EVENTS = {**streams, "LOCATION": frozen.url}
        inspection.groups()
        frozen.freeze()
        try:
            began = time.monotonic()
            with Server() as server:
                inspection.groups(server=server)
                inspection.listeners(server=server)
                trouble = server.trouble
            assert time.monotonic() - began < 1.1
            assert trouble is not None
            assert trouble.kind == "silent"
            began = time.monotonic()
            with Server() as server:
                assert server.trouble is not None
                assert server.trouble.since == trouble.since
            assert time.monotonic() - began < 0.1
        finally:
            frozen.thaw()
        wait_for(lambda: not Server().trouble and Server().ask(("PING",)) == [b"PONG"], what="the server to be back")


def test_a_user_who_may_not_ask_is_told_and_the_rest_goes_on(
    settings: Any, streams: Any, narrow: Callable[[str], str]
) -> None:
    order(1)
    settings.REDIS_EVENTS = {**streams, "LOCATION": narrow("-xinfo")}
    with Server() as server:
        (channel,) = [each for each in inspection.channels(server=server) if each.name == "shop.orders"]
        assert channel.length is None
        assert server.trouble is None
        assert any("XINFO" in command for command in server.refusals)
        assert inspection.events(server=server).events


def test_a_wrong_password_is_told_as_such(settings: Any, streams: Any) -> None:
    settings.REDIS_EVENTS = {**streams, "LOCATION": streams["LOCATION"].replace("redis://", "redis://nobody:wrong@")}
    with Server() as server:
        assert inspection.groups(server=server) == []
        assert server.trouble is not None
        assert server.trouble.kind == "password"
        assert "wrong@" not in server.trouble.message


@pytest.mark.parametrize(
    ("wrong", "kind", "told"),
    [
        ("redis://no.such.host.invalid:6379/0", "host", "correct the host in LOCATION"),
        ("redis://127.0.0.1:{port}/99", "database", "choose a lower number in LOCATION"),
        ("redis://nobody:wrong@127.0.0.1:{port}/0", "password", "Correct the user and password in LOCATION"),
    ],
)
def test_what_is_wrong_with_the_location_is_told_as_such(
    settings: Any, streams: Any, server: OwnServer, wrong: str, kind: str, told: str
) -> None:
    settings.REDIS_EVENTS = {**streams, "LOCATION": wrong.format(port=server.port)}
    with Server(patience=5.0) as look:
        look.ask(("PING",))
    assert look.trouble
    assert (look.trouble.kind, told in look.trouble.advice) == (kind, True)
    assert not look.trouble.message.endswith(".")


def test_advice_names_the_place_the_location_is_from(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    settings.REDIS_EVENTS = {"SERVICE": "shop"}
    with Server() as look:
        look.ask(("PING",))
    assert look.trouble
    assert "correct REDIS_URL" in look.trouble.advice


def test_settings_come_with_their_origin_and_without_the_password(settings: Any, streams: Any) -> None:
    settings.REDIS_EVENTS = {**streams, "LOCATION": "redis://u:secret@localhost/0"}
    found = {each.name: each for each in inspection.effective_settings()}
    assert (found["LOCATION"].value, found["LOCATION"].origin) == ("redis://u:***@localhost/0", "settings")
    assert found["BATCH"].origin == "default"
    settings.REDIS_EVENTS = {"PREFX": "x"}
    assert {each.value for each in inspection.effective_settings()} == {""}
