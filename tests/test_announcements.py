"""Who says what carries a channel, and what the others make of it."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from redis_events import announcements, inbox, publish, publish_failed
from redis_events.announcements import Announcement, Lookup, announced_transport, contradictions, stream_channels
from redis_events.conf import conf
from redis_events.exceptions import Unreachable
from redis_events.transports import outlet
from redis_events.transports.base import Outgoing
from redis_events.transports.client import Wire
from redis_events.transports.pubsub import PubSubTransport
from redis_events.transports.stream import StreamTransport
from tests.servers import Server, free_port, wait_for

STREAM = {"TRANSPORT": "stream"}


@pytest.fixture(autouse=True)
def _settings(settings: Any, events_settings: dict[str, Any]) -> None:
    settings.REDIS_EVENTS = events_settings


def set_channels(settings: Any, channels: dict[str, Any], service: str = "shop", **more: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": service, "CHANNELS": channels, **more}


def said(channel: str, transport: str, service: str = "other", retention: float = 60.0) -> Announcement:
    return Announcement(service=service, channel=channel, transport=transport, retention=retention)


def tell(wire: Wire) -> None:
    wire.call(announcements.commands() or [("PING",)])


def read(wire: Wire) -> dict[tuple[str, str], str]:
    return {(each.service, each.channel): each.transport for each in announcements.read(wire)}


def test_every_entry_is_announced_patterns_too(settings: Any, wire: Wire) -> None:
    set_channels(settings, {"orders": STREAM, "live.*": {"TRANSPORT": "pubsub"}})
    tell(wire)
    assert read(wire) == {("shop", "orders"): "stream", ("shop", "live.*"): "pubsub"}


def test_a_service_without_a_name_announces_nothing(settings: Any) -> None:
    set_channels(settings, {"orders": {"TRANSPORT": "pubsub"}}, service="")
    assert announcements.commands(["orders"]) == []


def test_two_services_do_not_overwrite_one_another(settings: Any, wire: Wire) -> None:
    for service in ("shop", "billing"):
        set_channels(settings, {"orders": STREAM}, service=service)
        tell(wire)
    assert set(read(wire)) == {("shop", "orders"), ("billing", "orders")}


def test_an_announcement_nobody_can_read_hides_no_other(settings: Any, wire: Wire, server: Server) -> None:
    set_channels(settings, {"orders": STREAM})
    tell(wire)
    with server.client() as client:
        for number, junk in enumerate((b"{", b"\xff", b"[]", b'{"service":1}', b"")):
            client.hset(conf.redis_name("redis-events:announcements"), f"junk {number}", junk)
    assert set(read(wire)) == {("shop", "orders")}


def test_another_type_at_their_key_is_no_announcement(wire: Wire, server: Server) -> None:
    with server.client() as client:
        client.set(conf.redis_name("redis-events:announcements"), "x")
    assert announcements.read(wire) == []


def test_the_first_event_of_a_channel_announces_it_in_the_same_round_trip(settings: Any, wire: Wire) -> None:
    set_channels(settings, {"shop.*": STREAM})
    transport = StreamTransport(conf.LOCATION)
    transport.send([Outgoing(channel="shop.orders", body=b"{}")])
    transport.close()
    assert read(wire)["shop", "shop.orders"] == "stream"


def test_a_publisher_announces_again_now_and_then(
    settings: Any, wire: Wire, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have lost everything."""
    set_channels(settings, {"orders": STREAM})
    transport = StreamTransport(conf.LOCATION)
    transport.send([Outgoing(channel="orders", body=b"{}")])
    key = conf.redis_name("redis-events:announcements")
    with server.client() as client:
        client.delete(key)
        transport.send([Outgoing(channel="orders", body=b"{}")])
        assert not client.exists(key)  # not with each event
        monkeypatch.setattr(outlet, "ANNOUNCE_EVERY", 0.0)
        transport.send([Outgoing(channel="orders", body=b"{}")])
        assert client.exists(key)
    transport.close()


