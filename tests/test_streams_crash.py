"""Streams through crashes of real processes: kills, freezes, poison, lost connections, servers that go away.

LONG=1 runs the same with the numbers the promise is measured with.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.listeners import document
from tests.processes import Process, Project
from tests.servers import Postgres, Server, wait_for

LONG = bool(os.environ.get("LONG"))
STREAM = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
BATCH = 100

NOTE = """
import os, signal, time
from redis_events import Event, Reject, Retry, RetryLater, receives

FILE = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(receiver, event):
    os.write(FILE, f"{receiver} {event.data} {event.attempt} {os.getpid()} {time.time():.3f}\\n".encode())
"""

THREE = """
@receives("orders")
def one(event):
    note("one", event)
    time.sleep(0.001)

@receives("orders")
def two(event):
    note("two", event)

@receives("orders")
def three(event):
    note("three", event)
"""

FLOOR = "SELECT floor FROM redis_events_channelstate WHERE channel = 'orders'"
COUNT_HELD = """
import json
from collections import Counter
from redis_events.models import HeldDelivery
print(json.dumps(Counter(HeldDelivery.objects.values_list("state", flat=True))))
"""


class Service:
    """One service on a stream: its project, its listeners, and what its receivers have noted."""

    def __init__(self, project: Project, server: Server, receivers: str, **settings: Any) -> None:
        self.project = project
        self.server = server
        self.name = project.env["TEST_SERVICE"]
        self.stream = f"{project.env['TEST_PREFIX']}:orders"
        project.settings = {**STREAM, **settings}
        project.write("receivers.py", NOTE + receivers)

    def listen(self, *arguments: str, waits: bool = True, **env: str) -> Process:
        process = self.project.manage("listen_events", *arguments, **env)
        if waits:
            process.wait_for_line("Listening on ", timeout=30)
        return process

    def publish(self, *data: Any) -> None:
        with self.server.client() as client, client.pipeline(transaction=False) as pipeline:
            for each in data:
                pipeline.xadd(self.stream, {"event": document(each)})
            pipeline.execute()

    def runs(self) -> list[tuple[str, str, int, int, float]]:
        file = self.project.folder / "runs"
        whole, _, _ = file.read_text().rpartition("\n") if file.exists() else ("", "", "")  # the last may be half there
        lines = whole.splitlines()
        return [(r, d, int(attempt), int(pid), float(at)) for r, d, attempt, pid, at in map(str.split, lines)]

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter((receiver, data) for receiver, data, *_ in self.runs())

    def has(self, receivers: tuple[str, ...], data: range) -> bool:
        return self.counts().keys() >= {(receiver, str(each)) for receiver in receivers for each in data}

    def wait_until_has(self, receivers: tuple[str, ...], data: range, timeout: float = 30.0) -> None:
        wait_for(lambda: self.has(receivers, data), timeout=timeout, what=f"{receivers} to have {data}")

    def pending(self) -> int:
        with self.server.client() as client:
            return int(client.xpending(self.stream, self.name)["pending"])

    def unsettled(self) -> int:
        """Entries the group has not settled, read or not."""
        with self.server.client() as client:
            group = client.xinfo_groups(self.stream)[0]
            return int(group["pending"]) + len(
                client.xrange(self.stream, min=f"({group['last-delivered-id'].decode()}")
            )

    def wait_until_settled(self, timeout: float = 15.0) -> None:
        wait_for(lambda: self.unsettled() == 0, timeout=timeout, what="everything to be settled")

    def consumers(self) -> set[int]:
        """The processes behind the group's consumers."""
        with self.server.client() as client:
            return {int(each["name"].split(b":")[1]) for each in client.xinfo_consumers(self.stream, self.name)}

    def held(self) -> dict[str, int]:
        return dict(json.loads(self.project.shell(COUNT_HELD)))

    def floor_is_written(self) -> bool:
        """Whether the database knows how far the group has settled everything; so too where there is no group."""
        with self.server.client() as client, closing(sqlite3.connect(self.project.folder / "db.sqlite3")) as database:
            if not client.exists(self.stream) or client.type(self.stream) != b"stream":
                return True
            last = client.xinfo_groups(self.stream)[0]["last-delivered-id"].decode()
            return last == "0-0" or (last,) in database.execute(FLOOR).fetchall()

    def bury(self, process: Process) -> None:
        """Let a dead listener's heartbeat expire now instead of in six seconds."""
        with self.server.client() as client:
            for key in client.scan_iter(f"{self.project.env['TEST_PREFIX']}:redis-events:listeners:*:{process.pid}:*"):
                client.delete(key)


