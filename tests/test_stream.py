"""Streams on a real server: the contract, and what crashes, refusals and losses leave behind."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import redis

from redis_events import heartbeat
from redis_events.conf import conf
from redis_events.exceptions import TransportError, Unreachable
from redis_events.models import ChannelState
from redis_events.testing import TransportContract
from redis_events.transports import claims, keeper, roads, stream
from redis_events.transports import pending as pending_entries
from redis_events.transports.base import Delivery, Outgoing, Subscription, Transport
from redis_events.transports.client import Wire
from redis_events.transports.stream import StreamTransport
from tests.processes import open_descriptors
from tests.proxy import Proxy
from tests.servers import Server, wait_for

STREAMS = {"*": {"TRANSPORT": "stream"}}

pytestmark = pytest.mark.usefixtures("real_transactions")


@pytest.fixture(autouse=True)
def _settings(settings: Any, events_settings: dict[str, Any]) -> None:
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": STREAMS, "POLL": 0.05, "RECONNECT_MAX": 0.2}


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server these tests may flush, fill and restart."""
    with Server(aof=True) as server:
        yield server


@pytest.fixture
def flushable(own_server: Server, settings: Any) -> Server:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": own_server.url}
    return own_server


class TestStream(TransportContract):
    silence = 0.1

    def make(self) -> Transport:
        return StreamTransport(conf.LOCATION)


Join = Callable[..., StreamTransport]


@pytest.fixture
def join() -> Iterator[Join]:
    """A listener of a group, subscribed; each with a name of its own, with a heartbeat unless said otherwise."""
    with ExitStack() as stack:

        def make(
            *channels: str, group: str = "shop", name: str = "", alive: bool = True, at: str = ""
        ) -> StreamTransport:
            transport = StreamTransport(at or conf.LOCATION)
            if name:
                transport.consumer = transport._claims.consumer = name
            if alive:
                show_alive(transport.consumer, at)
            transport.subscribe([Subscription(channel=channel, group=group) for channel in channels])
            stack.callback(_close, transport)
            return transport

        yield make


def _close(transport: StreamTransport) -> None:
    with suppress(TransportError):
        transport.close()


def show_alive(name: str, at: str = "") -> None:
    with redis.Redis.from_url(at or conf.LOCATION) as client:
        client.set(conf.redis_name(f"redis-events:listeners:{name}"), b"{}")


def die(transport: StreamTransport) -> None:
    """As SIGKILL would: sockets closed, nothing said, the heartbeat expired."""
    with redis.Redis.from_url(transport.location) as client:
        client.delete(conf.redis_name(f"redis-events:listeners:{transport.consumer}"))
    transport._disconnect()


