"""`subscribe`: watching channels from scripts and from web processes."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from redis_events import publish, subscribe
from redis_events.conf import conf
from redis_events.exceptions import Refused, Unreachable
from redis_events.transports import watching
from tests.processes import ROOT, open_descriptors
from tests.servers import Server, free_port, wait_for

pytestmark = pytest.mark.usefixtures("events_settings")


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


def say(client: redis.Redis, prefix: str, channel: str, *bodies: object) -> None:
    for body in bodies:
        client.publish(f"{prefix}:{channel}", body)


def test_a_script_hears_what_was_published_from_the_first_line_of_the_block_on() -> None:
    with subscribe("channel", timeout=0.3) as events:
        publish("channel", "Hello, World!!!")
        publish("channel", {"id": 7}, type="shop.order.noted", key=7)
        heard = [(event.data, event.type, event.key, event.channel) for event in events]
    assert heard == [("Hello, World!!!", "", "", "channel"), ({"id": 7}, "shop.order.noted", "7", "channel")]


def test_channels_and_patterns_can_be_watched_together(client: redis.Redis, prefix: str) -> None:
    with subscribe("a", "live.*", timeout=0.2) as events:
        for channel in ("a", "live.x", "b", "live."):
            say(client, prefix, channel, channel)
        assert [event.data for event in events] == ["a", "live.x", "live."]


def test_iteration_ends_when_nothing_came_for_the_timeout(client: redis.Redis, prefix: str) -> None:
    with subscribe("channel", timeout=0.3) as events:
        began = time.monotonic()
        assert list(events) == []
        assert 0.25 < time.monotonic() - began < 0.8


def test_the_timeout_begins_again_with_each_event(client: redis.Redis, prefix: str) -> None:
    with subscribe("channel", timeout=0.4) as events:
        publish("channel", 0)
        heard = []
        for event in events:
            heard.append(event.data)
            if event.data < 3:
                threading.Timer(0.2, publish, ("channel", event.data + 1)).start()
    assert heard == [0, 1, 2, 3]


def test_what_is_no_event_is_logged_and_left_out(
    client: redis.Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    junk = [b"\xff", b"[" * 1000, b'{"specversion":"1.0"}', b'{"specversion":"1.0","id":"1\\u0000","source":"s"}']
    late = b'{"specversion":"1.0","id":"1","source":"s","type":"t","time":"0001-01-01T00:00:00"}'
    with subscribe("channel", timeout=0.2) as events, caplog.at_level(logging.WARNING):
        say(client, prefix, "channel", *junk, late, "good")
        assert [event.data for event in events] == ["good"]
    assert len(caplog.records) == len(junk) + 1


def test_a_dead_server_a_wrong_password_and_a_forbidden_channel_are_clear_errors(settings: Any) -> None:
    with Server(password="hunter2") as guarded, guarded.client() as client:
        client.acl_setuser("narrow", enabled=True, nopass=True, channels=["mine"], commands=["+@all"])
        cases = {
            f"redis://:hunter3@127.0.0.1:{free_port()}/0": Unreachable,
            guarded.url.replace("hunter2", "hunter3"): Refused,
            f"redis://127.0.0.1:{guarded.port}/0": Refused,
            f"redis://narrow:hunter4@127.0.0.1:{guarded.port}/0": Refused,
        }
        for location, expected in cases.items():
            settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": location}
            with pytest.raises(expected) as caught, subscribe("channel"):
                pass
            assert "hunter" not in str(caught.value)


def test_a_refused_subscription_leaves_no_descriptor_behind(settings: Any) -> None:
    with Server(password="s3cret") as guarded:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{guarded.port}/0"}
        refuse_twenty_times()
        before = open_descriptors()
        refuse_twenty_times()
        assert open_descriptors() <= before


def refuse_twenty_times() -> None:
    for _ in range(20):
        with pytest.raises(Refused), subscribe("channel"):
            pass


def test_a_lost_connection_is_raised_from_the_loop(settings: Any) -> None:
    with Server() as own:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": own.url}
        with subscribe("channel", timeout=5) as events:
            own.kill()
            with pytest.raises(Unreachable):
                list(events)


SCRIPT = """
import sys
from django.conf import settings

