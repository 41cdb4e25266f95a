"""Model saves while Redis is refused, frozen and black-holed, counted at a proxy; a listener through 20 outages."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.db import connection, transaction
from django.db.models.signals import post_save

from redis_events import publish_failed, publishes, publishing, registry
from redis_events.publishing import ModelPublisher
from tests.processes import Project
from tests.proxy import Proxy
from tests.servers import Server, wait_for
from tests.testapp.models import Tag

LONG = bool(os.environ.get("LONG"))
"""LONG=1: outages of up to 30 s, and a freeze of 20 s."""
LIMIT = 0.25
BUSY = 0.1
"""Seconds a machine with other work may add to a save."""


@pytest.fixture(autouse=True)
def _publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags are published in these tests and in no other."""
    monkeypatch.setattr(registry, "publishers", {})
    monkeypatch.setattr("redis_events.publishing.publishers", registry.publishers)

    @publishes(Tag)
    class TagPublisher(ModelPublisher):
        channel = "tags"
        fields = ("id", "name")


@pytest.fixture
def proxy(settings: Any, prefix: str) -> Iterator[Proxy]:
    with Server() as own, Proxy(own, gather=0.03) as proxy:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": proxy.url, "PREFIX": prefix}
        Tag.objects.create(name="warm")
        settled(proxy)  # connecting, and asking once what carries the channel
        proxy.reset()
        yield proxy


def settled(proxy: Proxy) -> int:
    """The client's writes, once the last of them is counted."""
    time.sleep(3 * proxy.gather)  # the proxy's own clock: a write ends with its silence
    return proxy.writes


# ------------------------------------------------------------------ round trips

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_thousand_update_or_create_are_one_write_on_commit(proxy: Proxy) -> None:
    with transaction.atomic():
        for number in range(1000):
            Tag.objects.update_or_create(name=f"n{number}")
        assert settled(proxy) == 0, "something left before the commit"
    assert settled(proxy) == 1
    assert proxy.payloads[0].count(b"PUBLISH") == 1000


def test_a_rolled_back_transaction_is_no_write(proxy: Proxy) -> None:
    with transaction.atomic():
        for number in range(100):
            Tag.objects.create(name=f"n{number}")
        transaction.set_rollback(True)
    assert settled(proxy) == 0


def test_a_rolled_back_savepoint_takes_its_own_along_and_makes_no_write_more(proxy: Proxy) -> None:
    with transaction.atomic():
        Tag.objects.create(name="kept")
        for _ in range(10):
            with transaction.atomic():
                Tag.objects.create(name="undone")
                transaction.set_rollback(True)
            with transaction.atomic():
                Tag.objects.create(name="kept")
    assert settled(proxy) == 1
    assert (proxy.payloads[0].count(b'"kept"'), proxy.payloads[0].count(b'"undone"')) == (11, 0)


def test_each_save_in_autocommit_is_its_own_write(proxy: Proxy) -> None:
    for number in range(3):
        Tag.objects.create(name=f"n{number}")
        assert settled(proxy) == number + 1


# ------------------------------------------------------------------ saves in an outage