def test_a_refused_announcement_is_made_again_with_the_next_event(settings: Any, wire: Wire, server: Server) -> None:
    set_channels(settings, {"orders": STREAM})
    key = conf.redis_name("redis-events:announcements")
    transport = StreamTransport(conf.LOCATION)
    with server.client() as client:
        client.set(key, "another type")
        transport.send([Outgoing(channel="orders", body=b"{}")])
        client.delete(key)
    transport.send([Outgoing(channel="orders", body=b"{}")])
    transport.close()
    assert ("shop", "orders") in read(wire)


def test_what_channels_no_longer_names_is_withdrawn_and_nothing_of_others(settings: Any, wire: Wire) -> None:
    set_channels(settings, {"orders": STREAM}, service="billing")
    tell(wire)
    set_channels(settings, {"orders": STREAM, "old": STREAM, "old.*": STREAM, "shop.*": STREAM})
    wire.call(announcements.commands(["shop.paid", "old.paid"]))
    set_channels(settings, {"orders": STREAM, "shop.*": STREAM})
    wire.call(announcements.withdrawals(announcements.read(wire)))
    expected = {("billing", "orders"), ("shop", "orders"), ("shop", "shop.*"), ("shop", "shop.paid")}
    assert set(read(wire)) == expected


@pytest.mark.parametrize(
    ("channel", "announced", "transport"),
    [
        ("orders", [], None),
        ("orders", [said("orders", "stream")], "stream"),
        ("orders", [said("*", "stream"), said("orders", "pubsub")], "pubsub"),
        ("shop.orders", [said("*", "pubsub"), said("shop.*", "stream")], "stream"),
        ("shop.orders", [said("shop.orders.*", "stream")], None),
        ("orders", [said("[o]rders", "stream"), said("order?", "stream")], None),
    ],
)
def test_the_exact_name_wins_then_the_longest_pattern(
    channel: str, announced: list[Announcement], transport: str | None
) -> None:
    assert announced_transport(channel, announced) == transport


def test_an_own_entry_wins_over_what_others_say(settings: Any) -> None:
    set_channels(settings, {"orders": STREAM, "live": {"TRANSPORT": "pubsub"}})
    announced = [said("live", "stream"), said("orders", "pubsub"), said("mails", "stream")]
    assert stream_channels("*", announced) == ["mails", "orders"]


def test_a_pattern_means_the_stream_channels_somebody_named(settings: Any) -> None:
    set_channels(settings, {})
    announced = [said("shop.*", "stream"), said("shop.a", "stream"), said("shop.b", "pubsub"), said("x", "stream")]
    assert stream_channels("shop.*", announced) == ["shop.a"]
    assert stream_channels("shop.never.named", announced) == ["shop.never.named"]


def test_only_another_services_other_transport_is_a_contradiction(settings: Any) -> None:
    set_channels(settings, {"orders": STREAM})
    announced = [
        said("orders", "pubsub", service="shop"),
        said("orders", "stream", service="billing"),
        said("mails", "pubsub", service="billing"),
    ]
    assert contradictions(announced) == []
    wrong = said("orders", "pubsub", service="billing")
    assert [(own.name, other) for own, other in contradictions([*announced, wrong])] == [("orders", wrong)]


def test_a_pattern_of_ones_own_contradicts_a_channel_announced_otherwise_and_no_pattern_but_the_same(
    settings: Any,
) -> None:
    set_channels(settings, {"shop.*": STREAM})
    channel, same = said("shop.live", "pubsub", service="billing"), said("shop.*", "pubsub", service="billing")
    found = contradictions([channel, same, said("shop.l*", "pubsub", service="billing")])
    assert [(own.name, other) for own, other in found] == [("shop.*", channel), ("shop.*", same)]


@pytest.mark.parametrize(
    ("own", "announced", "seconds"),
    [
        ({}, [], 5.0),
        ({}, [said("orders", "stream", retention=60)], 60.0),
        ({}, [said("orders", "stream", retention=1)], 1.0),
        ({"orders": {**STREAM, "RETENTION": 90}}, [said("orders", "stream", retention=60)], 90.0),
        ({"orders": {**STREAM, "RETENTION": 9}}, [said("orders", "stream", retention=60)], 60.0),
        ({}, [said("*", "stream", "a", 70), said("orders", "stream", "a", 10), said("*", "stream", "b", 30)], 30.0),
    ],
)
def test_entries_are_kept_as_long_as_anybody_who_publishes_them_asks(
    settings: Any, own: dict[str, Any], announced: list[Announcement], seconds: float
) -> None:
    set_channels(settings, own, RETENTION=5)
    assert announcements.retention("orders", announced) == seconds


