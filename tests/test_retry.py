"""When to try again, and the one place where done, retry or dead is chosen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from redis_events import Reject, Retry, RetryLater
from redis_events.exceptions import LONGEST_PAUSE, DecodeError
from redis_events.retry import Outcome, backoff, default_retry, judge

PATIENT = Retry(attempts=3, delay=2, max_delay=5)
BUG = KeyError("bug")


def outcome(error: BaseException | None, **given: Any) -> Outcome:
    return judge(error, **{"attempt": 1, "retry": None, "durable": True, **given}).outcome


def test_a_run_that_returned_is_done() -> None:
    for attempt in (1, 100):
        assert outcome(None, attempt=attempt, durable=False) is Outcome.DONE


@pytest.mark.parametrize("error", [Reject("no"), DecodeError("junk", raw=b"")])
def test_what_can_never_work_is_dead_at_once(error: Exception) -> None:
    assert outcome(error, retry=PATIENT) is Outcome.DEAD


def test_attempts_count_runs() -> None:
    assert [outcome(BUG, attempt=attempt, retry=PATIENT) for attempt in (1, 2, 3, 4)] == [
        Outcome.RETRY,
        Outcome.RETRY,
        Outcome.DEAD,
        Outcome.DEAD,
    ]


def test_pubsub_is_now_or_never_unless_the_receiver_says_otherwise() -> None:
    assert outcome(BUG, durable=False) is Outcome.DEAD
    assert outcome(BUG, durable=False, retry=PATIENT) is Outcome.RETRY
    assert outcome(RetryLater(), durable=False) is Outcome.RETRY


def test_where_events_are_durable_the_projects_setting_counts(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "RETRY": {"attempts": 2}}
    assert default_retry().attempts == 2
    assert outcome(BUG, attempt=1) is Outcome.RETRY
    assert outcome(BUG, attempt=2) is Outcome.DEAD
    assert outcome(BUG, attempt=2, retry=PATIENT) is Outcome.RETRY


def test_asking_for_later_counts_as_a_run_and_names_the_time() -> None:
    assert judge(RetryLater(after=30), attempt=1, retry=PATIENT, durable=True).after == 30
    assert judge(RetryLater(after=0), attempt=1, retry=PATIENT, durable=True).after == 0
    assert judge(RetryLater(after=timedelta(minutes=1)), attempt=1, retry=PATIENT, durable=True).after == 60
    assert outcome(RetryLater(after=30), attempt=3, retry=PATIENT) is Outcome.DEAD


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), 1e12, timedelta(days=-1), "soon", object()])
def test_a_time_that_makes_no_sense_is_refused_inside_the_receiver(after: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        RetryLater(after=after)


def test_the_pause_is_random_up_to_a_growing_limit() -> None:
    retry = Retry(attempts=9, delay=1, max_delay=5)
    for attempt, limit in [(1, 1), (2, 2), (3, 4), (4, 5), (5, 5), (10_000, 5)]:
        pauses = [retry.pause(attempt) for _ in range(500)]
        assert 0 <= min(pauses) < limit * 0.1
        assert limit * 0.9 < max(pauses) <= limit


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"delay": 0},
        {"delay": -1},
        {"delay": 10, "max_delay": 5},
        {"delay": float("nan")},
        {"max_delay": float("nan")},
        {"max_delay": float("inf")},
        {"max_delay": LONGEST_PAUSE + 1},
    ],
    ids=str,
)
def test_a_retry_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="Retry needs attempts"):
        Retry(**wrong)


def test_reconnecting_is_tried_often_and_never_later_than_the_setting(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "RECONNECT_MAX": 2}
    assert all(0 < backoff(attempt) <= 2 for attempt in (1, 2, 5, 100, 10**6) for _ in range(100))
    assert max(backoff(1) for _ in range(100)) <= 0.2