@pytest.fixture(autouse=True)
def _no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead are dead at once; what three seconds of silence are for has a test of its own."""
    monkeypatch.setattr(claims, "SILENCE", 0.0)


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


def add(channel: str, *bodies: bytes, at: str = "") -> None:
    sender = StreamTransport(at or conf.LOCATION)
    sender.send([Outgoing(channel=channel, body=body, plain=True) for body in bodies])
    sender.close()


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [str(number).encode() for number in range(start, start + count)]


def receive(
    transport: StreamTransport, count: int, *, timeout: float = 8.0, settles: bool = True, limit: int = 100
) -> list[Delivery]:
    """At least ``count`` deliveries, as a listener takes them, its connection mended when it breaks."""
    found: list[Delivery] = []
    deadline = time.monotonic() + timeout
    while len(found) < count and time.monotonic() < deadline:
        try:
            batch = transport.receive(limit=limit, timeout=0.05)
        except TransportError:
            mend(transport)
            continue
        if settles:
            transport.settle(batch)
        found += batch
    assert len(found) >= count, f"{len(found)} of {count}"
    return found


def mend(transport: StreamTransport) -> None:
    def is_back() -> bool:
        with suppress(TransportError):
            transport.subscribe(transport._subscriptions)
            return True
        return False

    wait_for(is_back, timeout=10, what="the connection")


def flush(transport: StreamTransport) -> None:
    """Let what was settled be acknowledged, with the next read."""
    transport.receive(limit=100, timeout=0.05)


def bodies(found: list[Delivery]) -> list[bytes]:
    return [each.body for each in found]


def name(channel: str) -> str:
    return conf.redis_name(channel)


def pending(client: redis.Redis, channel: str, group: str = "shop") -> int:
    return int(client.xpending(name(channel), group)["pending"])


# ------------------------------------------------------------------ groups


def test_what_was_sent_before_the_first_listener_ever_ran_is_received(join: Join) -> None:
    add("orders", *numbers(5))
    assert bodies(receive(join("orders"), 5)) == numbers(5)


def test_a_restart_neither_skips_nor_rewinds(join: Join) -> None:
    add("orders", *numbers(5))
    first = join("orders", name="first")
    receive(first, 5)
    first.close()
    add("orders", *numbers(5, 5))
    assert bodies(receive(join("orders", name="second"), 5)) == numbers(5, 5)


def test_a_second_listener_skips_nothing_and_repeats_nothing(join: Join) -> None:
    add("orders", *numbers(150))
    first = join("orders", name="first")
    found = receive(first, 100)
    second = join("orders", name="second")
    add("orders", *numbers(50, 150))
    found += receive(second, 1) + receive(first, 0, timeout=0)
    while len(found) < 200:
        for each in (first, second):
            found += receive(each, 0, timeout=0) or each.receive(limit=10, timeout=0.05)
    assert sorted(map(int, bodies(found))) == list(range(200))


def test_each_group_gets_everything(join: Join) -> None:
    add("orders", *numbers(3))
    for group in ("shop", "billing", "shop:search"):
        assert bodies(receive(join("orders", group=group, name=group), 3)) == numbers(3)


def test_one_listener_of_two_groups_gets_a_delivery_for_each(join: Join) -> None:
    transport = StreamTransport(conf.LOCATION)
    transport.subscribe([Subscription(channel="orders", group=group) for group in ("shop", "shop:search")])
    add("orders", b"x")
    assert {each.group for each in receive(transport, 2)} == {"shop", "shop:search"}
    transport.close()


def test_a_channel_a_pattern_covers_is_picked_up_when_it_is_first_published(join: Join, client: redis.Redis) -> None:
    transport = join("shop.*")
    add("shop.orders", b"x")
    assert receive(transport, 1)[0].channel == "shop.orders"


def test_more_channels_than_roads_share_them_and_all_arrive(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_ROADS", 4)
    channels = [f"c{number}" for number in range(30)]
    transport = join(*channels)
    assert len(transport._roads) == 4
    for channel in channels:
        add(channel, *numbers(20))
    found = receive(transport, 600)
    assert sorted((each.channel, int(each.body)) for each in found) == sorted(
        (c, n) for c in channels for n in range(20)
    )


def test_channels_that_appear_one_by_one_do_not_take_a_road_each_without_end(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_ROADS", 4)
    transport = join("shop.*")
    for number in range(12):
        add(f"shop.{number}", b"x")
        receive(transport, 1)
    assert len(transport._roads) <= 4
    for number in range(12):
        add(f"shop.{number}", b"y")
    assert len(receive(transport, 12)) == 12


# ------------------------------------------------------------------ on the wire


def test_a_document_is_one_field_called_event_and_a_plain_message_one_called_data(client: redis.Redis) -> None:
    transport = StreamTransport(conf.LOCATION)
    transport.send([Outgoing(channel="orders", body=b"{}"), Outgoing(channel="orders", body=b"x", plain=True)])
    transport.close()
    assert [fields for _, fields in client.xrange(name("orders"))] == [{b"event": b"{}"}, {b"data": b"x"}]


@pytest.mark.parametrize(
    ("fields", "body", "is_document"),
    [
        ({"anything": "x"}, b"x", False),
        ({"a": "1", "b": "2"}, b'{"a":"1","b":"2"}', False),
        ({"event": "{", "settled": "shop"}, b"{", True),
        ({"a": b"\xff", "b": b"\x00"}, b"a=\xff\nb=\x00", False),
        ({b"\xff": b"x"}, b"x", False),
        ({f"f{number}": "x" for number in range(1_000)}, None, False),
    ],
)
def test_entries_of_other_clients_are_deliveries(
    join: Join, client: redis.Redis, fields: Any, body: bytes | None, is_document: bool
) -> None:
    client.xadd(name("orders"), fields)
    found = receive(join("orders"), 1)[0]
    assert found.is_document == is_document
    assert body is None or found.body == body


def test_an_acknowledgement_travels_with_the_next_read(
    join: Join, server: Server, events_settings: dict[str, Any]
) -> None:
    add("orders", *numbers(600))
    with Proxy(server, gather=0.02) as proxy:
        transport = join("orders", at=proxy.url)
        receive(transport, 100)
        proxy.reset()
        receive(transport, 100)
        written = b"".join(proxy.payloads)
        assert written.count(b"XACK") == 1
        assert b"MULTI" not in written


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, its batches are quick."""
    monkeypatch.setattr(stream, "QUICK", 10.0)


@pytest.mark.usefixtures("quick")
def test_in_a_backlog_the_next_batch_is_read_while_this_one_is_processed(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(1_000))
    transport = join("orders")
    receive(transport, 200)  # two: how long the first takes says that they are quick
    transport.settle(transport.receive(limit=100, timeout=1.0))
    wait_for(lambda: pending(client, "orders") >= 200, what="the next batch beside this one")
    assert bodies(receive(transport, 700)) == numbers(700, 300)
    flush(transport)
    assert pending(client, "orders") == 0


@pytest.mark.usefixtures("quick")
def test_what_is_settled_is_acknowledged_before_what_was_read_ahead_is_handed_over(
    join: Join, server: Server, client: redis.Redis
) -> None:
    """So a process that dies repeats one batch at most, as without reading ahead."""
    add("orders", *numbers(1_000))
    transport = join("orders")
    receive(transport, 300)
    before = transport.receive(limit=100, timeout=1.0)
    transport.settle(before)
    receive(transport, 100, settles=False)
    wait_for(lambda: not client.xpending_range(name("orders"), "shop", before[0].id, before[-1].id, 1), what="the XACK")
    assert not client.xpending_range(name("orders"), "shop", "-", before[-1].id, 1)


def test_nothing_is_read_ahead_of_a_slow_batch(join: Join, client: redis.Redis) -> None:
    """What one listener would only keep in its socket, an idle one beside it can process."""
    add("orders", *numbers(1_000))
    transport = join("orders", name="slow")
    for _ in range(4):
        batch = transport.receive(limit=100, timeout=1.0)
        time.sleep(1.5 * stream.QUICK)
        transport.settle(batch)
    transport.receive(limit=100, timeout=1.0)
    time.sleep(0.1)
    assert pending(client, "orders") == 100
    assert bodies(receive(join("orders", name="idle"), 500)) == numbers(500, 500)