settings.configure(REDIS_EVENTS={"LOCATION": sys.argv[1], "PREFIX": sys.argv[2]})

from redis_events import publish, subscribe

with subscribe("channel", timeout=5) as events:
    publish("channel", "Hello, World!!!")
    print(next(iter(events)).data)
"""


def test_a_bare_script_watches_and_publishes_without_installed_apps(redis_location: str, prefix: str) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, redis_location, prefix]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("Hello, World!!!\n", "")


# ------------------------------------------------------------------ streams


@pytest.fixture
def on_streams(settings: Any) -> None:
    """`orders*` are streams, all but `orders.live`."""
    channels = {"orders*": {"TRANSPORT": "stream"}, "orders.live": {}}
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": channels}


@pytest.mark.usefixtures("on_streams")
def test_of_a_stream_it_sees_what_is_added_from_then_on_and_settles_nothing(client: redis.Redis, prefix: str) -> None:
    key = f"{prefix}:orders"
    publish("orders", "before")
    client.xgroup_create(key, "shop", "0")
    with subscribe("orders", timeout=0.5) as events:
        publish("orders", {"id": 7}, type="shop.order.noted", key=7)
        publish("orders", "plain")
        heard = [(event.data, event.type, event.channel, event.id) for event in events]
    last = client.xrevrange(key, count=1)[0][0].decode()
    assert [each[:3] for each in heard] == [({"id": 7}, "shop.order.noted", "orders"), ("plain", "", "orders")]
    assert heard[1][3] == f"orders/{last}"
    (group,) = client.xinfo_groups(key)
    assert (group["consumers"], group["pending"], group["last-delivered-id"]) == (0, 0, b"0-0")


@pytest.mark.usefixtures("on_streams")
def test_a_stream_that_does_not_exist_yet_is_seen_from_its_first_event_on(client: redis.Redis, prefix: str) -> None:
    with subscribe("orders.new", timeout=3) as events:
        publish("orders.new", 1)
        assert next(iter(events)).data == 1
    assert client.exists(f"{prefix}:orders.new")


@pytest.mark.usefixtures("on_streams")
def test_a_pattern_covers_streams_and_pub_sub_channels_alike_once_they_are_announced(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "POLL": 0.1}
    publish("orders.old", "before")  # announces the channel, whose name is nowhere in CHANNELS
    with subscribe("orders*", timeout=3) as events:
        publish("orders.old", "old")
        publish("orders.live", "live")
        publish("orders.new", "new")
        assert sorted(event.data for event in events) == ["live", "new", "old"]


@pytest.mark.usefixtures("on_streams")
def test_a_channel_that_begins_in_the_millisecond_of_subscribing_is_watched_from_its_first_event(
    settings: Any, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "POLL": 0.1}
    publish("orders.old", "before")
    monkeypatch.setattr(watching, "seconds_of", lambda answer: 1_700_000_000.346)
    with subscribe("orders*", timeout=3) as events:
        client.xadd(conf.redis_name("orders.new"), {"data": "new"}, id="1700000000346-0")
        publish("orders.new", "newer")
        assert [event.data for event in events] == ["new", "newer"]


def test_a_service_that_only_watches_follows_what_was_announced(settings: Any, redis_location: str) -> None:
    publishing = {**settings.REDIS_EVENTS, "CHANNELS": {"crm.news": {"TRANSPORT": "stream"}}, "SERVICE": "crm"}
    watching = settings.REDIS_EVENTS
    settings.REDIS_EVENTS = publishing
    publish("crm.news", "announces it")
    settings.REDIS_EVENTS = watching
    with subscribe("crm.news", timeout=3) as events:
        settings.REDIS_EVENTS = publishing
        publish("crm.news", "news")
        assert next(iter(events)).data == "news"


@pytest.mark.usefixtures("on_streams")
def test_thousands_of_events_are_seen_in_order_over_many_batches() -> None:
    with subscribe("orders", timeout=1) as events:
        for number in range(3_000):
            publish("orders", number)
        assert [event.data for event in events] == list(range(3_000))


@pytest.mark.usefixtures("on_streams")
def test_watching_a_stream_can_be_cancelled_at_once_and_leaves_nothing_behind(client: redis.Redis) -> None:
    async def watch() -> None:
        async with subscribe("orders", "orders*") as events:
            async for _ in events:
                pass

    async def serve() -> float:
        tab = asyncio.create_task(watch())
        while not any(each["cmd"] == "xread" for each in client.client_list()):
            await asyncio.sleep(0.01)
        tab.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await tab
        return time.monotonic() - began

    client.ping()
    before = open_descriptors(), threading.active_count()
    assert asyncio.run(serve()) < 0.4
    wait_for(lambda: (open_descriptors(), threading.active_count()) <= before, what="threads and connections to end")


def test_another_type_at_the_key_and_a_lost_server_are_raised_from_the_loop(
    settings: Any, client: redis.Redis, prefix: str
) -> None:
    streams = {**settings.REDIS_EVENTS, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    settings.REDIS_EVENTS = streams
    client.set(f"{prefix}:orders", "a text")
    with subscribe("orders", timeout=3) as events, pytest.raises(Refused, match="WRONGTYPE"):
        list(events)
    with Server() as own:
        settings.REDIS_EVENTS = {**streams, "LOCATION": own.url}
        with subscribe("orders", timeout=5) as events:
            own.kill()
            with pytest.raises(Unreachable):
                list(events)


def test_channels_of_several_transports_are_watched_together(settings: Any) -> None:
    other = "redis_events.transports.memory.MemoryTransport"
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": {"local.*": {"TRANSPORT": other}}}
    with subscribe("a", "local.b", timeout=0.5) as events:
        publish("a", 1)
        publish("local.b", 2)
        assert sorted(event.data for event in events) == [1, 2]


def test_it_needs_a_channel() -> None:
    with pytest.raises(TypeError, match="channel"):
        subscribe()


# ------------------------------------------------------------------ async


async def first_of(events: subscribe) -> Any:
    async for event in events:
        return event.data
    raise AssertionError("it ended")


def test_the_async_form_hears_the_same(client: redis.Redis, prefix: str) -> None:
    async def watch() -> list[Any]:
        async with subscribe("channel", timeout=0.3) as events:
            say(client, prefix, "channel", "a", "b")
            return [event.data async for event in events]

    assert asyncio.run(watch()) == ["a", "b"]


def test_forty_idle_watchers_in_one_process_keep_nobody_waiting(client: redis.Redis, prefix: str) -> None:
    """Server-sent events: each browser tab is one; the loop's own threads are for everybody."""
    subscribed: list[int] = []

    async def watch(number: int) -> Any:
        async with subscribe(f"tab.{number}") as events:
            subscribed.append(number)
            return await first_of(events)

    async def serve() -> list[Any]:
        tabs = [asyncio.create_task(watch(number)) for number in range(40)]
        async with asyncio.timeout(10):
            while len(subscribed) < 40:
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "not starved") == "not starved"
            for number in range(40):
                say(client, prefix, f"tab.{number}", number)
            return await asyncio.gather(*tabs)

    assert asyncio.run(serve()) == list(range(40))