MakeService = Callable[..., Service]


@pytest.fixture
def make_service(make_project: Callable[..., Project], migrated: Path, server: Server) -> MakeService:
    def make(receivers: str, name: str = "shop", on: Server | None = None, **settings: Any) -> Service:
        where = on or server
        project = make_project(name, location=where.url)
        shutil.copy(migrated, project.folder / "db.sqlite3")
        return Service(project, where, receivers, **settings)

    return make


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server the test may flush, kill and fill."""
    with Server(aof=True) as server:
        yield server


# ------------------------------------------------------------------ kills


def test_every_event_reaches_every_receiver_through_kills_at_random_instants(make_service: MakeService) -> None:
    events, kills = (10_000, 50) if LONG else (2_000, 10)
    shop = make_service(THREE)
    listeners = [shop.listen(), shop.listen()]
    chance = random.Random(events)
    for number in range(kills):
        shop.publish(*range(number * events // kills, (number + 1) * events // kills))
        time.sleep(chance.uniform(0.0, 0.4))
        listeners.pop(chance.randrange(2)).kill()
        listeners.append(shop.listen())
    shop.wait_until_has(("one", "two", "three"), range(events), timeout=60)
    shop.wait_until_settled(timeout=30)
    counts = shop.counts()
    repeated = {data for (_, data), count in counts.items() if count > 1}
    print(f"{kills} kills, {len(repeated)} events run more than once, {len(counts)} runs needed, {counts.total()} done")
    assert len(repeated) <= BATCH * kills
    wait_for(lambda: shop.consumers() <= {each.pid for each in listeners}, timeout=15, what="the dead to be removed")
    assert shop.held() == {}


def test_killed_connections_run_nothing_twice(make_service: MakeService) -> None:
    kills, events = (90, 9_000) if LONG else (15, 1_500)
    shop = make_service(THREE, RECONNECT_MAX=0.3)
    shop.listen()
    with shop.server.client() as client:
        for number in range(kills):
            shop.publish(*range(number * events // kills, (number + 1) * events // kills))
            port = shop.server.port
            for each in client.client_list():
                if each["laddr"].endswith(f":{port}"):
                    client.client_kill_filter(_id=each["id"])
            time.sleep(0.15)
    shop.wait_until_has(("one", "two", "three"), range(events))
    shop.wait_until_settled()
    assert set(shop.counts().values()) == {1}


def test_a_graceful_restart_under_traffic_runs_nothing_twice_and_leaves_no_consumer(make_service: MakeService) -> None:
    shop = make_service(THREE)
    for number in range(4):
        listener = shop.listen()
        shop.publish(*range(number * 300, (number + 1) * 300))
        wait_for(lambda: len(shop.runs()) > number * 900 + 20, what="the listener to be in the middle")  # noqa: B023
        listener.terminate()
        assert listener.wait(15) == 0, listener.output
    last = shop.listen()
    shop.wait_until_has(("one", "two", "three"), range(1_200))
    shop.wait_until_settled()
    assert set(shop.counts().values()) == {1}
    wait_for(lambda: shop.consumers() == {last.pid}, timeout=10, what="only the last consumer to be left")


# ------------------------------------------------------------------ groups and services


def test_what_is_published_while_the_listener_is_down_is_received(make_service: MakeService) -> None:
    shop = make_service(THREE)
    shop.publish(*range(5))
    first = shop.listen()
    shop.wait_until_has(("one", "two", "three"), range(5))
    first.terminate()
    assert first.wait() == 0
    shop.publish(*range(5, 10))
    shop.listen()
    shop.wait_until_has(("one", "two", "three"), range(10))
    assert set(shop.counts().values()) == {1}


def test_two_services_each_get_all_the_second_without_an_entry_of_its_own(make_service: MakeService) -> None:
    shop = make_service(THREE)
    billing = make_service(THREE, "billing", CHANNELS={})
    early = billing.listen()  # before anybody has said that it is a stream
    shop.project.shell(
        "from redis_events import publish\nfor n in range(5): publish('orders', n, type='shop.order.paid')"
    )
    billing.wait_until_has(("one", "two", "three"), range(5), timeout=10)
    early.terminate()
    assert early.wait() == 0
    shop.publish(*range(5, 10))
    billing.listen()
    shop.listen()
    for service in (shop, billing):
        service.wait_until_has(("one", "two", "three"), range(10))
        assert set(service.counts().values()) == {1}


def test_drain_works_off_what_is_there_with_what_the_dead_left(make_service: MakeService) -> None:
    shop = make_service(THREE)
    shop.publish(*range(750))
    with shop.server.client() as client:
        client.xgroup_create(shop.stream, "shop", "0")
        client.xreadgroup("shop", "gone:1:x", {shop.stream: ">"}, count=250)
        wait_for(lambda: _idle(client, shop) > 3_100, what="the dead one to have been silent")
    drained = shop.listen("--drain", waits=False)
    assert drained.wait(30) == 0, drained.output
    assert shop.has(("one", "two", "three"), range(750))
    assert shop.pending() == 0
    assert drained.pid not in shop.consumers()


def _idle(client: redis.Redis, shop: Service) -> int:
    return int(client.xinfo_consumers(shop.stream, "shop")[0]["idle"])


def test_contradicting_channels_exit_5_naming_both_and_heal_when_one_gives_in(make_service: MakeService) -> None:
    shop = make_service(THREE)
    shop.listen().terminate()
    billing = make_service(THREE, "billing", CHANNELS={"orders": {"TRANSPORT": "pubsub"}})
    refused = billing.listen(waits=False)
    assert refused.wait(20) == 5, refused.output
    assert re.search(r"'orders' is pubsub in billing and stream in shop", refused.output)
    shop.listen()  # what billing said wrongly does not keep shop from starting again
    billing.project.settings["CHANNELS"] = {}
    billing.listen()


def test_an_entry_that_is_gone_contradicts_nobody(make_service: MakeService) -> None:
    shop = make_service(THREE)
    shop.listen().terminate()
    shop.project.settings["CHANNELS"] = {}
    shop.listen().terminate()
    billing = make_service(THREE, "billing", CHANNELS={"orders": {"TRANSPORT": "pubsub"}})
    billing.listen()


# ------------------------------------------------------------------ slow, frozen, deadly

SLOW = """
@receives("orders")
def one(event):
    note("one", event)
    if event.data == 3:
        time.sleep(SECONDS)
        note("finished", event)
