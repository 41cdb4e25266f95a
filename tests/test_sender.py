"""Publishing while Redis is well, refused, frozen and black-holed: nobody but one caller a second waits."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from redis_events import posting, routing
from redis_events.exceptions import Refused, TransportError, Unreachable
from redis_events.sender import Sender
from redis_events.signals import event_published, publish_failed
from redis_events.transports.base import Outgoing
from redis_events.transports.pubsub import PubSubTransport
from tests.proxy import Proxy
from tests.servers import Server, wait_for

LIMIT = 0.25
"""Seconds a caller may wait, as PUBLISH_TIMEOUT says."""
BUSY = 0.1
"""Seconds a machine with other work may add."""


@pytest.fixture
def own(events_settings: dict[str, Any]) -> Iterator[Server]:
    with Server() as own:
        yield own


@pytest.fixture
def proxy(own: Server) -> Iterator[Proxy]:
    with Proxy(own) as proxy:
        yield proxy


@pytest.fixture
def sender(proxy: Proxy) -> Iterator[Sender]:
    sender = Sender(PubSubTransport(proxy.url))
    yield sender
    sender.transport.close()


@pytest.fixture
def arrived(own: Server, prefix: str) -> Iterator[Callable[[int], list[bytes]]]:
    """What a plain client heard on our channels, once there are so many."""
    with own.client() as client, client.pubsub() as watcher:
        watcher.psubscribe(f"{prefix}:*")
        wait_for(lambda: client.pubsub_numpat() == 1, what="the watcher")
        found: list[bytes] = []

        def hear(count: int) -> list[bytes]:
            def enough() -> bool:
                while message := watcher.get_message(timeout=0.05):
                    if message["type"] == "pmessage":
                        found.append(message["data"])
                return len(found) >= count

            wait_for(enough, what=f"{count} messages", timeout=10)
            return found

        yield hear


def one(body: bytes = b"x") -> list[Outgoing]:
    return [Outgoing(channel="c", body=body)]


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def in_threads(count: int, work: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@contextmanager
def lost() -> Iterator[list[Outgoing]]:
    """What `publish_failed` reports in this block."""
    found: list[Outgoing] = []

    def note(batch: Sequence[Outgoing], error: TransportError, **_: object) -> None:
        assert isinstance(error, TransportError)
        found.extend(batch)

    publish_failed.connect(note)
    try:
        yield found
    finally:
        publish_failed.disconnect(note)


def trouble(kind: str, own: Server, proxy: Proxy) -> None:
    if kind == "frozen":
        own.freeze()
    elif kind == "black hole":
        proxy.black_hole()
    else:
        proxy.refuse()
        proxy.cut()


def recovery(kind: str, own: Server, proxy: Proxy) -> None:
    if kind == "frozen":
        own.thaw()
    elif kind == "black hole":
        proxy.heal()
    else:
        proxy.accept()


KINDS = ["refused", "frozen", "black hole"]


def test_what_eight_threads_send_arrives_once_and_each_threads_in_order(
    sender: Sender, arrived: Callable[[int], list[bytes]]
) -> None:
    in_threads(8, lambda thread: [sender.send(one(b"%d:%d" % (thread, number))) for number in range(200)])
    heard = arrived(1600)
    assert len(set(heard)) == len(heard) == 1600
    for thread in range(8):
        mine = [int(body.split(b":")[1]) for body in heard if body.startswith(b"%d:" % thread)]
        assert mine == list(range(200))


def test_a_batch_left_with_the_holder_is_sent_by_it(
    sender: Sender, proxy: Proxy, arrived: Callable[[int], list[bytes]]
) -> None:
    """While one caller waits for a slow reply, others leave theirs and go on; nothing waits for the next publish."""
    sender.send(one(b"warm"))
    proxy.delay = 0.05
    took: list[float] = []
    in_threads(8, lambda number: took.append(timed(lambda: sender.send(one(b"%d" % number)))))
    assert set(arrived(9)) == {b"warm", *(b"%d" % number for number in range(8))}
    assert sum(seconds > 0.05 for seconds in took) <= 2, took


@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_sends_in_eight_threads_wait_once(
    kind: str, sender: Sender, own: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    sender.send(one(b"warm"))
    trouble(kind, own, proxy)
    took: list[float] = []

    def send_25(thread: int) -> None:
        for _ in range(25):
            took.append(timed(lambda: sender.send(one())))

    with lost() as reported, caplog.at_level(logging.INFO, logger="redis_events"):
        in_threads(8, send_25)
        wait_for(lambda: len(reported) == 200, what="each lost event to be signalled")
    recovery(kind, own, proxy)
    assert max(took) <= LIMIT + BUSY
    assert sum(seconds > 0.05 for seconds in took) <= 1, sorted(took)[-5:]
    assert sender.failed == 200
    assert len([record for record in caplog.records if record.name == "redis_events.publish"]) == 1


def test_what_is_left_with_a_strict_caller_that_fails_is_not_forgotten(sender: Sender, own: Server) -> None:
    """It raised past the look for what others had left: that waited for the next publish, or for ever."""
    sender.send(one(b"warm"))
    own.freeze()

    def strictly() -> None:
        with pytest.raises(Unreachable):
            sender.send(one(b"strict"), strict=True)

    with lost() as reported:
        caller = threading.Thread(target=strictly)
        caller.start()
        wait_for(sender._turn.locked, what="the strict caller to have its turn")
        sender.send(one(b"left"))
        caller.join()
        own.thaw()
        assert [outgoing.body for outgoing in reported] == [b"left"]


@pytest.mark.slow
def test_at_most_one_caller_a_second_waits(sender: Sender, own: Server, proxy: Proxy) -> None:
    """Over three seconds of trouble under steady traffic; each kind of trouble is in test_outages."""
    sender.send(one(b"warm"))
    own.freeze()
    began, waited = time.monotonic(), []

    def send_on(thread: int) -> None:
        while time.monotonic() - began < 3.0:
            moment = time.monotonic()
            if (seconds := timed(lambda: sender.send(one()))) > 0.05:
                waited.append((moment - began, seconds))
            time.sleep(0.002)  # traffic, not a wait: eight threads without it leave no processor to anybody

    in_threads(8, send_on)
    own.thaw()
    assert len(waited) <= 4, waited
    assert all(seconds <= LIMIT + BUSY for _, seconds in waited), waited


def test_the_count_of_lost_events_is_exact_under_threads(sender: Sender, proxy: Proxy) -> None:
    proxy.refuse()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with lost() as reported:
            in_threads(8, lambda thread: [sender.send(one()) for _ in range(500)])
    finally:
        sys.setswitchinterval(interval)
    assert len(reported) == 4000
    assert sender.failed == 4000


def test_each_change_of_state_is_one_line_with_the_loss_counted(
    sender: Sender, proxy: Proxy, arrived: Callable[[int], list[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    sender.send(one(b"first"))
    proxy.refuse()
    proxy.cut()
    for _ in range(50):
        sender.send(one())
    proxy.accept()
    # The next probe may be a second away; everything until then is lost and counted.
    wait_for(lambda: sender.send(one(b"again")) or not sender.failed, what="the sender to be back", timeout=3)
    assert arrived(2)[:2] == [b"first", b"again"]
    lines = [record.getMessage() for record in caplog.records if record.name == "redis_events.publish"]
    assert len(lines) == 2
    assert lines[0].startswith("cannot publish: events are lost until it works again, tried every second: ")
    assert "publishing again" in lines[1]
    assert int(lines[1].split()[2]) >= 50


def test_no_line_and_no_exception_holds_the_password(
    events_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with Server(password="hunter2") as guarded:
        wrong = Sender(PubSubTransport(guarded.url.replace("hunter2", "hunter3")))
        wrong.send(one())
        with pytest.raises(Refused) as caught:
            wrong.send(one(), strict=True)
    assert "hunter" not in caplog.text + str(caught.value)
    assert ":***@127.0.0.1" in caplog.text
    assert caplog.messages[0].endswith("user is disabled."), "the server's own words, and one full stop"


def test_strict_raises_what_went_wrong_and_sends_nothing_twice(
    sender: Sender, proxy: Proxy, arrived: Callable[[int], list[bytes]]
) -> None:
    sender.send(one(b"first"), strict=True)
    proxy.refuse()
    proxy.cut()
    for _ in range(2):
        with pytest.raises(Unreachable):
            sender.send(one(b"second"), strict=True)
    proxy.accept()
    wait_for(lambda: _sent(sender, b"third"), what="the server to be tried again", timeout=3)
    assert arrived(2) == [b"first", b"third"]


def test_strict_tells_its_caller_and_the_log_tells_of_what_others_lose(
    sender: Sender, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse()
    proxy.cut()
    with pytest.raises(Unreachable):
        sender.send(one(b"strict"), strict=True)
    assert caplog.messages == []
    for _ in range(2):
        sender.send(one(b"other"))
    (line,) = caplog.messages
    assert line.startswith("cannot publish: events are lost")
    assert sender.failed == 2


def _sent(sender: Sender, body: bytes) -> bool:
    try:
        sender.send(one(body), strict=True)
    except Unreachable:
        return False
    return True


def test_strict_gives_up_in_time_while_another_caller_hangs(sender: Sender, proxy: Proxy) -> None:
    sender.send(one(b"warm"))
    proxy.black_hole()
    hanging = threading.Thread(target=sender.send, args=(one(),))
    hanging.start()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        sender.send(one(), strict=True)
    assert time.monotonic() - began <= 2 * LIMIT + BUSY
    hanging.join()


def test_a_watcher_that_raises_stops_nobody(sender: Sender, arrived: Callable[[int], list[bytes]]) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("a watcher's own trouble")

    event_published.connect(broken)
    try:
        sender.send(one(b"a"))
        sender.send(one(b"b"))
    finally:
        event_published.disconnect(broken)
    assert arrived(2) == [b"a", b"b"]


def test_a_watcher_may_publish(sender: Sender, proxy: Proxy) -> None:
    """From inside the loss of one event: it must neither hang nor recurse."""
    proxy.refuse()
    again: list[int] = []

    def publish_once(**_: object) -> None:
        if not again:
            again.append(1)
            sender.send(one(b"from the watcher"))

    publish_failed.connect(publish_once)
    try:
        assert timed(lambda: sender.send(one())) < 1.0
    finally:
        publish_failed.disconnect(publish_once)
    wait_for(lambda: sender.failed == 2, what="both to be counted")


def test_a_servers_refusal_of_one_channel_is_told_and_the_others_in_the_batch_arrive(
    events_settings: dict[str, Any], prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Server() as own, own.client() as client, client.pubsub() as watcher:
        rules = {"enabled": True, "nopass": True, "channels": [f"{prefix}:mine"], "commands": ["+@all"]}
        client.acl_setuser("narrow", **rules)
        watcher.subscribe(f"{prefix}:mine")
        wait_for(lambda: client.pubsub_numsub(f"{prefix}:mine")[0][1] == 1, what="the watcher")
        narrow = Sender(PubSubTransport(f"redis://narrow:any@127.0.0.1:{own.port}/0"))
        with lost() as reported:
            narrow.send([Outgoing(channel=name, body=b"x") for name in ("theirs", "mine")])
        message = wait_for(
            lambda: (found := watcher.get_message(timeout=0.1)) and found["type"] == "message" and found,
            what="the allowed one",
        )
        assert message["data"] == b"x"
        assert [outgoing.channel for outgoing in reported][:1] == ["theirs"]
    assert caplog.messages[0].startswith("cannot publish to theirs, whose events are lost: ")


@pytest.mark.parametrize(
    ("room", "ask"), [(routing, lambda: routing.sender_for("orders")), (posting, lambda: posting.poster_for("default"))]
)
def test_threads_that_publish_first_at_the_same_moment_have_one_way_out(
    room: ModuleType, ask: Callable[[], object], events_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would wait for a server that is away."""
    all_are_in, create = threading.Barrier(4), room.create

    def slowly(name: str) -> Any:
        all_are_in.wait(5)
        return create(name)

    monkeypatch.setattr(room, "create", slowly)
    room.reset()
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(lambda _: ask(), range(4)))) == 1