def trouble(kind: str, proxy: Proxy) -> Callable[[], None]:
    if kind == "frozen":
        proxy.server.freeze()
        return proxy.server.thaw
    if kind == "black hole":
        proxy.black_hole()
        return proxy.heal
    proxy.refuse()
    proxy.cut()
    return proxy.accept


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused", "frozen", "black hole"])
def test_two_hundred_saves_in_eight_threads_all_succeed_and_at_most_one_a_second_waits(
    kind: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[object] = []

    def note(batch: Any, **_: object) -> None:
        lost.extend(batch)

    recover = trouble(kind, proxy)
    publish_failed.connect(note)
    try:
        with caplog.at_level(logging.INFO, logger="redis_events"):
            seconds, waited = save_in_eight_threads(25, spread=20.0 if LONG else 2.0)
            wait_for(lambda: len(lost) == 200, what="each loss to be signalled")
    finally:
        publish_failed.disconnect(note)
        recover()
    assert Tag.objects.count() == 201
    assert len(waited) <= seconds + 1, waited
    assert all(each <= LIMIT + BUSY for each in waited), waited
    assert len([record for record in caplog.records if record.name == "redis_events.publish"]) == 1


def save_in_eight_threads(count: int, *, spread: float) -> tuple[float, list[float]]:
    """Saves of `count` rows a thread, spread over seconds; how long it took, and the waits for Redis over 50 ms."""
    waits, failed, began = Waits(), [], time.monotonic()

    def work(thread: int) -> None:
        try:
            for number in range(count):
                Tag.objects.create(name=f"{thread}-{number}")
                time.sleep(random.uniform(0, 2 * spread / count))  # the pace of the traffic
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    with waits:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert failed == []
    return time.monotonic() - began, [each for each in waits.seconds if each > 0.05]


class Waits:
    """How long each `post_save` of a tag took: SQLite lets one writer in at a time, and its wait is not ours."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __enter__(self) -> None:
        post_save.disconnect(publishing.model_saved, sender=Tag, dispatch_uid="redis_events")
        post_save.connect(self.saved, sender=Tag, dispatch_uid="redis_events")

    def saved(self, **facts: Any) -> None:
        began = time.monotonic()
        publishing.model_saved(**{name: facts[name] for name in ("sender", "instance", "created", "using")})
        self.seconds.append(time.monotonic() - began)

    def __exit__(self, *exc_info: object) -> None:
        post_save.disconnect(self.saved, sender=Tag, dispatch_uid="redis_events")
        post_save.connect(publishing.model_saved, sender=Tag, dispatch_uid="redis_events")


# ------------------------------------------------------------------ a listener through 20 outages

RECEIVERS = """
import time
from redis_events import gap_detected, receives

@receives("beats")
def hear(event):
    with open("heard", "a") as file:
        file.write(f"{time.time()} {event.data}\\n")

def note(channels, since, seconds, **_):
    with open("gaps", "a") as file:
        file.write(f"{since.timestamp()} {seconds} {channels[0]}\\n")

gap_detected.connect(note, weak=False)
"""


@pytest.mark.slow
def test_through_twenty_outages_the_listener_consumes_again_within_five_seconds_and_reports_each_gap(
    project: Project, prefix: str
) -> None:
    outages = [random.uniform(0.2, 30.0) for _ in range(20)] if LONG else [0.2] * 16 + [0.5, 1.0, 1.5, 3.0]
    project.write("receivers.py", RECEIVERS)
    with Server() as own:
        project.env["TEST_LOCATION"] = own.url
        process = project.manage("listen_events")
        process.wait_for_line("Listening on ", timeout=20)
        with Traffic(own, f"{prefix}:beats") as traffic:
            for outage in outages:
                traffic.wait_until_heard(project)
                own.kill()
                time.sleep(outage)  # the outage itself
                own.start()
                back = time.monotonic()
                traffic.wait_until_heard(project, timeout=5.0)
                assert time.monotonic() - back < 5.0
        assert process.returncode is None
        changes = [line for line in process.lines if re.search("connection lost|listening again", line)]
        gaps = (project.folder / "gaps").read_text().splitlines()
        process.terminate()
        assert process.wait(10) == 0
    assert len(changes) == 2 * len(outages), process.output
    assert len(gaps) == len(outages)
    assert "Traceback" not in process.output
    assert_every_loss_lies_in_a_gap(traffic, project)


class Traffic:
    """A number every 20 ms from a plain client, over every outage; `sent`: those the server took, and when."""

    def __init__(self, server: Server, channel: str) -> None:
        self.server, self.channel = server, channel
        self.sent: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _publish(self) -> None:
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            try:
                with self.server.client() as client:
                    client.publish(self.channel, number)
                self.sent.append((time.time(), number))
            except (redis.RedisError, OSError):
                continue

    def wait_until_heard(self, project: Project, *, timeout: float = 10.0) -> None:
        """Until something sent from now on was heard."""
        last = self.sent[-1][1] if self.sent else 0
        wait_for(lambda: any(number > last for number in heard(project)), timeout=timeout, what="traffic to be heard")


def heard(project: Project) -> list[int]:
    file = project.folder / "heard"
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def assert_every_loss_lies_in_a_gap(traffic: Traffic, project: Project) -> None:
    lines = (line.split() for line in (project.folder / "gaps").read_text().splitlines())
    gaps = [(float(since), float(since) + float(seconds)) for since, seconds, _ in lines]
    got = heard(project)
    assert len(got) == len(set(got)), "something came twice"
    first = min(got)
    lost = [(moment, number) for moment, number in traffic.sent if number >= first and number not in set(got)]
    slack = 0.05
    outside = [each for each in lost if not any(since - slack <= each[0] <= until + slack for since, until in gaps)]
    # The last number may still have been on its way when the listener was asked to stop.
    assert [number for _, number in outside if number < traffic.sent[-1][1]] == []