"""


def test_a_slow_receiver_is_not_run_twice_however_short_claim_after_is(make_service: MakeService) -> None:
    seconds, claim_after = (20, 3) if LONG else (7, 1)
    shop = make_service(SLOW.replace("SECONDS", str(seconds)), CLAIM_AFTER=claim_after)
    shop.listen()
    shop.listen()
    shop.publish(*range(10))
    shop.wait_until_has(("finished",), range(3, 4), timeout=seconds + 15)
    shop.wait_until_settled()
    assert len(shop.runs()) == 11
    assert shop.held() == {}


FREEZING = """
@receives("orders")
def one(event):
    note("one", event)
    if event.data == 0 and not os.path.exists("frozen"):
        open("frozen", "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_frozen_listeners_work_is_taken_over_and_its_late_settle_is_harmless(make_service: MakeService) -> None:
    shop = make_service(FREEZING)
    frozen = shop.listen()
    shop.publish(*range(50))
    wait_for(lambda: (shop.project.folder / "frozen").exists(), what="it to freeze")
    other = shop.listen()
    began = time.monotonic()
    shop.wait_until_has(("one",), range(50), timeout=15)
    assert time.monotonic() - began < 12
    os.kill(frozen.pid, signal.SIGCONT)
    shop.publish(*range(50, 100))
    shop.wait_until_has(("one",), range(100))
    shop.wait_until_settled()
    assert max(shop.counts().values()) <= 2
    assert shop.held() == {}
    for each in (frozen, other):
        each.terminate()
        assert each.wait() == 0, each.output


DEADLY = """
@receives("orders")
def one(event):
    if event.data == 50:
        note("started", event)
        os.kill(os.getpid(), signal.SIGKILL)
    note("one", event)

@receives("orders")
def two(event):
    note("two", event)
"""


def test_poison_in_a_batch_becomes_one_dead_letter_and_its_neighbours_none(make_service: MakeService) -> None:
    most = 5 if LONG else 2
    shop = make_service(DEADLY, MAX_DELIVERIES=most)
    shop.publish(*range(100))
    for _ in range(most + 1):
        killed = shop.listen(waits=False)
        assert killed.wait(40) == -signal.SIGKILL, killed.output
        if not LONG:
            shop.bury(killed)
    shop.listen()
    shop.wait_until_settled(timeout=30)
    counts = shop.counts()
    assert counts["started", "50"] == most + 1  # once in its batch, then MAX_DELIVERIES times alone
    assert shop.held() == {"dead": 1} or shop.held() == {"dead": 2}
    others = [each for each in range(100) if each != 50]
    assert all(counts[receiver, str(each)] for receiver in ("one", "two") for each in others)
    what = shop.project.shell(
        "from redis_events.models import DeadLetter\nfor d in DeadLetter.objects.all(): print(d.receiver, d.reason)"
    )
    assert "process died" in what


def test_all_pending_entries_of_a_dead_listener_and_all_waiting_retries_are_recovered(
    make_service: MakeService,
) -> None:
    shop = make_service(THREE)
    shop.publish(*range(300))
    with shop.server.client() as client:
        client.xgroup_create(shop.stream, "shop", "0")
        client.xreadgroup("shop", "gone:1:x", {shop.stream: ">"}, count=300)
    shop.project.shell(WAITING)
    shop.listen()
    shop.wait_until_has(("one", "two", "three"), range(300))
    wait_for(lambda: sum(data.startswith("r") for _, data in shop.counts()) == 150, timeout=15, what="150 retries")
    shop.wait_until_settled()
    assert set(shop.counts().values()) == {1}
    assert shop.held() == {}


WAITING = """
from tests.listeners import document
from redis_events.events import now
from redis_events.models import HeldDelivery
HeldDelivery.objects.bulk_create(
    HeldDelivery(source="shop", event_id=f"r{n}", group="shop", receiver="app.receivers.two", channel="orders",
        type="shop.order.paid", key="7", entry_id=f"1-{n}", state="waiting", attempt=1, due=now(),
        raw=document(f"r{n}", id=f"r{n}"), reason="", exception="", traceback="", fingerprint="",
        created_at=now(), updated_at=now())
    for n in range(150))
"""


# ------------------------------------------------------------------ outcomes

FAILING = """
@receives("orders")
def one(event):
    note("one", event)

@receives("orders", retry=Retry(attempts=4, delay=2.0, max_delay=2.0))
def two(event):
    note("two", event)
    if event.attempt < 3:
        raise RetryLater(after=2.0)

@receives("orders")
def three(event):
    note("three", event)
    raise Reject("not for us")
"""


def test_only_the_receiver_that_failed_runs_again_through_kill_and_flushall_and_never_early(
    make_service: MakeService, own_server: Server
) -> None:
    shop = make_service(FAILING, on=own_server)
    killed = shop.listen()
    shop.publish(*range(5))
    shop.wait_until_has(("one", "two", "three"), range(5))
    shop.wait_until_settled()
    killed.kill()
    with own_server.client() as client:
        client.flushall()
    listener = shop.listen()
    shop.publish(9)
    shop.wait_until_has(("one",), range(9, 10), timeout=2)  # fresh events do not wait for retries
    wait_for(lambda: shop.held() == {"dead": 6}, timeout=15, what="the retries to be done")
    runs = shop.runs()
    assert Counter(receiver for receiver, *_ in runs) == {"one": 6, "two": 18, "three": 6}
    for data in map(str, range(5)):
        at = [moment for receiver, of, _, _, moment in runs if (receiver, of) == ("two", data)]
        assert all(later - sooner >= 1.95 for sooner, later in itertools.pairwise(at))
    listener.terminate()
    assert listener.wait() == 0


def test_a_long_retry_that_fails_again_counts_as_one_run(make_service: MakeService) -> None:
    """Its claim is renewed while it runs; its outcome must still be written."""
    text = """
@receives("orders", retry=Retry(attempts=3, delay=0.1, max_delay=0.1))
def one(event):
    note("one", event)
    if event.attempt == 2:
        time.sleep(4)
    raise ValueError("no")
"""
    shop = make_service(text, CLAIM_AFTER=1.5)
    shop.listen()
    shop.listen()
    shop.publish(1)
    wait_for(lambda: [each[2] for each in shop.runs()] == [1, 2, 3], timeout=12, what="three runs")
    wait_for(lambda: shop.held() == {"dead": 1}, timeout=6, what="the dead letter")
    reason = shop.project.shell("from redis_events.models import DeadLetter\nprint(DeadLetter.objects.get().reason)")
    assert reason == "no"


RELEASES = """
def each(name):
    def receiver(event):
        note(name, event)
    return receives("orders", name=name)(receiver)

for name in os.environ.get("RELEASE", "both").split(","):
    each(name)
"""


def test_an_old_and_a_new_release_side_by_side_lose_nothing_for_either(make_service: MakeService) -> None:
    shop = make_service(RELEASES)
    shop.listen(RELEASE="old,both")
    shop.listen(RELEASE="both,new")
    events = 2_000 if LONG else 400
    for at in range(0, events, 20):
        shop.publish(*range(at, at + 20))
        time.sleep(0.01)
    shop.wait_until_has(("old", "both", "new"), range(events), timeout=events / 10)
    shop.wait_until_settled()
    wait_for(lambda: shop.held() == {}, timeout=15, what="no row to be left")
    assert set(shop.counts().values()) == {1}


TYPES = """
@receives("orders", types=os.environ.get("TYPES", "none").split(","), name="one")
def one(event):
    note("one", event)
"""


def test_types_a_new_release_adds_to_a_receiver_are_not_lost_at_the_old_one(make_service: MakeService) -> None:
    shop = make_service(TYPES)
    shop.listen(TYPES="shop.order.cancelled")
    shop.listen(TYPES="shop.order.cancelled,shop.order.paid")
    shop.publish(*range(200))
    shop.wait_until_has(("one",), range(200))
    assert set(shop.counts().values()) == {1}


# ------------------------------------------------------------------ the server and the database


def test_a_server_that_is_away_costs_few_lines_and_little_time(make_service: MakeService, own_server: Server) -> None:
    shop = make_service(THREE, on=own_server)
    listener = shop.listen()
    shop.publish(*range(10))
    shop.wait_until_has(("one",), range(10))
    before = len(listener.lines)
    own_server.kill()
    time.sleep(30 if LONG else 8)
    own_server.start()
    began = time.monotonic()
    shop.publish(*range(10, 20))
    shop.wait_until_has(("one", "two", "three"), range(20), timeout=6)
    assert time.monotonic() - began < 5
    assert len(listener.lines) - before < 20, listener.output
    assert set(shop.counts().values()) == {1}


def test_trouble_at_one_channel_is_one_line_and_heals_without_a_restart(
    make_service: MakeService, own_server: Server
) -> None:
    other = '\n@receives("mails")\ndef mail(event):\n    note("mail", event)\n'
    both = {name: {"TRANSPORT": "stream"} for name in ("orders", "mails")}
    shop = make_service(THREE + other, on=own_server, CHANNELS=both)
    listener = shop.listen()
    mails = shop.stream.replace("orders", "mails")
    troubles: list[Callable[[redis.Redis], object]] = [
        lambda client: client.flushall(),
        lambda client: client.xgroup_destroy(shop.stream, "shop"),
        lambda client: client.delete(shop.stream) and client.set(shop.stream, "a string"),
        lambda client: client.delete(shop.stream),
    ]
    with own_server.client() as client:
        for number, trouble in enumerate(troubles):
            wait_for(shop.floor_is_written, what="the floor, which is written every two seconds")
            trouble(client)
            client.xadd(mails, {"event": document(f"m{number}")})
            wait_for(lambda: ("mail", f"m{number}") in shop.counts(), what="the other channel to go on")  # noqa: B023
            if number != 2:
                shop.publish(number)
                shop.wait_until_has(("one", "two", "three"), range(number, number + 1), timeout=8)
    assert len([line for line in listener.lines if "WRONGTYPE" in line]) == 1, listener.output
    assert "made again" in listener.output
    assert len(listener.lines) < 25, listener.output
    assert set(shop.counts().values()) == {1}


def test_a_full_server_takes_no_listener_for_dead(make_service: MakeService, own_server: Server) -> None:
    slow = (
        "\n@receives('orders')\ndef slow(event):\n    note('slow', event)\n    time.sleep(14)\n    note('end', event)\n"
    )
    shop = make_service(slow, on=own_server)
    listeners = [shop.listen(), shop.listen()]
    shop.publish(1)
    wait_for(shop.runs, what="it to begin")
    with own_server.client() as client:
        client.config_set("maxmemory", 1)
        shop.wait_until_has(("end",), range(1, 2), timeout=20)
        shop.wait_until_settled()
        client.config_set("maxmemory", 0)
    assert set(shop.counts().values()) == {1}
    assert all(each.returncode is None for each in listeners)


HOLDING_THE_DATABASE = """
from django.db import transaction
from tests.testapp.models import Order

@receives("orders")
@transaction.atomic
def slow(event):
    Order.objects.create(note="SQLite has one writer")
    note("slow", event)
    time.sleep(14)
    note("end", event)

@receives("mails")
def mail(event):
    note("mail", event)
"""


def test_a_long_transaction_on_sqlite_takes_no_listener_for_dead(make_service: MakeService) -> None:
    """Floors that move cannot be written meanwhile, and nothing else may wait for that."""
    shop = make_service(HOLDING_THE_DATABASE, CHANNELS={name: {"TRANSPORT": "stream"} for name in ("orders", "mails")})
    patient = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"timeout": 20}}
    shop.project.database({**patient, "NAME": str(shop.project.folder / "db.sqlite3")})
    for _ in range(2):
        shop.listen()
    shop.publish(1)
    mails = shop.stream.replace("orders", "mails")
    with shop.server.client() as client:
        while ("end", "1") not in shop.counts():
            client.xadd(mails, {"event": document("m")})
            time.sleep(0.2)
    shop.wait_until_settled()
    runs = Counter(receiver for receiver, *_ in shop.runs())
    assert (runs["slow"], runs["end"]) == (1, 1)


