"""One run of a receiver: what it is given, what becomes of what it raises, what is said of it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from redis_events import Event, Reject, Retry, RetryLater
from redis_events.codec import decode
from redis_events.events import current_event
from redis_events.exceptions import DecodeError
from redis_events.publishing import make_event
from redis_events.retry import Outcome
from redis_events.runner import AsyncRunner, Result, Run, call_all, failure, log_failure, poisonous, quarantine
from tests.listeners import delivery, document, receiver, run
from tests.servers import wait_for


@dataclass
class Paid:
    id: int
    total: Decimal


@pytest.fixture
def loop() -> Iterator[AsyncRunner]:
    runner = AsyncRunner()
    yield runner
    runner.close()


def outcome_of(function: Callable[..., Any], *, body: bytes | None = None, **options: Any) -> Result:
    return call_all([run(receiver(function, **options), body or document())], durable=False)[0]


def raising(error: BaseException) -> Callable[[Event[Any]], None]:
    def fail(event: Event[Any]) -> None:
        raise error

    return fail


def test_a_receiver_gets_its_data_as_its_annotation_says() -> None:
    got: list[Event[Paid]] = []

    def paid(event: Event[Paid]) -> None:
        got.append(event)

    assert outcome_of(paid, body=document({"id": 7, "total": "9.90"})).error is None
    assert got[0].data == Paid(id=7, total=Decimal("9.90"))
    assert (got[0].type, got[0].key, got[0].source, got[0].channel) == ("shop.order.paid", "7", "shop", "orders")
    assert json.loads(got[0].raw)["data"]["total"] == "9.90"


def test_data_that_does_not_fit_is_dead_at_once_and_the_function_is_not_called() -> None:
    def paid(event: Event[Paid]) -> None:
        pytest.fail("called with data of another shape")

    result = outcome_of(paid, body=document({"id": "seven"}), retry=Retry(attempts=8))
    assert result.verdict.outcome is Outcome.DEAD
    assert isinstance(result.error, DecodeError)


@pytest.mark.parametrize(
    ("error", "retry", "expected"),
    [
        (ValueError("x"), None, Outcome.DEAD),
        (ValueError("x"), Retry(attempts=2), Outcome.RETRY),
        (ValueError("x"), Retry(attempts=1), Outcome.DEAD),
        (RetryLater(after=30), None, Outcome.RETRY),
        (Reject("why"), Retry(attempts=8), Outcome.DEAD),
        (RecursionError(), None, Outcome.DEAD),
        (MemoryError(), None, Outcome.DEAD),
        (SystemExit(1), None, Outcome.DEAD),
    ],
    ids=repr,
)
def test_what_a_receiver_raises_is_judged(error: BaseException, retry: Retry | None, expected: Outcome) -> None:
    assert outcome_of(raising(error), retry=retry).verdict.outcome is expected


def test_the_running_event_is_known_inside_and_forgotten_after_also_when_it_fails() -> None:
    seen: list[Any] = []

    def publish_on(event: Event[Any]) -> None:
        seen.append(make_event("billing", 1, type="billing.invoice.created", key=None))
        raise ValueError

    outcome_of(publish_on, body=document(id="first"))
    assert (seen[0].causation_id, seen[0].correlation_id, seen[0].hops) == ("first", "first", 1)
    assert current_event.get() is None


# ------------------------------------------------------------------ async


def calls(loop: AsyncRunner, *runs: Any) -> list[Result]:
    return loop.call_all(runs, durable=False)


def test_async_receivers_run_side_by_side_each_in_order(loop: AsyncRunner) -> None:
    order: list[tuple[str, int]] = []

    async def slow(event: Event[int]) -> None:
        await asyncio.sleep(0.05)
        order.append(("slow", event.data))

    async def quick(event: Event[int]) -> None:
        order.append(("quick", event.data))

    runs = [run(receiver(function), document(number)) for number in range(3) for function in (slow, quick)]
    began = time.monotonic()
    results = calls(loop, *runs)
    assert time.monotonic() - began < 0.3
    assert len(results) == 6
    assert order == [("quick", 0), ("quick", 1), ("quick", 2), ("slow", 0), ("slow", 1), ("slow", 2)]


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError(), SystemExit(1)], ids=repr)
def test_what_an_async_receiver_raises_harms_neither_its_neighbours_nor_the_loop(
    error: BaseException, loop: AsyncRunner
) -> None:
    heard: list[int] = []

    async def fail(event: Event[int]) -> None:
        raise error

    async def hear(event: Event[int]) -> None:
        await asyncio.sleep(0.01)
        heard.append(event.data)

    for number in range(2):
        results = calls(loop, run(receiver(fail), document(number)), run(receiver(hear), document(number)))
        assert {result.verdict.outcome for result in results if result.error} == {Outcome.DEAD}
    assert heard == [0, 1]


def test_an_async_receivers_event_is_its_own(loop: AsyncRunner) -> None:
    causes: dict[str, str] = {}

    async def publish_on(event: Event[Any]) -> None:
        await asyncio.sleep(0.01)
        causes[event.id] = make_event("x", 1, type="x.done", key=None).causation_id

    second = receiver(publish_on, name="app.second")
    calls(loop, run(receiver(publish_on), document(id="a")), run(second, document(id="b")))
    assert causes == {"a": "a", "b": "b"}


def test_a_closed_runner_leaves_no_thread() -> None:
    async def nothing(event: Event[Any]) -> None: ...

    before = set(threading.enumerate())
    runner = AsyncRunner()
    calls(runner, run(receiver(nothing), document()))
    own = set(threading.enumerate()) - before
    assert "redis_events-async" in {thread.name for thread in own}
    runner.close()
    wait_for(lambda: not any(each.name == "redis_events-async" for each in own & set(threading.enumerate())))


# ------------------------------------------------------------------ what is kept and said


def test_a_failure_says_all_there_is_to_know() -> None:
    body = document(id="the-id")
    kept = failure(outcome_of(raising(ValueError("no")), name="app.fail", body=body))
    assert (kept.source, kept.event_id, kept.receiver, kept.channel) == ("shop", "the-id", "app.fail", "orders")
    assert (kept.type, kept.key, kept.attempt, kept.raw) == ("shop.order.paid", "7", 1, body)


def test_bytes_that_are_no_event_are_kept_as_they_are() -> None:
    kept = quarantine(delivery(b"\xff"), DecodeError("not UTF-8", raw=b"\xff"))
    assert (kept.raw, kept.receiver, kept.verdict.outcome) == (b"\xff", "", Outcome.DEAD)
    assert kept.event_id


def test_a_failed_run_is_one_line_naming_what_where_and_what_comes_next(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="redis_events.listen"):
        log_failure(outcome_of(raising(ValueError("two\nlines")), body=document(id="i-1")))
        log_failure(outcome_of(raising(RetryLater("busy", after=30)), body=document(id="i-2")))
    dead, retry = (record.getMessage() for record in caplog.records)
    assert dead.startswith("dead   shop.order.paid i-1 → app.fail  after 1 run  ValueError: two lines (test_runner.py:")
    assert retry.startswith("retry  shop.order.paid i-2 → app.fail  1/8 in 30.0 s  RetryLater: busy")


@pytest.mark.parametrize(("timeout", "said"), [(None, ""), (30.0, " (timeout=30 s)")])
def test_poison_is_a_line_too_that_says_what_may_have_ended_its_process(
    timeout: float | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    started = msgspec.structs.replace(delivery(document(id="i-1")), starts=5)
    kept = poisonous(
        Run(receiver(print, name="app.hang", timeout=timeout), decode(started.body, channel="orders"), started)
    )
    assert str(kept.error) == f"its process died or was recycled{said} 5 times over it"
    line = f"dead   shop.order.paid i-1 → app.hang  after 5 runs  ProcessDied: {kept.error}"
    assert [record.getMessage() for record in caplog.records] == [line]


def test_a_payload_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="redis_events"):
        log_failure(outcome_of(raising(ValueError("no")), body=document({"card": "4111-1111"})))

        def paid(event: Event[Paid]) -> None: ...

        log_failure(outcome_of(paid, body=document({"id": "4111-1111", "total": "4111-1111"})))
    assert "4111" not in caplog.text


def test_an_exception_that_cannot_say_what_it_is_still_ends_as_a_line() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even that")

    log_failure(outcome_of(raising(Mute())))
