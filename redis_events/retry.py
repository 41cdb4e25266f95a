"""When to try again, and what became of one run of a receiver."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from .conf import conf
from .exceptions import LONGEST_PAUSE, DecodeError, Reject, RetryLater


class Outcome(StrEnum):
    """What became of one receiver's run."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how far apart a failing receiver is run: ``Retry(attempts=8, delay=1, max_delay=600)``.

    ``attempts`` counts runs, the first one too. ``delay`` and ``max_delay`` are in seconds: before run n + 1 it waits a
    random time up to ``min(max_delay, delay × 2ⁿ⁻¹)`` (full jitter). Raises ValueError for values that make no sense.
    """

    attempts: int = 8
    delay: float = 1
    max_delay: float = 600

    def __post_init__(self) -> None:
        if not (self.attempts >= 1 and 0 < self.delay <= self.max_delay <= LONGEST_PAUSE):
            raise ValueError("Retry needs attempts ≥ 1 and 0 < delay ≤ max_delay ≤ a year, in seconds.")

    def pause(self, attempt: int) -> float:
        """Seconds to wait after run number ``attempt`` has failed."""
        return random.uniform(0, self._longest_pause(attempt))

    def _longest_pause(self, attempt: int) -> float:
        return min(self.max_delay, self.delay * 2.0 ** min(attempt - 1, 64))

    @property
    def longest(self) -> float:
        """Seconds from the first run to the last at most, the runs themselves not counted."""
        growing = range(1, min(self.attempts, 65))
        rest = self.attempts - 1 - len(growing)
        return sum(map(self._longest_pause, growing)) + rest * self.max_delay


ONCE_ONLY = Retry(attempts=1)
"""Pub/sub's answer where a receiver has no ``Retry`` of its own: now or never."""


def default_retry() -> Retry:
    """The project's ``RETRY`` setting."""
    return Retry(**conf.RETRY)


def backoff(attempt: int) -> float:
    """Seconds to wait before reconnecting for the n-th time: full jitter from 0.1 s up to RECONNECT_MAX."""
    return random.uniform(0.05, min(conf.RECONNECT_MAX, 0.1 * 2.0 ** min(attempt, 16)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one run, and for a retry the seconds until the next one."""

    outcome: Outcome
    after: float = 0.0


DONE = Verdict(Outcome.DONE)
DEAD = Verdict(Outcome.DEAD)


def judge(error: BaseException | None, *, attempt: int, retry: Retry | None, durable: bool) -> Verdict:
    """The one place where done, retry or dead is chosen.

    ``retry`` is the receiver's own; without it the project's ``RETRY`` counts where events are ``durable``, and pub/sub
    tries once: now or never. A receiver that asked for RetryLater is called again on pub/sub too.
    """
    if error is None:
        return DONE
    if isinstance(error, Reject | DecodeError):
        return DEAD
    asked = isinstance(error, RetryLater)
    policy = retry or (default_retry() if durable or asked else ONCE_ONLY)
    if attempt >= policy.attempts:
        return DEAD
    if isinstance(error, RetryLater) and error.after is not None:
        return Verdict(Outcome.RETRY, error.after)
    return Verdict(Outcome.RETRY, policy.pause(attempt))
