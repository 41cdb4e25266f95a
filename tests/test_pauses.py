"""Receivers paused in all listeners of a service: what is kept of that, and that no event is lost by it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from redis_events import pauses
from redis_events.conf import conf
from redis_events.pauses import Pause
from redis_events.transports.client import ErrorReply, Wire
from tests.processes import Process, Project, listening
from tests.servers import wait_for


@pytest.fixture(autouse=True)
def _settings(settings: Any, events_settings: dict[str, Any]) -> None:
    settings.REDIS_EVENTS = events_settings


def asked(wire: Wire) -> Any:
    return wire.call([pauses.asked()])[0]


def test_who_paused_what_and_when_is_kept_until_it_is_resumed(wire: Wire) -> None:
    (new,) = wire.call([pauses.pause("app.hear", service="shop", by="ann", at=12.5)])
    wire.call([pauses.pause("send the  mail", service="", by="bob", at=13)])
    assert new == 1
    assert pauses.decode(asked(wire)) == {
        ("shop", "app.hear"): Pause(by="ann", at=12.5),
        ("", "send the  mail"): Pause(by="bob", at=13.0),
    }
    resume = pauses.resume("app.hear", service="shop")
    was, _, is_still, _ = wire.call([*resume, *resume])
    assert (bool(was), bool(is_still)) == (True, False)
    assert pauses.decode(asked(wire)) == {("", "send the  mail"): Pause(by="bob", at=13.0)}
    assert pauses.of_service(asked(wire), "shop") == {"app.hear": None}


def test_a_pause_is_said_again_only_where_nobody_has_decided_since(wire: Wire) -> None:
    for name in ("gone", "resumed", "paused"):
        wire.call([pauses.pause(name, service="shop", by="ann", at=1)])
    wire.call([pauses.say_again(name, Pause(by="late", at=2), service="shop") for name in ("gone", "never")])
    wire.call(pauses.resume("resumed", service="shop"))
    wire.call([pauses.say_again("resumed", Pause(by="late", at=2), service="shop")])
    found = pauses.of_service(asked(wire), "shop")
    assert found is not None
    assert {name: each and each.by for name, each in found.items()} == {
        "gone": "ann",
        "never": "late",
        "resumed": None,
        "paused": "ann",
    }


def test_a_service_has_its_own(wire: Wire) -> None:
    wire.call([pauses.pause("app.hear", service="shop", by="ann", at=1)])
    assert pauses.of_service(asked(wire), "shop") == {"app.hear": Pause(by="ann", at=1)}
    assert pauses.of_service(asked(wire), "billing") == {}


def test_what_cannot_be_read_pauses_all_the_same(wire: Wire, client: redis.Redis) -> None:
    client.hset(conf.redis_name("redis-events:paused"), mapping={"shop app.hear": "{", b"shop \xff": "1"})
    assert pauses.decode(asked(wire)) == {("shop", "app.hear"): Pause(), ("shop", "\ufffd"): Pause()}


def test_a_server_that_does_not_say_is_not_one_where_nothing_is_paused(wire: Wire, client: redis.Redis) -> None:
    client.set(conf.redis_name("redis-events:paused"), "x")
    assert isinstance(asked(wire), ErrorReply)
    assert pauses.decode(asked(wire)) is pauses.of_service(None, "shop") is None


# ------------------------------------------------------------------ real processes

RECEIVERS = """
import os
from redis_events import receives

def note(who, data):
    with open(who, "a") as file:
        file.write(f"{data}\\n")

@receives("orders")
def paused(event):
    note("paused", event.data)

@receives("orders")
def other(event):
    note("other", event.data)

@receives("live")
def live(event):
    note("live", event.data)