@pytest.mark.usefixtures("quick")
def test_two_answers_that_come_in_one_packet_are_two_batches(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    add("orders", *numbers(1_000))
    transport = join("orders")
    taken = receive(transport, 20, limit=10)
    wire = transport._roads[0].wire
    write = wire.write

    def write_and_let_it_answer(commands: Any) -> None:
        write(commands)
        time.sleep(0.005)

    monkeypatch.setattr(wire, "write", write_and_let_it_answer)
    for _ in range(10):
        batch = transport.receive(limit=10, timeout=1.0)
        assert len(batch) == 10
        transport.settle(batch)
        taken += batch
    taken += transport.remainder()
    assert bodies(taken) == numbers(130)
    assert transport.remainder() == []


@pytest.mark.usefixtures("quick")
def test_one_that_is_about_to_leave_finishes_what_it_has_read_ahead(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(1_000))
    transport = join("orders", name="leaver")
    taken = receive(transport, 300)
    while rest := transport.remainder():
        transport.settle(rest)
        taken += rest
    assert 300 < len(taken) < 1_000
    transport.close()
    assert pending(client, "orders") == 0
    assert client.xinfo_consumers(name("orders"), "shop") == []
    assert bodies(taken + receive(join("orders"), 1_000 - len(taken))) == numbers(1_000)


@pytest.mark.usefixtures("quick")
def test_a_lost_connection_repeats_nothing_that_was_read_ahead(join: Join, server: Server) -> None:
    add("orders", *numbers(2_000))
    with Proxy(server) as proxy:
        transport = join("orders", at=proxy.url)
        taken = receive(transport, 300)
        proxy.cut()
        taken += receive(transport, 2_000 - len(taken))
    assert sorted(bodies(taken), key=int) == numbers(2_000)


def test_everything_is_acknowledged_soon_after_it_is_settled(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(250))
    transport = join("orders")
    receive(transport, 250)
    flush(transport)
    assert pending(client, "orders") == 0


def test_what_was_settled_is_acknowledged_before_more_work_is_begun(join: Join, client: redis.Redis) -> None:
    """Else a slow or deadly next run keeps a whole batch from being acknowledged."""
    add("mails", b"left")
    dead = join("mails", name="dead")
    receive(dead, 1, settles=False)
    transport = join("mails", "orders", name="living")
    add("orders", *numbers(10))
    receive(transport, 10)
    die(dead)
    wait_for(lambda: _claimed(transport), what="the claimed entry")
    wait_for(lambda: pending(client, "orders") == 0, what="the batch to be acknowledged")


def _claimed(transport: StreamTransport) -> list[Delivery]:
    return [each for each in transport.receive(limit=10, timeout=0.01) if each.is_repeated]


def test_with_a_timeout_of_zero_nothing_means_that_nothing_is_there(join: Join) -> None:
    for number in range(5):
        add(f"c{number}", *numbers(250))
    dead = join("c0", name="dead")
    receive(dead, 150, settles=False)
    die(dead)
    transport = join(*(f"c{number}" for number in range(5)), name="living")
    found: list[Delivery] = []
    while batch := transport.receive(limit=100, timeout=0.0):
        found += batch
        transport.settle(batch)
    assert len(found) == 1250


# ------------------------------------------------------------------ lost connections


def test_a_killed_connection_runs_nothing_twice(join: Join, client: redis.Redis) -> None:
    """Ninety kills under traffic: whatever was decided is settled again, not run again."""
    total, runs, stop = 4_000, [], threading.Event()
    transport = join("orders")

    def publish() -> None:
        with redis.Redis.from_url(conf.LOCATION) as own:
            for at in range(0, total, 40):
                for number in range(at, at + 40):
                    own.xadd(name("orders"), {"data": number})
                time.sleep(0.01)

    publisher = threading.Thread(target=publish)
    publisher.start()
    kills = 0
    rounds = 0
    while len(set(runs)) < total and not stop.is_set():
        rounds += 1
        try:
            batch = transport.receive(limit=100, timeout=0.2)
            runs += bodies(batch)
            if kills < 90 and batch:
                kills += kill_connections(client, transport, every=rounds % 3)
            transport.settle(batch)
        except TransportError:
            mend(transport)
        assert rounds < 20_000
    publisher.join()
    assert kills >= 90
    assert len(runs) == len(set(runs)) == total
    flush(transport)
    wait_for(lambda: _settled(transport, client), what="everything to be acknowledged")


def _settled(transport: StreamTransport, client: redis.Redis) -> bool:
    with suppress(TransportError):
        flush(transport)
        return pending(client, "orders") == 0
    mend(transport)
    return False


def kill_connections(client: redis.Redis, transport: StreamTransport, *, every: int) -> int:
    """The road, the other connection, or both: whichever turn it is."""
    sockets = [road.wire.socket for road in transport._roads] + ([transport._care.socket] if transport._care else [])
    chosen = sockets if every == 0 else sockets[every - 1 : every]
    ports = {f"{each.getsockname()[0]}:{each.getsockname()[1]}" for each in chosen}
    return sum(int(client.client_kill_filter(addr=port)) for port in ports)


def test_a_settle_whose_reply_was_lost_is_sent_again_and_not_run_again(join: Join, server: Server) -> None:
    add("orders", *numbers(10))
    with Proxy(server) as proxy:
        transport = join("orders", at=proxy.url)
        found = receive(transport, 10, settles=False)
        proxy.black_hole()
        transport.settle(found)
        with suppress(TransportError):
            transport.receive(limit=10, timeout=0.1)
        proxy.cut()
        proxy.heal()
        mend(transport)
        with server.client() as client:
            wait_for(lambda: pending(client, "orders") == 0, what="the settle")
        assert receive(transport, 0, timeout=0) == []
        assert transport.receive(limit=10, timeout=0.1) == []


def test_two_lost_settles_in_a_row_are_still_not_forgotten(
    join: Join, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks again while the settle is repeated."""
    add("orders", *numbers(10))
    transport = join("orders")
    transport.settle(receive(transport, 10, settles=False))
    for road in transport._roads:
        road.settled.clear()  # as if the write had been lost with its connection
    with monkeypatch.context() as patch:
        patch.setattr(stream, "acknowledgement", _lost)
        with pytest.raises(TransportError):
            transport.subscribe(transport._subscriptions)
    mend(transport)
    assert transport.receive(limit=10, timeout=0.2) == []
    assert pending(client, "orders") == 0


def _lost(*_: Any) -> None:
    raise Unreachable("the connection is gone again")


@pytest.fixture
def forbid(flushable: Server) -> Iterator[Callable[..., None]]:
    """Take commands from everybody, or give all back with none."""
    with flushable.client() as client:

        def change(*commands: str) -> None:
            rights = ["+@all", *(f"-{command}" for command in commands)]
            client.acl_setuser("default", enabled=True, commands=rights, keys=["*"], nopass=True)

        yield change
        change()


@pytest.mark.parametrize("with_the_next_read", [True, False])
def test_a_channel_whose_acknowledgements_are_refused_is_put_aside_and_settled_when_they_are_not(
    join: Join,
    flushable: Server,
    forbid: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    with_the_next_read: bool,
) -> None:
    """Else all that is run meanwhile would be run again after a restart. Nothing has to be connected anew for it."""
    add("orders", *numbers(3))
    transport = join("orders", "mails")
    found = receive(transport, 3, settles=False)
    if not with_the_next_read:
        flush(transport)  # the road is reading already
    forbid("xack")
    transport.settle(found)
    wait_for(lambda: flush(transport) or "cannot listen on orders: NOPERM" in caplog.text, what="the refusal")
    add("orders", *numbers(150, 3))
    for _ in range(10):
        assert transport.receive(limit=10, timeout=0.1) == []
    forbid()
    assert bodies(receive(transport, 150)) == numbers(150, 3)
    flush(transport)
    with flushable.client() as client:
        assert pending(client, "orders") == 0
    assert caplog.text.count("cannot listen on orders") == 1
    assert caplog.text.count("listening on orders again") == 1


@pytest.mark.parametrize("command", ["xpending", "xrange"])
def test_what_cannot_be_recovered_for_now_is_recovered_when_it_can(
    join: Join, flushable: Server, forbid: Callable[..., None], caplog: pytest.LogCaptureFixture, command: str
) -> None:
    add("orders", *numbers(50))
    transport = join("orders", "mails")
    receive(transport, 50, settles=False)
    forbid(command)
    mend(transport)
    for _ in range(10):
        assert transport.receive(limit=10, timeout=0.1) == []
    forbid()
    add("orders", b"50")
    assert bodies(receive(transport, 51)) == numbers(51)
    assert caplog.text.count("cannot listen on orders: NOPERM") == 1


def test_a_settle_that_times_out_costs_the_connection_and_nothing_else(join: Join, client: redis.Redis) -> None:
    """Its reply comes late: it must not be taken for the answer to what is asked next."""
    add("orders", b"one")
    dead = join("orders", name="dead")
    receive(dead, 1, settles=False)
    die(dead)
    transport = join("orders", name="living")
    found = receive(transport, 1, settles=False)
    client.execute_command("CLIENT", "PAUSE", 1_300)
    transport.settle(found)
    time.sleep(0.5)
    add("orders", b"two")
    assert bodies(receive(transport, 1)) == [b"two"]
    flush(transport)
    assert pending(client, "orders") == 0


def test_what_is_recovered_over_a_slow_line_comes_a_few_at_a_time(
    join: Join, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it in one answer took longer than any answer may, at every attempt: a listener never came back."""
    asked: list[int] = []
    call = Wire.call

    def note(wire: Wire, commands: Any, **options: Any) -> Any:
        asked.append(sum(command[0] == "XRANGE" for command in commands))
        return call(wire, commands, **options)

    add("orders", *numbers(100))
    transport = join("orders")
    receive(transport, 100, settles=False)
    monkeypatch.setattr(Wire, "call", note)
    mend(transport)
    assert bodies(receive(transport, 100)) == numbers(100)
    assert max(asked) <= 10


def test_a_dead_road_is_noticed_while_another_is_busy(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roads, "MARGIN", -1.5)
    transport = join("orders", "mails")
    add("orders", *numbers(2_000))
    silent = next(road for road in transport._roads if road.channels == ("mails",))
    flush(transport)
    transport._waiter.remove(silent.wire)  # type: ignore[union-attr]  # as half-open: nothing ever comes

    def hear_for_a_while() -> None:
        for _ in range(100):
            transport.settle(transport.receive(limit=10, timeout=1.0))
            time.sleep(0.02)

    with pytest.raises(Unreachable):
        hear_for_a_while()
    transport._waiter.add(silent.wire)  # type: ignore[union-attr]


@pytest.mark.usefixtures("quick")
def test_however_much_is_pending_all_of_it_is_held_on_to(
    join: Join, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "RENEWED_AT_ONCE", 30)
    add("orders", *numbers(100))
    transport = join("orders", name="holder")
    receive(transport, 100, settles=False)
    time.sleep(0.2)
    transport.keep()
    idle = [each["time_since_delivered"] for each in client.xpending_range(name("orders"), "shop", "-", "+", 200)]
    assert len(idle) == 100
    assert max(idle) < 200


def test_a_server_that_refuses_to_hold_on_to_entries_is_complained_of_once(
    join: Join, flushable: Server, forbid: Callable[..., None], settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CLAIM_AFTER": 0.03}
    add("orders", b"x")
    transport = join("orders")
    receive(transport, 1, settles=False)
    forbid("xclaim")
    for _ in range(5):
        transport.keep()
        time.sleep(0.02)
    assert caplog.text.count("cannot hold on to what is being run on orders") == 1


def test_a_thawed_listener_that_leaves_takes_no_start_back_from_whoever_took_over(
    join: Join, client: redis.Redis
) -> None:
    add("orders", b"x")
    dead = join("orders", name="dead")
    receive(dead, 1, settles=False)
    die(dead)
    frozen = join("orders", name="frozen")
    receive(frozen, 1, settles=False)
    client.xclaim(name("orders"), "shop", "heir", 0, [_only(client)])
    frozen.close()
    (entry,) = client.xpending_range(name("orders"), "shop", "-", "+", 1)
    assert (entry["consumer"], entry["times_delivered"]) == (b"heir", 3)


def _only(client: redis.Redis) -> bytes:
    return bytes(client.xpending_range(name("orders"), "shop", "-", "+", 1)[0]["message_id"])


def test_one_that_leaves_finishes_first_what_it_was_about_to_take_again(join: Join) -> None:
    add("orders", *numbers(30))
    transport = join("orders")
    receive(transport, 30, settles=False)
    mend(transport)
    taken: list[Delivery] = []
    while rest := transport.remainder():
        taken += rest
    assert bodies(taken) == numbers(30)


def test_all_own_pending_entries_come_again_however_many(
    join: Join, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_entries, "MOST_LISTED", 10)
    add("orders", *numbers(55))
    transport = join("orders")
    receive(transport, 55, settles=False)
    mend(transport)
    found = receive(transport, 55)
    assert bodies(found) == numbers(55)
    assert all(each.is_repeated for each in found)


def test_reading_own_pending_entries_again_counts_no_delivery(join: Join, client: redis.Redis) -> None:
    add("orders", b"x")
    transport = join("orders")
    receive(transport, 1, settles=False)
    for _ in range(8):
        mend(transport)
        receive(transport, 1, settles=False)
    assert client.xpending_range(name("orders"), "shop", "-", "+", 1)[0]["times_delivered"] == 1


def test_reconnecting_leaves_no_descriptors_behind(join: Join) -> None:
    transport = join("orders", "mails")
    mend(transport)
    before = open_descriptors()
    for _ in range(20):
        mend(transport)
    assert open_descriptors() <= before + 2


# ------------------------------------------------------------------ one channel's trouble


def test_a_wrong_type_at_one_channel_leaves_the_others_alone_and_heals(
    join: Join, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    transport = join("orders", "mails")
    receive(transport, 0, timeout=0)
    client.delete(name("orders"))
    client.set(name("orders"), "a string")
    add("mails", b"1")
    assert bodies(receive(transport, 1)) == [b"1"]
    wait_for(lambda: _told(transport, caplog, "cannot listen on orders: WRONGTYPE"), what="the line")
    client.delete(name("orders"))
    add("orders", b"2")
    assert bodies(receive(transport, 1)) == [b"2"]
    assert len([line for line in caplog.messages if "WRONGTYPE" in line]) == 1
    assert "listening on orders again" in caplog.text


def _told(transport: StreamTransport, caplog: pytest.LogCaptureFixture, text: str) -> bool:
    transport.receive(limit=10, timeout=0.02)
    return text in caplog.text


def test_a_wrong_type_from_the_start_leaves_the_others_alone(join: Join, client: redis.Redis) -> None:
    client.set(name("orders"), "a string")
    transport = join("orders", "mails")
    add("mails", b"1")
    assert bodies(receive(transport, 1)) == [b"1"]


def test_a_wrong_type_on_a_shared_road_leaves_the_others_alone(
    join: Join, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_ROADS", 1)
    transport = join("a", "b", "c")
    receive(transport, 0, timeout=0)
    client.delete(name("b"))
    client.set(name("b"), "a string")
    for channel in ("a", "c"):
        add(channel, *numbers(3))
    assert len(receive(transport, 6)) == 6


def test_a_channel_the_server_forbids_leaves_the_others_alone(
    join: Join, flushable: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with flushable.client() as client:
        client.acl_setuser(
            "reader", enabled=True, commands=["+@all"], nopass=True, keys=[name("mails"), name("redis-events:*")]
        )
        add("orders", b"1")
        add("mails", b"2")
        transport = join("orders", "mails", at=flushable.url.replace("redis://", "redis://reader:x@"))
        assert bodies(receive(transport, 1)) == [b"2"]
        assert "cannot listen on orders: NOPERM" in caplog.text
        client.execute_command("ACL", "SETUSER", "reader", "~*")
        assert bodies(receive(transport, 1)) == [b"1"]
        client.acl_deluser("reader")


def test_a_destroyed_group_is_made_again_at_its_floor(
    join: Join, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    add("orders", *numbers(10))
    transport = join("orders")
    receive(transport, 10)
    flush(transport)
    transport.record()
    client.xgroup_destroy(name("orders"), "shop")
    add("orders", b"new")
    assert bodies(receive(transport, 1)) == [b"new"]
    assert "the group shop of orders was gone" in caplog.text


def test_a_group_destroyed_while_nobody_listens_is_made_again_at_its_floor(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(10))
    first = join("orders", name="first")
    receive(first, 10)
    flush(first)
    first.record()
    first.close()
    client.xgroup_destroy(name("orders"), "shop")
    add("orders", b"new")
    assert bodies(receive(join("orders", name="second"), 1)) == [b"new"]


def test_what_comes_again_with_a_new_group_is_marked_as_repeated(join: Join, client: redis.Redis) -> None:
    """So that a receiver that has its held row is not run again."""
    add("orders", *numbers(4))
    transport = join("orders")
    receive(transport, 4)
    flush(transport)
    client.xgroup_destroy(name("orders"), "shop")
    found = receive(transport, 4)
    assert {each.is_repeated for each in found} == {True}
    add("orders", b"new")
    assert not receive(transport, 1)[0].is_repeated


def test_what_was_lost_and_sent_again_stays_marked_as_repeated_in_a_new_group(join: Join, client: redis.Redis) -> None:
    """It stands above the end of the old stream, or in one that lost no group: the entry itself says so."""
    transport = join("orders", "mails")
    for channel in ("orders", "mails"):
        add(channel, b"old")
    receive(transport, 2)
    flush(transport)
    client.xgroup_destroy(name("orders"), "shop")
    receive(transport, 1)
    for channel in ("orders", "mails"):
        client.xadd(name(channel), {"event": b"healed", "settled": b""})
        healed = receive(transport, 1)[0]
        assert (healed.channel, healed.body, healed.is_repeated) == (channel, b"healed", True)


def test_a_group_is_not_begun_anew_while_its_floor_cannot_be_read(
    join: Join, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    add("orders", *numbers(10))
    transport = join("orders")
    receive(transport, 10)
    flush(transport)
    transport.record()
    with database_away():
        client.xgroup_destroy(name("orders"), "shop")
        add("orders", b"new")
        assert transport.receive(limit=10, timeout=0.5) == []
        assert "the database is away" in caplog.text
    assert bodies(receive(transport, 1)) == [b"new"]


class database_away:
    """The table the floors stand in is under another name."""

    def __enter__(self) -> None:
        self._rename("redis_events_channelstate", "hidden")

    def __exit__(self, *_: object) -> None:
        self._rename("hidden", "redis_events_channelstate")

    def _rename(self, old: str, new: str) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(f'ALTER TABLE "{old}" RENAME TO "{new}"')


def test_flushall_begins_again_at_zero_without_a_restart(join: Join, flushable: Server) -> None:
    add("orders", *numbers(10))
    transport = join("orders", "mails")
    receive(transport, 10)
    flush(transport)
    transport.record()
    with flushable.client() as client:
        client.flushall()
        add("orders", *numbers(10, 10))
        add("mails", b"x")
        assert len(receive(transport, 11)) == 11


def test_a_listener_without_an_entry_finds_its_stream_again_after_flushall(
    join: Join, flushable: Server, settings: Any
) -> None:
    """The announcements are lost with everything else."""
    add("orders", b"1")
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": {}}
    transport = join("orders")
    receive(transport, 1)
    with flushable.client() as client:
        client.flushall()
        wait_for(lambda: _has_group(transport, client), what="the group to be made again")
        client.xadd(name("orders"), {"data": "2"})
    assert bodies(receive(transport, 1)) == [b"2"]


def _has_group(transport: StreamTransport, client: redis.Redis) -> bool:
    transport.receive(limit=10, timeout=0.02)
    return bool(client.exists(name("orders")))


def test_a_full_server_refuses_events_and_still_delivers_what_it_has(join: Join, flushable: Server) -> None:
    add("orders", *numbers(20))
    transport = join("orders")
    with flushable.client() as client:
        client.config_set("maxmemory", 1)
        try:
            found = receive(transport, 20)
            flush(transport)
            transport.keep()
            transport.record()
            with pytest.raises(TransportError, match="OOM"):
                add("orders", b"x")
            assert pending(client, "orders") == 0
        finally:
            client.config_set("maxmemory", 0)
    assert len(found) == 20
    add("orders", b"y")
    assert bodies(receive(transport, 1)) == [b"y"]


def test_a_restarted_server_is_listened_to_again(join: Join, flushable: Server) -> None:
    add("orders", *numbers(5))
    transport = join("orders")
    receive(transport, 5, settles=False)
    flushable.kill()
    flushable.start()
    found = receive(transport, 5)
    assert bodies(found) == numbers(5)
    assert all(each.is_repeated for each in found)


# ------------------------------------------------------------------ the dead and the living


def test_all_pending_entries_of_a_dead_listener_are_taken_over(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(300))
    dead = join("orders", name="dead")
    receive(dead, 300, settles=False)
    die(dead)
    survivor = join("orders", name="survivor")
    found = receive(survivor, 300)
    assert bodies(found) == numbers(300)
    assert all(each.is_repeated for each in found)
    wait_for(lambda: _consumers(survivor, client) == {"survivor"}, what="the dead consumer to be removed")
    assert pending(client, "orders") == 0


def _consumers(transport: StreamTransport, client: redis.Redis) -> set[str]:
    transport.receive(limit=10, timeout=0.02)
    return {each["name"].decode() for each in client.xinfo_consumers(name("orders"), "shop")}


def test_new_events_are_not_kept_waiting_by_what_is_taken_over(join: Join) -> None:
    add("orders", *numbers(300))
    dead = join("orders", name="dead")
    receive(dead, 300, settles=False)
    die(dead)
    survivor = join("orders", name="survivor")
    add("orders", b"new")
    found = receive(survivor, 301)
    assert bodies(found).index(b"new") < 10


def test_two_survivors_share_what_is_taken_over_and_run_nothing_twice(join: Join) -> None:
    add("orders", *numbers(200))
    dead = join("orders", name="dead")
    receive(dead, 200, settles=False)
    die(dead)
    survivors = [join("orders", name=each) for each in ("one", "two")]
    found: list[Delivery] = []
    for _ in range(2_000):
        for each in survivors:
            batch = each.receive(limit=10, timeout=0.0)
            found += batch
            each.settle(batch)
    assert sorted(map(int, bodies(found))) == list(range(200))


def test_a_claimed_entry_comes_alone_and_each_claim_counts_as_one_start(join: Join) -> None:
    add("orders", b"x")
    dead = join("orders", name="dead-0")
    receive(dead, 1, settles=False)
    die(dead)
    starts = []
    for number in range(1, 4):
        heir = join("orders", name=f"dead-{number}")
        starts += [each.starts for each in receive(heir, 1, settles=False)]
        die(heir)
    assert starts == [0, 1, 2]


def test_an_event_that_was_merely_in_the_batch_is_never_counted(join: Join) -> None:
    add("orders", *numbers(100))
    dead = join("orders", name="dead-0")
    receive(dead, 100, settles=False)
    die(dead)
    starts: dict[bytes, list[int]] = {}
    for number in range(1, 7):
        heir = join("orders", name=f"dead-{number}")
        while b"50" not in bodies(found := receive(heir, 1, settles=False)):
            starts.setdefault(found[0].body, []).append(found[0].starts)
            assert len(found) == 1
            heir.settle(found)
        starts.setdefault(b"50", []).append(found[0].starts)
        die(heir)
    survivor = join("orders", name="survivor")
    for each in receive(survivor, 1) and receive(survivor, 0, timeout=0):
        starts.setdefault(each.body, []).append(each.starts)
    assert starts.pop(b"50") == [0, 1, 2, 3, 4, 5]
    assert set(map(tuple, starts.values())) == {(0,)}


def test_being_asked_to_stop_before_the_run_is_no_start(join: Join) -> None:
    """Else five restarts while the database is away make a dead letter of what was never run."""
    add("orders", b"x")
    dead = join("orders", name="dead")
    receive(dead, 1, settles=False)
    die(dead)
    for number in range(7):
        heir = join("orders", name=f"heir-{number}")
        assert [each.starts for each in receive(heir, 1, settles=False)] == [0]
        heir.close()
        die(heir)


def test_the_living_keep_what_they_have_in_hand(join: Join, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CLAIM_AFTER": 0.4}
    add("orders", b"x")
    slow = join("orders", name="slow")
    receive(slow, 1, settles=False)
    other = join("orders", name="other")
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        slow.keep()
        assert other.receive(limit=10, timeout=0.1) == []


def test_a_living_listener_that_hangs_loses_its_work_after_claim_after(join: Join, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CLAIM_AFTER": 0.5}
    add("orders", b"x")
    began = time.monotonic()
    receive(join("orders", name="hung"), 1, settles=False)
    receive(join("orders", name="other"), 1)
    assert time.monotonic() - began >= 0.5


def test_a_thawed_listener_does_not_steal_back_what_was_taken_over(
    join: Join, client: redis.Redis, settings: Any
) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CLAIM_AFTER": 0.2}
    add("orders", b"x")
    frozen = join("orders", name="frozen")
    receive(frozen, 1, settles=False)
    other = join("orders", name="other")
    receive(other, 1, settles=False)
    frozen.keep()
    assert client.xpending_range(name("orders"), "shop", "-", "+", 1)[0]["consumer"] == b"other"


def test_what_a_thawed_listener_has_decided_and_takes_back_is_settled_and_not_run(
    join: Join, client: redis.Redis
) -> None:
    """Its settle had not left yet when it saw that who took over was gone: of 450 freezes, 6 ran a third time."""
    add("orders", b"x")
    thawed = join("orders", name="thawed")
    (decided,) = receive(thawed, 1, settles=False)
    client.xclaim(name("orders"), "shop", "gone", 0, [decided.id])
    thawed.settle([decided])  # leaves with the next read
    thawed._next_look = 0.0
    thawed._look_around()
    assert thawed._take_claimed() == []
    assert pending(client, "orders") == 0


def test_right_after_a_reconnect_the_living_are_not_robbed(
    join: Join, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an outage all heartbeats run out; the first one back must not take the work of those about to be."""
    monkeypatch.setattr(claims, "SILENCE", 1.0)
    add("orders", b"x")
    receive(join("orders", name="busy"), 1, settles=False)
    other = join("orders", name="other")
    assert other.receive(limit=1, timeout=0.0) == []
    client.delete(name("redis-events:listeners:busy"))
    wait_for(lambda: client.xinfo_consumers(name("orders"), "shop")[0]["idle"] > 1_050, what="the silence of death")
    mend(other)
    assert other.receive(limit=1, timeout=0.5) == []
    assert bodies(receive(other, 1)) == [b"x"]


def test_a_listener_without_a_heartbeat_that_just_did_something_is_alive(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SILENCE", 1.0)
    add("orders", b"x")
    receive(join("orders", name="new", alive=False), 1, settles=False)
    other = join("orders", name="other")
    assert other.receive(limit=1, timeout=0.3) == []
    assert bodies(receive(other, 1)) == [b"x"]


def test_leaving_takes_nothing_along_and_leaves_no_consumer(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(250))
    transport = join("orders", name="leaver")
    receive(transport, 250)
    transport.close()
    assert pending(client, "orders") == 0
    assert client.xinfo_consumers(name("orders"), "shop") == []


def test_leaving_leaves_what_was_not_settled_to_the_others(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(5))
    transport = join("orders", name="leaver")
    transport.settle(receive(transport, 5, settles=False)[:2])
    transport.close()
    assert pending(client, "orders") == 3
    die(transport)
    assert bodies(receive(join("orders", name="other"), 3)) == numbers(3, 2)


def test_a_foreign_consumer_with_an_unreadable_name_disturbs_nobody(join: Join, client: redis.Redis) -> None:
    add("orders", b"x")
    transport = join("orders")
    client.execute_command("XGROUP", "CREATECONSUMER", name("orders"), "shop", b"\xff\xfe")
    assert bodies(receive(transport, 1)) == [b"x"]


# ------------------------------------------------------------------ trimming


def test_entries_trimmed_by_somebody_else_while_pending_are_settled_and_told(
    join: Join, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    add("orders", *numbers(50))
    dead = join("orders", name="dead")
    receive(dead, 50, settles=False)
    client.xtrim(name("orders"), maxlen=10, approximate=False)
    mend(dead)
    assert bodies(receive(dead, 10)) == numbers(10, 40)
    assert pending(client, "orders") == 10 or flush(dead) is None
    wait_for(lambda: pending(client, "orders") == 0, what="everything to be settled")
    assert "were trimmed by somebody else: 40" in caplog.text


def test_trimmed_entries_of_a_dead_listener_are_settled_and_told(
    join: Join, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    add("orders", *numbers(5))
    dead = join("orders", name="dead")
    receive(dead, 5, settles=False)
    die(dead)
    client.xtrim(name("orders"), maxlen=0, approximate=False)
    survivor = join("orders", name="survivor")
    # Redis 7.0 knows a consumer from its first entry on, and the survivor never got one.
    wait_for(lambda: "dead" not in _consumers(survivor, client), what="the dead consumer to be removed")
    assert pending(client, "orders") == 0
    assert caplog.text.count("trimmed by somebody else") == 5


@pytest.fixture
def expired(settings: Any) -> None:
    """Nothing needs to be kept for longer than a moment."""
    channels = {"*": {"TRANSPORT": "stream", "RETENTION": 0.001}}
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": channels}


@pytest.mark.usefixtures("expired")
def test_what_every_group_has_settled_is_trimmed(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(100))
    transport = join("orders")
    receive(transport, 100)
    flush(transport)
    time.sleep(0.01)
    transport.keep()
    assert client.xlen(name("orders")) <= 1


@pytest.mark.usefixtures("expired")
def test_nothing_a_lagging_group_has_not_settled_is_trimmed(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(100))
    lagging = join("orders", group="billing", name="lagging")
    found = receive(lagging, 40, settles=False, limit=20)
    lagging.settle([*found[:5], *found[20:]])
    flush(lagging)
    ahead = join("orders", name="ahead")
    receive(ahead, 100)
    flush(ahead)
    time.sleep(0.01)
    ahead.keep()
    assert [int(fields[b"data"]) for _, fields in client.xrange(name("orders"))] == list(range(5, 100))


@pytest.mark.usefixtures("expired")
def test_nothing_a_group_without_listeners_has_not_read_is_trimmed(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(100))
    client.xgroup_create(name("orders"), "nobody", "0")
    client.xgroup_create(name("orders"), "~relay:shop", "0")
    transport = join("orders")
    receive(transport, 100)
    flush(transport)
    transport.keep()
    assert client.xlen(name("orders")) == 100
    client.xgroup_destroy(name("orders"), "nobody")
    transport._keeper._next.clear()  # type: ignore[union-attr]
    transport.keep()
    assert client.xlen(name("orders")) <= 1  # groups that start with ~ are ours and keep nothing


def test_nothing_inside_the_retention_its_publisher_announced_is_trimmed(
    join: Join, client: redis.Redis, settings: Any
) -> None:
    """A follower's own default is shorter."""
    own = settings.REDIS_EVENTS
    settings.REDIS_EVENTS = {**own, "SERVICE": "publisher", "CHANNELS": {"*": {"TRANSPORT": "stream", "RETENTION": 60}}}
    add("orders", *numbers(10))
    settings.REDIS_EVENTS = {**own, "CHANNELS": {}, "RETENTION": 0.001}
    transport = join("orders")
    receive(transport, 10)
    flush(transport)
    time.sleep(0.01)
    transport.keep()
    assert client.xlen(name("orders")) == 10


# ------------------------------------------------------------------ floors


def test_the_floor_is_below_what_is_pending_and_moves_with_it(join: Join, client: redis.Redis) -> None:
    add("orders", *numbers(3))
    ids = [entry_id.decode() for entry_id, _ in client.xrange(name("orders"))]
    transport = join("orders")
    found = receive(transport, 3, settles=False)
    transport.settle([found[0], found[2]])
    flush(transport)
    transport.record()
    floor = ChannelState.objects.get(channel="orders", group="shop").floor
    assert ids[0] <= floor < ids[1]
    transport.settle([found[1]])
    flush(transport)
    transport.record()
    assert ChannelState.objects.get(channel="orders", group="shop").floor == ids[2]


def test_a_listener_whose_heartbeat_is_refused_says_so(flushable: Server, caplog: pytest.LogCaptureFixture) -> None:
    from redis_events.keeping import Keeper

    with flushable.client() as client:
        client.config_set("maxmemory", 1)
        keeper = Keeper(heartbeat.card((), version="1"), (), note=lambda _: None)
        try:
            with caplog.at_level(logging.ERROR):
                keeper.beat()
                keeper.beat()
        finally:
            client.config_set("maxmemory", 0)
    assert len([line for line in caplog.messages if "no heartbeat" in line]) == 1


# ------------------------------------------------------------------ browsing


def test_browsing_a_page_may_take_longer_than_a_publish(server: Server, settings: Any) -> None:
    """A page of a replay is up to 500 events of 256 KiB: with a publish's 0.25 s none of it could ever be replayed."""
    for number in range(20):
        add("orders", b"%d" % number)
    with Proxy(server) as proxy:
        transport = StreamTransport(proxy.url)
        proxy.delay = 0.3
        assert len(transport.browse("orders", limit=500)) == 20
        transport.close()
