"""Each transport on the contract, and what only a real server can show of pub/sub."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from redis_events.exceptions import Refused, Unreachable
from redis_events.testing import TransportContract
from redis_events.transports.base import Delivery, Outgoing, Subscription, Transport
from redis_events.transports.memory import MemoryTransport
from redis_events.transports.pubsub import MOST_PATTERNS, QUIET, PubSubTransport
from tests.processes import ROOT, Process, open_descriptors
from tests.proxy import Proxy
from tests.servers import Server, wait_for

RUN = {"TestMemory": "16 of 16", "TestPubSub": "16 of 16", "TestStream": "16 of 16"}
"""What is executed of the contract by transport: no test is lost unseen when the suite or a transport changes."""

LAME = """
import pytest
from tests.test_transports import TestMemory as Memory

class TestLame(Memory):
    test_wake_ends_a_wait = pytest.mark.skip(Memory.test_wake_ends_a_wait)
    test_order_is_kept_over_many_batches = None
    def test_of_its_own(self): pass
"""


class TestMemory(TransportContract):
    silence = 0.02

    def make(self) -> Transport:
        return MemoryTransport("memory://contract")


class TestPubSub(TransportContract):
    silence = 0.1

    @pytest.fixture(autouse=True)
    def _location(self, events_settings: dict[str, Any]) -> None:
        self.location = events_settings["LOCATION"]

    def make(self) -> Transport:
        return PubSubTransport(self.location)


@pytest.mark.slow
def test_every_transport_runs_the_whole_contract_and_the_run_says_so() -> None:
    output = run("-k", " or ".join(RUN), "tests/test_transports.py", "tests/test_stream.py")
    assert executed(output) == {suite: f"{number} executed, 0 skipped" for suite, number in RUN.items()}, output


def test_what_a_transport_leaves_out_of_the_contract_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_lame.py").write_text(LAME)
    output = run("-k", "TestLame", str(tmp_path / "test_lame.py"))
    assert executed(output) == {"TestLame": "14 of 16 executed, 1 skipped"}, output


def run(*arguments: str) -> str:
    """The output of a pytest of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", *arguments]
    process = Process(command, cwd=ROOT, env={**os.environ, "PYTEST_ADDOPTS": ""})
    assert process.wait(120) == 0, process.output
    return process.output


def executed(output: str) -> dict[str, str]:
    return dict(re.findall(r"^Transport contract, (\w+): (.*)$", output, re.MULTILINE))


# ------------------------------------------------------------------ pub/sub


@contextmanager
def subscribed(location: str, *channels: str) -> Iterator[PubSubTransport]:
    transport = PubSubTransport(location)
    try:
        transport.subscribe([Subscription(channel=channel) for channel in channels])
        yield transport
    finally:
        transport.close()


@pytest.fixture
def sender(events_settings: dict[str, Any]) -> Iterator[PubSubTransport]:
    transport = PubSubTransport(events_settings["LOCATION"])
    yield transport
    transport.close()


def send(transport: Transport, channel: str, *bodies: bytes) -> None:
    transport.send([Outgoing(channel=channel, body=body) for body in bodies])


def receive(transport: Transport, count: int, *, timeout: float = 5.0) -> list[Delivery]:
    found: list[Delivery] = []
    deadline = time.monotonic() + timeout
    while len(found) < count and time.monotonic() < deadline:
        found += transport.receive(limit=100, timeout=0.05)
    assert len(found) == count
    return found


def test_a_batch_over_several_channels_is_one_write(proxy: Proxy, sender: PubSubTransport) -> None:
    transport = PubSubTransport(proxy.url)
    send(transport, "warm", b"x")
    proxy.reset()
    transport.send([Outgoing(channel=f"c{number % 3}", body=b"x" * 500) for number in range(1000)])
    assert proxy.writes == 1
    transport.close()


@pytest.fixture
def proxy(server: Server, events_settings: dict[str, Any]) -> Iterator[Proxy]:
    with Proxy(server, gather=0.02) as proxy:
        yield proxy


def test_the_name_on_the_server_carries_the_prefix(server: Server, sender: PubSubTransport, prefix: str) -> None:
    with server.client() as client, client.pubsub() as watcher:
        watcher.subscribe(f"{prefix}:orders")
        wait_for(lambda: (watcher.get_message(timeout=1) or {}).get("type") == "subscribe", what="the subscription")
        send(sender, "orders", b"x")
        message = wait_for(lambda: watcher.get_message(timeout=1), what="the message")
    assert (message["channel"], message["data"]) == (f"{prefix}:orders".encode(), b"x")


