"""Held deliveries run again: when they are due, by one process, until done or dead."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from redis_events import Event, Reject, Retry, RetryLater, held, retrying
from redis_events.events import now
from redis_events.listening import Listener
from redis_events.models import HeldDelivery
from redis_events.registry import Receiver
from redis_events.retry import Outcome
from redis_events.retrying import Retrier
from redis_events.tally import Tally
from redis_events.transports.memory import MemoryTransport
from tests.listeners import delivery, document, listener, receiver
from tests.processes import Process, Project
from tests.servers import Server, wait_for

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

State = HeldDelivery.State
AT_ONCE = Retry(attempts=3, delay=1e-6, max_delay=1e-6)


class Flaky:
    """Fails so many times, then succeeds; notes every run."""

    def __init__(self, failures: int, error: type[Exception] = ValueError) -> None:
        self.runs: list[tuple[Any, int]] = []
        self.failures = failures
        self.error = error

    def hear(self, event: Event[Any]) -> None:
        self.runs.append((event.data, event.attempt))
        if len(self.runs) <= self.failures:
            raise self.error("not yet")


def flaky(failures: int, *, name: str = "app.flaky", **options: Any) -> tuple[Flaky, Receiver]:
    function = Flaky(failures)
    options.setdefault("retry", AT_ONCE)
    made = Receiver(function=function.hear, channel="orders", name=name, types=None, event_type=None, **options)
    return function, made


def fail_first(*receivers: Receiver, body: bytes | None = None) -> None:
    """Their first run, by a listener, which holds what failed."""
    listener(*receivers).process([delivery(body or document())])


def rows() -> list[tuple[str, str, int]]:
    return [(row.receiver, row.state, row.attempt) for row in HeldDelivery.objects.order_by("id")]


def test_a_retry_reaches_only_the_receiver_that_failed() -> None:
    well, fine = flaky(0, name="app.fine")
    ill, failing = flaky(1)
    fail_first(fine, failing)
    assert rows() == [("app.flaky", State.WAITING, 1)]
    assert Retrier([fine, failing]).run_due() == 1
    assert (well.runs, ill.runs) == ([(1, 1)], [(1, 1), (1, 2)])
    assert rows() == []


def test_it_is_tried_as_often_as_retry_says_and_is_then_a_dead_letter() -> None:
    function, failing = flaky(99)
    fail_first(failing)
    retrier = Retrier([failing])
    assert [retrier.run_due() for _ in range(4)] == [1, 1, 0, 0]
    assert [attempt for _, attempt in function.runs] == [1, 2, 3]
    assert rows() == [("app.flaky", State.DEAD, 3)]


def test_nothing_runs_before_it_is_due() -> None:
    def later(event: Event[Any]) -> None:
        raise RetryLater(after=30)

    waiting = receiver(later)
    fail_first(waiting)
    assert Retrier([waiting]).run_due() == 0
    due = HeldDelivery.objects.get().due
    assert due is not None
    assert timedelta(seconds=28) < due - now() <= timedelta(seconds=30)


def test_a_receiver_may_give_up_on_a_retry() -> None:
    function, failing = flaky(1)
    fail_first(failing)
    function.failures, function.error = 99, Reject
    Retrier([failing]).run_due()
    assert rows() == [("app.flaky", State.DEAD, 2)]


def test_an_async_receiver_is_retried_too() -> None:
    attempts: list[int] = []

    async def flaky_async(event: Event[Any]) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            raise ValueError

    failing = receiver(flaky_async, retry=AT_ONCE)
    fail_first(failing)
    retrier = Retrier([failing])
    assert retrier.run_due() == 1
    assert attempts == [1, 2]
    assert rows() == []
    retrier.stop()
    retrier.run()


def test_rows_of_receivers_this_process_lacks_are_left_alone() -> None:
    _, failing = flaky(1)
    _, other = flaky(0, name="app.other")
    fail_first(failing)
    assert Retrier([other]).run_due() == 0
    assert rows() == [("app.flaky", State.WAITING, 1)]


def test_two_processes_never_run_the_same_one() -> None:
    """Each claims with compare and set on the time it saw."""
    function, failing = flaky(1)
    for number in range(20):
        function.runs.clear()
        fail_first(failing, body=document(number))
    function.runs.clear()
    function.failures = 0
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        Retrier([failing]).run_due()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: Retrier([failing]).run_due() == 0, what="what a locked database left over")
    assert sorted(data for data, _ in function.runs) == list(range(20))
    assert rows() == []


def test_a_claimed_run_is_counted_and_out_of_reach_before_it_begins(settings: Any) -> None:
    """So one that kills its process comes to an end too."""
    seen: list[tuple[str, str, int]] = []

    def look(event: Event[Any]) -> None:
        seen.extend(rows())
        raise ValueError

    failing = receiver(look, retry=AT_ONCE)
    fail_first(failing)
    Retrier([failing]).run_due()
    assert seen == [("app.look", State.WAITING, 2)]

    HeldDelivery.objects.update(state=State.WAITING, due=now())
    row = held.due_rows(["app.look"], using="default", limit=1)[0]
    assert held.claim(row, using="default")
    assert not held.claim(row_as_first_seen(row), using="default")
    assert Retrier([failing]).run_due() == 0, "another process took what is being run"


def row_as_first_seen(row: HeldDelivery) -> HeldDelivery:
    copy = HeldDelivery.objects.get(pk=row.pk)
    copy.due = now() - timedelta(seconds=1)
    return copy


def test_a_large_event_is_tried_again_whole(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "MAX_EVENT_BYTES": 1_000_000}
    function, failing = flaky(1)
    fail_first(failing, body=document("x" * 500_000))
    Retrier([failing]).run_due()
    assert function.runs == [("x" * 500_000, 1), ("x" * 500_000, 2)]


def test_what_is_too_large_by_now_is_a_dead_letter_and_the_others_go_on(settings: Any) -> None:
    function, failing = flaky(2)
    fail_first(failing, body=document("x" * 1000))
    fail_first(failing, body=document("small"))
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "MAX_EVENT_BYTES": 500}
    Retrier([failing]).run_due()
    assert rows() == [("app.flaky", State.DEAD, 2)]
    assert "MAX_EVENT_BYTES" in HeldDelivery.objects.get().reason
    assert function.runs[-1] == ("small", 2)


def test_one_database_away_keeps_nobody_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    function, failing = flaky(1, using="other", retry=AT_ONCE)
    _, here = flaky(0, name="app.here")
    fail_first(failing)
    assert HeldDelivery.objects.using("other").count() == 1
    with connection.schema_editor() as editor:
        editor.delete_model(HeldDelivery)
    try:
        retrier = Retrier([here, failing])
        assert [retrier.run_due(), retrier.run_due()] == [1, 0]
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(HeldDelivery)
    assert [attempt for _, attempt in function.runs] == [1, 2]
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1


def test_the_loop_runs_what_becomes_due_and_stops_when_told(settings: Any) -> None:
    function, failing = flaky(1, retry=Retry(attempts=2, delay=0.2, max_delay=0.2))
    fail_first(failing)
    retrier = Retrier([failing])
    thread = threading.Thread(target=retrier.run)
    thread.start()
    wait_for(lambda: len(function.runs) == 2, what="the second run")
    retrier.stop()
    began = time.monotonic()
    thread.join(5)
    assert time.monotonic() - began < 0.5
    assert rows() == []


RECEIVERS = """
import os, signal
from pathlib import Path
from redis_events import Retry, receives

