"""Connections: bounded waits, no retries behind our back, no probes, errors that can be shown."""

from __future__ import annotations

import http.server
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import pytest

from redis_events.exceptions import Refused, TransportError, Unreachable
from redis_events.transports.client import ErrorReply, Waiter, Wire, milliseconds, refused, seconds_of, server_name
from tests.processes import open_descriptors
from tests.proxy import Proxy
from tests.servers import Server, black_hole, free_port, wait_for

PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server with a password."""
    with Server(password=PASSWORD) as server:
        yield server


@pytest.fixture
def proxy(guarded: Server) -> Iterator[Proxy]:
    with Proxy(guarded, gather=0.02) as proxy:
        yield proxy


def connect(location: str, timeout: float = 1.0) -> Wire:
    return Wire(location, timeout=timeout)


def test_a_wire_says_nothing_but_its_login_and_its_commands(proxy: Proxy) -> None:
    wire = connect(proxy.url.replace("/0", "/3"))
    assert wire.call([("PING",)]) == [b"PONG"]
    wire.close()
    said = re.findall(rb"\r\n([A-Z]+)\r\n", b"".join(proxy.payloads))
    assert said == [b"AUTH", b"SELECT", b"PING"]


def test_a_server_counts_no_error_of_ours(server: Server) -> None:
    with server.client() as client:
        before = client.info("stats")["total_error_replies"]
        wire = connect(server.url)
        wire.call([("PING",)])
        wire.close()
        assert client.info("stats")["total_error_replies"] == before


def test_resp3_in_the_url_changes_nothing(server: Server) -> None:
    wire = connect(f"redis://127.0.0.1:{server.port}/0?protocol=3")
    assert wire.call([("CONFIG", "GET", "port")]) == [[b"port", str(server.port).encode()]]
    wire.close()


def test_a_unix_socket_is_a_location(guarded: Server) -> None:
    wire = connect(guarded.unix_url)
    assert wire.call([("PING",)]) == [b"PONG"]
    wire.close()


def test_an_error_reply_is_returned_in_its_place(server: Server) -> None:
    wire = connect(server.url)
    first, second, third = wire.call([("PING",), ("NONSENSE",), ("ECHO", b"\x00\xff")])
    assert (first, third) == (b"PONG", b"\x00\xff")
    assert isinstance(second, ErrorReply)
    assert second.code == "ERR"
    wire.close()


@pytest.mark.parametrize(
    ("login", "reason"),
    [(f":{PASSWORD}x@", "invalid"), ("nobody:guess@", "invalid"), ("", "NOAUTH")],
    ids=["wrong password", "unknown user", "no password"],
)
def test_a_login_that_fails_is_refused_in_the_servers_words(guarded: Server, login: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as caught:
        log_in_and_ping(f"redis://{login}127.0.0.1:{guarded.port}/0")
    assert not re.search(r"hunter2|guess", str(caught.value))


def log_in_and_ping(location: str) -> None:
    """What every transport does with an error reply."""
    wire = connect(location)
    reply = wire.call([("PING",)])[0]
    wire.close()
    raise refused(location, str(reply))


@pytest.mark.parametrize("scheme", ["redis", "unix"])
def test_a_dead_server_is_unreachable_and_says_why(scheme: str, tmp_path: Path) -> None:
    where = f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0" if scheme == "redis" else f"unix://{tmp_path}/no-socket"
    with pytest.raises(Unreachable, match=r"refused|no such file") as caught:
        connect(where)
    assert PASSWORD not in str(caught.value)


def test_a_password_in_the_query_is_not_shown_either() -> None:
    with pytest.raises(Unreachable) as caught:
        connect(f"redis://127.0.0.1:{free_port()}/0?password={PASSWORD}")
    assert PASSWORD not in str(caught.value)


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        connect("redis://no-such-host.invalid:6379/0")


@pytest.mark.parametrize("full", [False, True], ids=["takes connections", "takes none"])
def test_a_black_hole_costs_no_more_than_the_timeout(full: bool) -> None:
    with black_hole(full=full) as port:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            connect(f"redis://:{PASSWORD}@127.0.0.1:{port}/3", timeout=0.2).call([("PING",)])
        assert time.monotonic() - began < 0.35


def test_what_the_caller_has_waited_already_counts(guarded: Server, proxy: Proxy) -> None:
    wire = connect(proxy.url, timeout=0.3)
    proxy.black_hole()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no answer in time"):
        wire.call([("PING",)], since=began - 0.25)
    assert time.monotonic() - began < 0.2
    wire.close()


def test_a_call_that_gets_no_answer_ends_in_time(guarded: Server, proxy: Proxy) -> None:
    wire = connect(proxy.url, timeout=0.2)
    proxy.black_hole()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no answer in time"):
        wire.call([("PING",)])
    assert 0.15 < time.monotonic() - began < 0.35
    wire.close()


@contextmanager
def dripping(pause: float) -> Iterator[int]:
    """A port of 127.0.0.1 where the answer to anything comes byte by byte, so many seconds apart, and never ends."""
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", free_port())) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.recv(1024)
                client.sendall(b"$1000000\r\n")
                while not is_over.wait(pause):
                    client.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            is_over.set()
            thread.join(5)


@pytest.mark.parametrize("pause", [0.0001, 0.05])
@pytest.mark.parametrize("database", [0, 3], ids=["a call", "logging in"])
def test_an_answer_that_drips_ends_in_time(database: int, pause: float) -> None:
    """Each byte got another millisecond of a call, and another half of the timeout while logging in: for ever."""
    with dripping(pause) as port:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            connect(f"redis://127.0.0.1:{port}/{database}", timeout=0.3).call([("PING",)])
        assert time.monotonic() - began < 0.4


def test_bytes_nobody_reads_end_in_time() -> None:
    """A frozen peer with full buffers: writing is what hangs."""
    with black_hole() as port:
        wire = connect(f"redis://127.0.0.1:{port}/0", timeout=0.2)
        more_than_buffers_hold = b"x" * 16_000_000
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            wire.write([("ECHO", more_than_buffers_hold)])
        assert time.monotonic() - began < 1.0
        wire.close()


def test_what_the_caller_has_waited_already_counts_when_writing_hangs_too() -> None:
    with black_hole() as port:
        wire = connect(f"redis://127.0.0.1:{port}/0", timeout=0.5)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            wire.call([("ECHO", b"x" * 16_000_000)], since=began - 0.4)
        assert time.monotonic() - began < 0.4
        wire.close()


def test_a_lost_reply_is_never_asked_for_again(guarded: Server, proxy: Proxy) -> None:
    """redis-py 8 repeats every command ten times, in silence."""
    wire = connect(proxy.url)
    proxy.drop_reply()
    with pytest.raises(Unreachable):
        wire.call([("INCR", "client:tries")])
    wire.close()
    with guarded.client() as client:
        assert client.get("client:tries") == b"1"


def test_a_connection_the_server_closed_is_known_to_be_stale(guarded: Server, proxy: Proxy) -> None:
    wire = connect(proxy.url)
    assert not wire.is_readable
    proxy.cut()
    wait_for(lambda: wire.is_readable, what="the end of the connection to be seen")
    wire.close()


@pytest.mark.parametrize("answer", ["LOADING Redis is loading", "READONLY You can't write", "MASTERDOWN Link"])
def test_what_passes_by_itself_is_worth_waiting_for(answer: str) -> None:
    assert isinstance(refused("redis://h", answer), Unreachable)


@pytest.mark.parametrize("answer", ["NOPERM this user", "WRONGTYPE Operation", "OOM command not allowed"])
def test_what_does_not_is_refused(answer: str) -> None:
    assert isinstance(refused("redis://h", answer), Refused)


def test_something_that_is_no_redis_is_a_clear_error() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        wire = connect(f"redis://127.0.0.1:{web.server_port}/0")
        with pytest.raises(TransportError, match=r"redis://127\.0\.0\.1:\d+/0: what answers there is no Redis"):
            wire.call([("PING",)])
        wire.close()
        web.shutdown()


def test_the_clock_of_a_server_is_read_to_the_microsecond_and_nobody_guesses_it(server: Server) -> None:
    assert seconds_of([b"1700000000", b"000250"]) == 1_700_000_000.00025
    assert (seconds_of(None), seconds_of(ErrorReply("NOPERM"))) == (None, None)
    for ms in range(1_000):
        assert milliseconds(seconds_of([b"1700000000", b"%d" % (ms * 1_000)]) or 0.0) == 1_700_000_000_000 + ms
    wire = Wire(server.url, timeout=1.0)
    assert seconds_of(wire.call([("TIME",)])[0]) == pytest.approx(time.time(), abs=5)
    wire.close()


def test_the_server_is_called_by_its_name(server: Server, redis7: Server) -> None:
    assert re.fullmatch(r"(Valkey|Redis) \d+\.\d+\.\d+", server_name(server.url))
    assert server_name(redis7.url).startswith("Redis 7")


def test_a_server_that_will_not_say_has_no_name() -> None:
    with Server() as own, own.client() as client:
        client.acl_setuser("quiet", enabled=True, nopass=True, commands=["+ping"])
        assert server_name(f"redis://quiet:any@127.0.0.1:{own.port}/0") == ""


def test_a_waiter_is_woken_from_another_thread_and_before_it_waits() -> None:
    waiter = Waiter()
    waiter.wake()
    began = time.monotonic()
    assert waiter.wait(5.0) == ([], True)
    assert time.monotonic() - began < 1.0
    assert waiter.wait(0.0) == ([], False)
    waiter.close()


def test_a_thousand_wakes_never_block() -> None:
    waiter = Waiter()
    for _ in range(100_000):
        waiter.wake()
    assert waiter.wait(1.0)[1]
    waiter.close()


def test_a_late_wake_writes_to_nothing_that_was_opened_after_the_close() -> None:
    """Descriptors are numbers, and the next to open something gets the lowest free one."""
    waiter = Waiter()
    waiter.close()
    pairs = [socket.socketpair() for _ in range(5)]
    waiter.wake()
    ready, _, _ = select.select(list(chain.from_iterable(pairs)), [], [], 0)
    for end in chain.from_iterable(pairs):
        end.close()
    assert ready == []


def test_a_waiter_nobody_holds_gives_its_descriptors_back() -> None:
    before = open_descriptors()
    for _ in range(20):
        Waiter().close()
    assert open_descriptors() == before