def test_a_watcher_that_is_cancelled_leaves_at_once_and_takes_its_thread_and_connection_along(
    client: redis.Redis, prefix: str
) -> None:
    """A browser tab was closed."""
    name = f"{prefix}:channel"

    async def watch() -> None:
        async with subscribe("channel") as events:
            async for _ in events:
                pass

    async def serve() -> float:
        tab = asyncio.create_task(watch())
        while client.pubsub_numsub(name)[0][1] == 0:
            await asyncio.sleep(0.01)
        tab.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await tab
        return time.monotonic() - began

    client.ping()
    before = open_descriptors(), threading.active_count()
    assert asyncio.run(serve()) < 0.4
    wait_for(lambda: client.pubsub_numsub(name)[0][1] == 0, what="the subscription to end")
    wait_for(lambda: (open_descriptors(), threading.active_count()) <= before, what="thread and connection to end")


def test_breaking_out_of_the_loop_ends_the_subscription(client: redis.Redis, prefix: str) -> None:
    async def first() -> Any:
        async with subscribe("channel") as events:
            say(client, prefix, "channel", "a", "b")
            return await first_of(events)

    assert asyncio.run(first()) == "a"
    wait_for(lambda: client.pubsub_numsub(f"{prefix}:channel")[0][1] == 0, what="the subscription to end")