"""
ROWS = """
from redis_events.models import HeldDelivery
print(sorted({(each.receiver, each.state, each.due, each.attempt, each.reason) for each in HeldDelivery.objects.all()}))
print(HeldDelivery.objects.count())
"""


@pytest.fixture
def service(project: Project) -> Project:
    project.write("receivers.py", RECEIVERS)
    project.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}, "POLL": 0.2}
    return project


@pytest.fixture
def add(client: redis.Redis, prefix: str) -> Callable[[int], None]:
    numbers = iter(range(10**6))

    def add(count: int) -> None:
        with client.pipeline(transaction=False) as pipe:
            for _ in range(count):
                pipe.xadd(f"{prefix}:orders", {"data": next(numbers)})
            pipe.execute()

    return add


def heard(project: Project, who: str) -> list[str]:
    file = project.folder / who
    return file.read_text().splitlines() if file.exists() else []


def test_events_of_a_paused_receiver_are_parked_and_run_once_each_when_it_is_resumed(
    service: Project, wire: Wire, add: Callable[[int], None]
) -> None:
    listeners = [listening(service), listening(service)]
    add(10)
    wait_for(lambda: len(heard(service, "paused")) == 10, what="the first")
    wire.call([pauses.pause("app.receivers.paused", service="shop", by="ann", at=time.time())])
    for each in listeners:
        each.wait_for_line(
            "app.receivers.paused was paused by ann: until it is resumed, what comes by a stream is parked"
        )
    add(300)
    wait_for(lambda: len(heard(service, "other")) == 310, what="the other receiver")
    assert len(heard(service, "paused")) == 10
    rows, count = service.shell(ROWS).splitlines()
    reason = "its receiver is paused; it is due when that is resumed"
    assert rows == str([("app.receivers.paused", "parked", None, 0, reason)])
    assert count == "300"
    wire.call(pauses.resume("app.receivers.paused", service="shop"))
    wait_for(lambda: len(heard(service, "paused")) == 310, timeout=20, what="what was parked")
    wait_for(lambda: service.shell(ROWS).splitlines()[1] == "0", what="no row to be left")
    assert sorted(map(int, heard(service, "paused"))) == sorted(map(int, heard(service, "other"))) == list(range(310))
    for each in listeners:
        each.wait_for_line("app.receivers.paused was resumed")


def test_a_listener_that_starts_knows_what_is_paused_before_it_runs_anything(
    service: Project, wire: Wire, add: Callable[[int], None], client: redis.Redis, prefix: str
) -> None:
    wire.call([pauses.pause(f"app.receivers.{each}", service="shop", by="ann", at=1) for each in ("paused", "live")])
    add(500)
    process = listening(service)
    assert client.publish(f"{prefix}:live", "x") == 1
    wait_for(lambda: len(heard(service, "other")) == 500, timeout=20, what="the other receiver")
    assert heard(service, "paused") == heard(service, "live") == []
    lines = [line for line in process.lines if "was paused by" in line]
    assert len(lines) == 2, "one line for each change"


def test_draining_leaves_what_is_parked_and_takes_it_once_it_is_resumed(
    service: Project, wire: Wire, add: Callable[[int], None]
) -> None:
    wire.call([pauses.pause("app.receivers.paused", service="shop", by="ann", at=1)])
    add(700)
    assert service.manage("listen_events", "--drain").wait(30) == 0
    assert (len(heard(service, "other")), heard(service, "paused")) == (700, [])
    wire.call(pauses.resume("app.receivers.paused", service="shop"))
    assert service.manage("listen_events", "--drain").wait(30) == 0
    assert sorted(map(int, heard(service, "paused"))) == list(range(700))


@pytest.mark.slow
def test_nothing_is_lost_or_run_twice_while_a_receiver_is_paused_and_resumed_under_traffic(
    service: Project, wire: Wire, add: Callable[[int], None]
) -> None:
    listeners = [listening(service), listening(service)]
    count = 0
    for _ in range(5):
        for commands, word in (
            ([pauses.pause("app.receivers.paused", service="shop", by="ann", at=1)], "paused"),
            (pauses.resume("app.receivers.paused", service="shop"), "resumed"),
        ):
            before = [_told(each, word) for each in listeners]
            wire.call(commands)
            while not all(_told(each, word) > told for each, told in zip(listeners, before, strict=True)):
                add(10)
                count += 10
                time.sleep(0.01)  # the traffic's pace
    wait_for(lambda: len(heard(service, "other")) == count, timeout=30, what="the other receiver")
    wait_for(lambda: len(heard(service, "paused")) >= count, timeout=60, what="what was parked")
    for each in listeners:
        each.terminate()
        assert each.wait(20) == 0
    numbers = Counter(map(int, heard(service, "paused")))
    assert numbers == dict.fromkeys(range(count), 1)
    assert service.shell(ROWS).splitlines()[1] == "0"


def _told(process: Process, word: str) -> int:
    return sum(f"was {word}" in line for line in list(process.lines))