# ------------------------------------------------------------------ publishing without an entry


def test_a_publisher_without_an_entry_follows_what_was_announced_and_asks_once(
    settings: Any, wire: Wire, server: Server
) -> None:
    set_channels(settings, {"orders": STREAM}, service="billing")
    tell(wire)
    set_channels(settings, {})
    lookup = Lookup()
    assert lookup.transport("orders") == "stream"
    assert lookup.transport("mails") == "pubsub"
    with server.client() as client:
        client.delete(conf.redis_name("redis-events:announcements"))
    assert lookup.transport("orders") == "stream"


def test_while_the_server_cannot_be_asked_one_caller_a_second_tries(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    lookup = Lookup()
    began = time.monotonic()
    assert [lookup.transport(f"c{number}") for number in range(1_000)] == [None] * 1_000
    assert time.monotonic() - began < 1.0


# ------------------------------------------------------------------ a server that cannot say now


@pytest.fixture
def loading(settings: Any) -> Iterator[None]:
    """LOCATION is a server that reads its file after a restart: it lets everybody connect and refuses every command."""
    with Loading() as address:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{address}/0"}
        yield


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(65_536):
            self.request.sendall(b"-LOADING Redis is loading the dataset in memory\r\n")


class Loading:
    def __enter__(self) -> int:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answer)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return int(self._server.server_address[1])

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.usefixtures("loading")
def test_a_server_that_loads_its_data_is_not_taken_for_one_where_nobody_announced_anything() -> None:
    with pytest.raises(Unreachable, match="LOADING"):
        announcements.fetch(timeout=1.0)


@pytest.mark.usefixtures("loading")
def test_what_carries_a_channel_is_not_decided_for_good_while_the_server_loads_its_data() -> None:
    assert Lookup().transport("orders") is None


@pytest.mark.usefixtures("loading")
def test_nothing_is_deleted_from_the_inbox_while_the_server_loads_its_data() -> None:
    assert inbox.seconds_needed([]) is None


def test_threads_that_ask_for_a_channel_at_the_same_moment_get_the_same_answer(settings: Any, wire: Wire) -> None:
    set_channels(settings, {"orders": STREAM, "mails": STREAM}, service="billing")
    tell(wire)
    set_channels(settings, {})
    found: list[str | None] = []
    for _ in range(20):
        lookup, barrier = Lookup(), threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            names = ["orders", "mails"] * 4
            found += pool.map(lambda name, own=lookup, at=barrier: (at.wait(), own.transport(name))[1], names)
    assert set(found) <= {"stream", None}  # None: a machine so busy that the answer took 50 ms; asked again when sent
    assert found.count("stream") > 120


def test_while_the_server_is_silent_one_thread_waits_for_its_answer_and_no_other(settings: Any) -> None:
    with Server() as own:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": own.url}
        own.freeze()
        lookup, barrier = Lookup(), threading.Barrier(8)

        def asked(_: int) -> float:
            barrier.wait()
            began = time.monotonic()
            assert lookup.transport("orders") is None
            return time.monotonic() - began

        with ThreadPoolExecutor(8) as pool:
            took = sorted(pool.map(asked, range(8)))
        own.thaw()
        assert took[-1] <= 0.25 + 0.1
        assert took[-2] <= 0.05 + 0.1


def test_an_event_nobody_can_say_the_way_of_goes_no_wrong_one_and_is_told_of(settings: Any) -> None:
    """Another service's stream, first published to while the server hangs: by pub/sub it would reach nobody."""
    with Server() as own, _failures() as lost:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": own.url}
        set_channels(settings, {"orders": STREAM}, service="billing")
        publish("orders", 1, type="order.placed", strict=True)
        set_channels(settings, {})
        own.freeze()
        publish("orders", 2, type="order.placed")
        own.thaw()
        publish("orders", 3, type="order.placed")  # the server is back, and is not asked again for a second
        with pytest.raises(Unreachable, match="what carries orders"):
            publish("orders", 4, type="order.placed", strict=True)
        assert lost == ["orders", "orders"]

        def is_sent() -> bool:
            publish("orders", 5, type="order.placed")
            return entries(own) == 2

        wait_for(is_sent, what="the server to be asked again")