def test_subscribe_returns_when_the_server_knows_every_name(
    server: Server, events_settings: dict[str, Any], prefix: str
) -> None:
    names = [f"c.{number}" for number in range(1200)]
    with subscribed(events_settings["LOCATION"], *names, "p.*", "q.*"), server.client() as client:
        known = dict(client.pubsub_numsub(*(f"{prefix}:{name}" for name in names)))
        assert set(known.values()) == {1}


def test_what_is_published_while_subscribing_is_not_lost(
    server: Server, proxy: Proxy, sender: PubSubTransport, prefix: str
) -> None:
    """The first names are live long before the last is confirmed."""
    proxy.gather, proxy.delay = 0.0, 0.05  # so slow that the names reach the server in several parts
    names, was_early = [f"c.{number}" for number in range(3000)], []

    def publish_meanwhile() -> None:
        with server.client() as client:

            def is_live(name: str) -> bool:
                return bool(dict(client.pubsub_numsub(f"{prefix}:{name}"))[f"{prefix}:{name}".encode()])

            wait_for(lambda: is_live(names[0]), what="the first name")
            send(sender, names[0], b"x")
            was_early.append(not is_live(names[-1]))

    thread = threading.Thread(target=publish_meanwhile)
    thread.start()
    with subscribed(proxy.url, *names) as transport:
        thread.join()
        assert was_early == [True], "it was published after the subscription: the test shows nothing"
        assert receive(transport, 1)[0].body == b"x"


@pytest.mark.parametrize(
    "names",
    [("a.*", "a.b"), ("a.b", "a.*"), ("a.*", "a.b*", "*.b"), ("*", "a.*")],
    ids=" ".join,
)
def test_overlapping_subscriptions_bring_one_copy_whatever_their_order(
    names: tuple[str, ...], events_settings: dict[str, Any], sender: PubSubTransport
) -> None:
    with subscribed(events_settings["LOCATION"], *names) as transport:
        for number in range(3):
            send(sender, "a.b", str(number).encode())
        send(sender, "a.end", b"end") if "a.*" in names else send(sender, "a.b", b"end")
        bodies = [delivery.body for delivery in receive(transport, 4)]
        assert bodies == [b"0", b"1", b"2", b"end"]
        assert transport.receive(limit=10, timeout=0.05) == []


def test_a_pattern_hears_no_other_prefix(
    events_settings: dict[str, Any], server: Server, sender: PubSubTransport
) -> None:
    with subscribed(events_settings["LOCATION"], "*") as transport, server.client() as client:
        client.publish("somebody-elses", b"x")
        send(sender, "ours", b"y")
        assert [delivery.channel for delivery in receive(transport, 1)] == ["ours"]


def test_too_many_patterns_are_refused_before_the_server_hears_of_them(
    events_settings: dict[str, Any], server: Server, prefix: str
) -> None:
    patterns = [f"{number}.*" for number in range(MOST_PATTERNS + 1)]
    with pytest.raises(Refused, match="257 patterns"), subscribed(events_settings["LOCATION"], *patterns):
        pass
    with subscribed(events_settings["LOCATION"], *patterns[1:]), server.client() as client:
        assert client.pubsub_numpat() >= MOST_PATTERNS


def test_a_channel_name_that_is_not_utf8_does_not_stop_the_others(
    events_settings: dict[str, Any], server: Server, prefix: str
) -> None:
    with subscribed(events_settings["LOCATION"], "live.*") as transport, server.client() as client:
        client.publish(f"{prefix}:live.".encode() + b"\xff\x00\n", b"odd")
        client.publish(f"{prefix}:live.good", b"even")
        odd, even = receive(transport, 2)
    assert (odd.channel, even.channel) == ("live.\\xff\x00\n", "live.good")


def test_nothing_that_arrived_is_lost_when_the_connection_breaks_behind_it(events_settings: dict[str, Any]) -> None:
    with Server() as own, own.client() as client, subscribed(own.url, "c") as transport:
        name = f"{events_settings['PREFIX']}:c"
        for number in range(250):
            client.publish(name, str(number))
        client.ping()  # by its answer the server has written to everybody
        own.kill()
        got: list[int] = []
        with suppress(Unreachable):
            while True:
                got += [int(delivery.body) for delivery in transport.receive(limit=100, timeout=1.0)]
        assert got == list(range(250))


@pytest.mark.slow
@pytest.mark.parametrize("silence", ["frozen", "black hole"])
def test_a_silent_connection_is_given_up_within_two_quiets(silence: str, events_settings: dict[str, Any]) -> None:
    with Server() as own, Proxy(own) as proxy, subscribed(proxy.url, "c") as transport:
        break_off: Callable[[], None] = own.freeze if silence == "frozen" else proxy.black_hole
        break_off()
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no PONG"):
            receive(transport, 1, timeout=3 * QUIET)
        assert QUIET < time.monotonic() - began < 2 * QUIET + 0.5


