"""The proxy that other tests believe: each thing it counts or does is seen from both ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.proxy import Proxy
from tests.resp import FrameSplitter
from tests.servers import Server, wait_for


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    with _client(proxy) as client:
        client.ping()
        proxy.reset()
        yield client


def _client(proxy: Proxy, **options: object) -> redis.Redis:
    return redis.Redis.from_url(proxy.url, protocol=2, retry=Retry(NoBackoff(), 0), **options)


def test_each_command_that_waits_for_its_reply_is_one_write(client: redis.Redis, proxy: Proxy) -> None:
    client.echo("first")
    client.echo("second")
    assert proxy.writes == 2
    assert b"second" in proxy.payloads[1]
    assert proxy.bytes == sum(map(len, proxy.payloads)) > 40


def test_a_gathered_pipeline_of_a_megabyte_is_one_write(client: redis.Redis, proxy: Proxy) -> None:
    proxy.gather = 0.05
    pipeline = client.pipeline(transaction=False)
    for _ in range(1000):
        pipeline.echo("x" * 1000)
    pipeline.execute()
    assert proxy.writes == 1
    assert proxy.bytes > 1_000_000


def test_gathering_still_tells_commands_that_wait_apart(client: redis.Redis, proxy: Proxy) -> None:
    proxy.gather = 0.02
    for _ in range(3):
        client.ping()
    assert proxy.writes == 3


def test_cutting_ends_open_connections_and_lets_new_ones_in(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as raw:
        wait_for(lambda: proxy.connections == 1, what="the connection to be taken")
        proxy.cut()
        assert raw.recv(1) == b""
        assert proxy.connections == 0
    with _client(proxy) as client:
        assert client.ping()


def test_a_reset_is_a_reset(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as raw:
        wait_for(lambda: proxy.connections == 1, what="the connection to be taken")
        proxy.cut(reset=True)
        with pytest.raises(ConnectionResetError):
            raw.recv(1)


def test_refused_connections_are_refused_until_accepted_again(client: redis.Redis, proxy: Proxy) -> None:
    proxy.refuse()
    assert client.ping(), "an open connection goes on"
    with _client(proxy) as late, pytest.raises(redis.ConnectionError, match="refused"):
        late.ping()
    proxy.accept()
    with _client(proxy) as late:
        assert late.ping()


def test_a_delay_is_added_in_both_directions(client: redis.Redis, proxy: Proxy) -> None:
    proxy.delay = 0.05
    started = time.monotonic()
    client.ping()
    assert time.monotonic() - started >= 0.1


def test_nothing_passes_a_black_hole_until_it_heals(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(64) == b"+PONG\r\n"
        proxy.black_hole()
        raw.sendall(b"ECHO held\r\n")
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(64)
        proxy.heal()
        raw.settimeout(10)
        assert raw.recv(64) == b"$4\r\nheld\r\n"


def test_one_byte_slices_arrive_as_what_was_sent(client: redis.Redis, proxy: Proxy) -> None:
    proxy.sliced = True
    assert client.echo("a sentence in slices") == b"a sentence in slices"


def test_a_dropped_reply_means_the_command_ran_and_nobody_knows(client: redis.Redis, proxy: Proxy) -> None:
    client.delete("proxy:counter")
    proxy.drop_reply(2)
    assert client.incr("proxy:counter") == 1
    assert not proxy.has_dropped
    with pytest.raises(redis.ConnectionError):
        client.incr("proxy:counter")
    assert proxy.has_dropped
    assert client.get("proxy:counter") == b"2"


def test_a_reply_dropped_inside_a_pipeline_leaves_those_before_it(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as raw:
        proxy.drop_reply(2)
        raw.sendall(b"ECHO first\r\nECHO second\r\nECHO third\r\n")
        assert b"".join(iter(lambda: raw.recv(1024), b"")) == b"$5\r\nfirst\r\n"


def test_a_server_that_is_down_closes_what_comes_through() -> None:
    with Server() as own, Proxy(own) as proxy:
        own.kill()
        with _client(proxy) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        own.start()
        with _client(proxy) as client:
            assert client.ping()


FRAMES = [
    b"+OK\r\n", b":1\r\n", b"-ERR no\r\n", b"$5\r\n\r\n\r\n!\r\n", b"$0\r\n\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n",
    b"*2\r\n*1\r\n$1\r\na\r\n:2\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"%1\r\n+key\r\n*1\r\n:1\r\n", b"~1\r\n+a\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n", b"=7\r\ntxt:abc\r\n", b"!5\r\nERR x\r\n",
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_are_found_however_the_bytes_are_cut(size: int) -> None:
    data, splitter, found = b"".join(FRAMES), FrameSplitter(), []
    for start in range(0, len(data), size):
        found += splitter.feed(data[start : start + size])
    assert found == FRAMES