def test_how_far_everything_is_settled_is_written_at_the_end(make_service: MakeService) -> None:
    shop = make_service(THREE)
    shop.publish(*range(50))
    listener = shop.listen("--drain", waits=False)
    assert listener.wait(20) == 0, listener.output
    assert shop.floor_is_written()


WRITING = """
from tests.testapp.models import Order

@receives("orders")
def one(event):
    Order.objects.create(note=str(event.data))
    note("one", event)
"""


def test_while_the_database_is_away_nothing_is_settled_and_no_attempt_is_charged(make_service: MakeService) -> None:
    with Postgres() as postgres:
        shop = make_service(WRITING)
        shop.project.database(postgres.create("shop"))
        shop.project.migrate()
        listener = shop.listen()
        shop.publish(*range(10))
        shop.wait_until_has(("one",), range(10))
        shop.wait_until_settled()
        postgres.stop()
        shop.publish(*range(10, 60))
        listener.wait_for_line("nothing is settled while the database is away", timeout=15)
        time.sleep(5 if LONG else 2)
        assert shop.unsettled() == 50
        assert len(shop.runs()) == 10
        postgres.start()
        shop.wait_until_has(("one",), range(60), timeout=15)
        shop.wait_until_settled()
        assert {attempt for _, _, attempt, *_ in shop.runs()} == {1}
        assert set(shop.counts().values()) == {1}
        assert shop.held() == {}
        assert len([line for line in listener.lines if "away" in line]) < 10, listener.output