def test_a_stream_that_is_announced_later_is_followed_within_seconds(
    settings: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may have lost all announcements just when this process asked."""
    monkeypatch.setattr(announcements, "ASKED_AGAIN", 0.2)
    set_channels(settings, {})
    publish("orders", 1, type="order.placed", strict=True)
    set_channels(settings, {"orders": STREAM}, service="billing")
    tell(wire)
    set_channels(settings, {})
    publish("orders", 2, type="order.placed", strict=True)  # forgotten with the settings: asks at once
    assert wire.call([("XLEN", conf.redis_name("orders"))]) == [1]

    wire.call([("DEL", conf.redis_name("redis-events:announcements"))])
    set_channels(settings, {})
    publish("orders", 3, type="order.placed", strict=True)
    assert wire.call([("XLEN", conf.redis_name("orders"))]) == [1]
    wire.call([("HSET", conf.redis_name("redis-events:announcements"), "billing orders", _said_by_billing())])

    def is_followed() -> bool:
        publish("orders", 4, type="order.placed", strict=True)
        return wire.call([("XLEN", conf.redis_name("orders"))]) == [2]

    wait_for(is_followed, what="the announcement to be followed")


def test_nobody_waits_for_what_is_asked_again(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "ASKED_AGAIN", 0.0)
    with Server() as own:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": own.url}
        lookup = Lookup()
        assert lookup.transport("orders") == "pubsub"
        own.freeze()
        began = time.monotonic()
        assert [lookup.transport("orders") for _ in range(100)] == ["pubsub"] * 100
        assert time.monotonic() - began < 0.1
        own.thaw()
        wait_for(lambda: not lookup._is_looking_again, what="the thread that asks")


def _said_by_billing() -> bytes:
    return msgspec.json.encode(said("orders", "stream", service="billing"))


@contextmanager
def _failures() -> Iterator[list[str]]:
    """The channels of the events that were lost."""
    lost: list[str] = []

    def note(sender: object, batch: Sequence[Outgoing], **_: object) -> None:
        lost.extend(each.channel for each in batch)

    publish_failed.connect(note)
    yield lost
    publish_failed.disconnect(note)


def entries(server: Server) -> int:
    with server.client() as client:
        return int(client.xlen(conf.redis_name("orders")))


# ------------------------------------------------------------------ a channel for everybody


def test_channels_of_a_pub_sub_pattern_are_announced_by_it_alone(settings: Any, wire: Wire) -> None:
    """There may be one for each visitor, and every listener reads all announcements every POLL."""
    set_channels(settings, {"live.*": {"TRANSPORT": "pubsub"}, "live.news": {"TRANSPORT": "pubsub"}})
    transport = PubSubTransport(conf.LOCATION)
    transport.send([Outgoing(channel=f"live.{name}", body=b"x") for name in ("news", "visitor-1", "visitor-2")])
    transport.close()
    assert set(read(wire)) == {("shop", "live.*"), ("shop", "live.news")}


def test_what_an_outlet_remembers_of_its_channels_is_bounded(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MOST_REMEMBERED", 10)
    own = outlet.Outlet(conf.LOCATION)
    for number in range(100):
        own.exchange([Outgoing(channel=f"visitor-{number}", body=b"x")], lambda each: ("PUBLISH", each.channel, b"x"))
    own.close()
    assert len(own._announced) <= 10


@pytest.mark.parametrize("channel", ["a\x00", "a\nERROR all is lost", "a" * 300, "", "\x1b[31ma", "ä"])
@pytest.mark.parametrize("transport", ["stream", "pubsub"])
def test_a_name_no_channel_can_have_is_no_announcement(wire: Wire, channel: str, transport: str) -> None:
    """Anybody may write one: listeners of a pattern would join it, log it and store its floors, or fail to."""
    told = Announcement(service="crm", channel=channel, transport=transport, retention=60.0)
    wire.call([("HSET", conf.redis_name("redis-events:announcements"), "junk", msgspec.json.encode(told))])
    assert announcements.read(wire) == []