@pytest.mark.slow
def test_an_idle_connection_that_lives_is_kept(events_settings: dict[str, Any], server: Server) -> None:
    with Proxy(server) as proxy, subscribed(proxy.url, "c") as transport:
        proxy.reset()
        assert transport.receive(limit=10, timeout=2.5 * QUIET) == []
        assert 1 <= proxy.writes <= 2, "a PING every quiet while, not more"
        assert proxy.connections == 1


@pytest.mark.slow
def test_a_server_that_forbids_ping_is_alive_all_the_same(events_settings: dict[str, Any]) -> None:
    """Strict ACLs answer NOPERM: that is an answer too."""
    with Server() as own, own.client() as client:
        client.acl_setuser("strict", enabled=True, nopass=True, channels=["*"], commands=["+subscribe", "+psubscribe"])
        location = f"redis://strict:any@127.0.0.1:{own.port}/0"
        with subscribed(location, "c") as transport:
            assert transport.receive(limit=10, timeout=1.5 * QUIET) == []
            client.publish(f"{events_settings['PREFIX']}:c", b"x")
            receive(transport, 1)


def test_a_forbidden_channel_is_refused_in_the_servers_words(events_settings: dict[str, Any]) -> None:
    with Server() as own, own.client() as client:
        client.acl_setuser("narrow", enabled=True, nopass=True, channels=["mine"], commands=["+@all"])
        location = f"redis://narrow:hunter2@127.0.0.1:{own.port}/0"
        with pytest.raises(Refused, match="NOPERM") as caught, subscribed(location, "theirs"):
            pass
        with pytest.raises(Refused, match="NOPERM"):
            send(PubSubTransport(location), "theirs", b"x")
    assert "hunter2" not in str(caught.value)


def test_a_sender_sees_a_server_that_restarted_and_reconnects(events_settings: dict[str, Any]) -> None:
    """No event goes down a connection that is already known to be closed."""
    with Server() as own:
        transport = PubSubTransport(own.url)
        send(transport, "c", b"x")
        own.kill()
        own.start()
        with subscribed(own.url, "c") as subscriber:
            send(transport, "c", b"y")
            assert receive(subscriber, 1)[0].body == b"y"
        transport.close()


def test_a_lost_reply_is_not_sent_a_second_time(events_settings: dict[str, Any], server: Server) -> None:
    with Proxy(server) as proxy, subscribed(server.url, "c") as subscriber:
        transport = PubSubTransport(proxy.url)
        send(transport, "c", b"first")
        proxy.drop_reply()
        with pytest.raises(Unreachable):
            send(transport, "c", b"second")
        send(transport, "c", b"third")
        assert [delivery.body for delivery in receive(subscriber, 3)] == [b"first", b"second", b"third"]
        assert subscriber.receive(limit=10, timeout=0.05) == []
        transport.close()


def test_a_slow_network_cannot_stretch_the_timeout(events_settings: dict[str, Any]) -> None:
    """Logging in and publishing, each within its own limit, are too much together."""
    with Server(password="s3cret") as own, Proxy(own) as proxy:
        proxy.delay = 0.05
        transport = PubSubTransport(proxy.url.replace("/0", "/3"))
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            send(transport, "c", b"x")
        assert time.monotonic() - began < 0.25
        transport.close()


def test_replies_in_slices_of_one_byte_are_whole_events(events_settings: dict[str, Any], server: Server) -> None:
    with Proxy(server) as proxy:
        proxy.sliced = True
        with subscribed(proxy.url, "c", "d.*") as transport:
            sender = PubSubTransport(proxy.url)
            sender.send([Outgoing(channel="c", body=b"a\r\n" * 50), Outgoing(channel="d.e", body=b"$1\r\n")])
            assert [delivery.body for delivery in receive(transport, 2)] == [b"a\r\n" * 50, b"$1\r\n"]
            sender.close()


def test_a_closed_transport_holds_no_descriptor(events_settings: dict[str, Any]) -> None:
    with subscribed(events_settings["LOCATION"], "c"):
        pass
    before = open_descriptors()
    for _ in range(20):
        with subscribed(events_settings["LOCATION"], "c") as transport:
            transport.subscribe([Subscription(channel="d")])
    assert open_descriptors() <= before


def test_waking_a_closed_transport_does_nothing(events_settings: dict[str, Any]) -> None:
    transport = PubSubTransport(events_settings["LOCATION"])
    transport.wake()
    transport.subscribe([Subscription(channel="c")])
    transport.close()
    transport.wake()