def test_restarts_while_the_database_is_away_make_no_dead_letter(make_service: MakeService) -> None:
    with Postgres() as postgres:
        shop = make_service(WRITING, MAX_DELIVERIES=1)
        shop.project.database(postgres.create("shop"))
        shop.project.migrate()
        shop.publish(*range(3))
        first = shop.listen()
        shop.wait_until_settled()
        postgres.stop()
        shop.publish(*range(3, 6))
        for _ in range(3):
            first.wait_for_line("while the database is away", timeout=15)
            first.terminate()
            assert first.wait(10) == 0, first.output
            assert shop.unsettled() == 3
            first = shop.listen()
        postgres.start()
        shop.wait_until_has(("one",), range(6), timeout=20)
        shop.wait_until_settled()
        assert shop.held() == {}


def test_a_retry_the_database_cut_short_is_not_charged(make_service: MakeService) -> None:
    with Postgres() as postgres:
        shop = make_service(RETRIED)
        shop.project.database(postgres.create("shop"))
        shop.project.migrate()
        listener = shop.listen()
        shop.publish(1)
        wait_for(lambda: ("slept", "1") in shop.counts(), timeout=10, what="the retry to be in the middle")
        postgres.stop()
        (shop.project.folder / "go").touch()
        listener.wait_for_line("held deliveries in 'default' cannot be read", timeout=15)
        postgres.start()
        wait_for(lambda: ("done", "1") in shop.counts(), timeout=20, what="the retry to be done")
        assert [attempt for receiver, _, attempt, *_ in shop.runs() if receiver == "done"] == [2]
        wait_for(lambda: shop.held() == {}, what="no row to be left")


RETRIED = """
from tests.testapp.models import Order

@receives("orders", retry=Retry(attempts=2, delay=0.1, max_delay=0.1))
def one(event):
    if event.attempt == 1:
        raise ValueError("once more")
    note("slept", event)
    while not os.path.exists("go"):
        time.sleep(0.02)
    Order.objects.create(note="x")
    note("done", event)
"""