@receives("poison", retry=Retry(attempts=3, delay=0.1, max_delay=0.1))
def poison(event):
    with open("runs", "a") as file:
        file.write(f"{event.attempt}\\n")
    if event.attempt > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("once more")
"""


def listening(project: Project) -> Process:
    process = project.manage("listen_events")
    process.wait_for_line("Listening on ", timeout=20)
    return process


@pytest.mark.slow
def test_a_retry_that_kills_its_process_comes_to_an_end(project: Project, server: Server, prefix: str) -> None:
    project.write("receivers.py", RECEIVERS)
    project.settings = {"CLAIM_AFTER": 0.5}
    process = listening(project)
    with server.client() as client:
        client.publish(f"{prefix}:poison", "x")
    for _ in range(2):
        assert process.wait(20) == -9
        process = listening(project)
    process.wait_for_line(r"dead .* after 3 runs  Unfinished", timeout=10)
    assert (project.folder / "runs").read_text().split() == ["1", "2", "3"]


# ------------------------------------------------------------------ paused receivers


def park(*receivers: Receiver, count: int = 1) -> None:
    """Let a listener of a stream get so many events while these are paused."""
    own = Listener(Durable("memory://parking"), receivers)
    own.note_paused({each.name for each in receivers})
    own.process([delivery(document(number, id=f"event {number}")) for number in range(count)])


class Durable(MemoryTransport):
    durable = True


def resumed(retrier: Retrier, *names: str) -> Retrier:
    retrier.note_paused(names)
    retrier.note_paused(())
    return retrier


def test_what_waits_for_a_paused_receiver_goes_on_waiting_and_keeps_nobody_awake() -> None:
    well, fine = flaky(1, name="app.fine")
    ill, failing = flaky(1)
    fail_first(fine, failing)
    retrier = Retrier([fine, failing])
    retrier.note_paused({"app.flaky", "app.elsewhere"})
    assert retrier.run_due() == 1
    assert (len(well.runs), len(ill.runs)) == (2, 1)
    assert retrier._pause() == 1.0, "what is due and paused is not waited for"
    assert rows() == [("app.flaky", State.WAITING, 1)]
    retrier.note_paused(())
    assert retrier._pause() == 0.0
    assert retrier.run_due() == 1
    assert rows() == []


def test_a_pause_in_the_middle_of_a_batch_counts_at_once() -> None:
    retrier: Retrier

    def hear(event: Event[Any]) -> None:
        heard.append(event.data)
        if event.attempt == 1:
            raise ValueError
        retrier.note_paused({"app.hear"})

    heard: list[int] = []
    hearing = receiver(hear, retry=AT_ONCE)
    for number in range(3):
        fail_first(hearing, body=document(number))
    retrier = Retrier([hearing])
    assert retrier.run_due() == 1
    assert heard == [0, 1, 2, 0]


def test_a_resumed_receiver_runs_what_was_parked_once_each_as_its_first_run() -> None:
    function, own = flaky(0)
    park(own, count=3)
    retrier = Retrier([own])
    retrier.note_paused({"app.flaky"})
    assert retrier.run_due() == 0
    assert rows() == [("app.flaky", State.PARKED, 0)] * 3
    retrier.note_paused(())
    assert [retrier.run_due(), retrier.run_due()] == [3, 0]
    assert sorted(function.runs) == [(0, 1), (1, 1), (2, 1)]
    assert rows() == []


def test_what_is_parked_for_nothing_is_found_at_the_start_and_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function, own = flaky(0)
    park(own)
    retrier = Retrier([own])
    assert retrier.run_due() == 1
    park(own)
    assert retrier.run_due() == 0, "it was looked a moment ago"
    later = time.monotonic() + 5.1
    monkeypatch.setattr(retrying.time, "monotonic", lambda: later)
    assert retrier.run_due() == 1
    assert len(function.runs) == 2


def test_much_that_is_parked_becomes_due_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAGE", 4)
    function, own = flaky(0)
    park(own, count=10)
    retrier = resumed(Retrier([own]), "app.flaky")
    assert [retrier.run_due() for _ in range(4)] == [4, 4, 2, 0]
    assert len(function.runs) == 10


def test_what_others_have_parked_stays_parked(settings: Any) -> None:
    """Another service's, a receiver's that is paused still, one's that is not here."""
    _, theirs = flaky(0)
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "billing"}
    park(theirs)
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "shop"}
    _, paused = flaky(0, name="app.paused")
    _, gone = flaky(0, name="app.gone")
    park(paused, gone)
    _, same = flaky(0)
    retrier = resumed(Retrier([same, paused]), "app.flaky")
    retrier.note_paused({"app.paused"})
    assert retrier.run_due() == 0
    assert {state for _, state, _ in rows()} == {State.PARKED}


def test_retries_are_counted() -> None:
    own = Tally()
    _, failing = flaky(2)
    fail_first(failing)
    retrier = Retrier([failing], tally=own)
    retrier.run_due()
    retrier.run_due()
    told = {command[2]: command[3] for command in own.commands() if command[0] == "HINCRBY"}
    assert (told["retry"], told["done"], told["done shop app.flaky"]) == (1, 1, 1)
    assert not [name for name in told if name.startswith("settled")]
    assert retrier.counts == {Outcome.RETRY: 1, Outcome.DONE: 1}


def test_services_that_share_a_database_leave_each_others_rows_alone(settings: Any) -> None:
    """An app that both of them install: its receiver has the same name in each."""
    theirs, failing = flaky(1)
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "billing"}
    fail_first(failing)
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "shop"}
    ours, same = flaky(0)
    own = Retrier([same])
    assert own.run_due() == 0
    assert own._pause() > 0.0, "what is others' must not keep it awake"
    assert ours.runs == []
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "billing"}
    assert Retrier([failing]).run_due() == 1
    assert len(theirs.runs) == 2
