"""Everything redis_events raises, and what a receiver may raise to say what should happen next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured

LONGEST_PAUSE = 366 * 86_400.0
"""Seconds between two runs of a receiver: beyond any use, and far from what a date can hold."""


class RedisEventsError(Exception):
    """Root of all errors of redis_events."""


class ConfigurationError(RedisEventsError, ImproperlyConfigured):
    """Raised when a setting, a publisher or a receiver is declared wrongly; the message names the place."""


class PublishError(RedisEventsError, ValueError):
    """Raised when the caller of ``publish`` made a mistake: nothing was written, nothing was sent."""


class InvalidName(PublishError):
    """Raised when a channel or a type is not a legal name."""


class EncodeError(PublishError):
    """Raised when an event's data has no JSON form (an unknown type, NaN, an infinity, a lone surrogate)."""


class EventTooLarge(PublishError):
    """Raised when an encoded event is larger than ``MAX_EVENT_BYTES`` or nested deeper than 64."""


class TooManyHops(PublishError):
    """Raised when an event would be the 17th of a chain in which receivers publish for receivers."""


class DecodeError(RedisEventsError):
    """Raised when received bytes are not an event. ``raw`` holds the bytes, ``str()`` the reason."""

    def __init__(self, reason: str, *, raw: bytes) -> None:
        super().__init__(reason)
        self.raw = raw


class TransportError(RedisEventsError):
    """Raised when the server cannot be used; the message is safe to show (no password in it).

    ``lost`` holds those of a batch that were refused when the others were taken; None stands for the whole batch.
    """

    lost: Sequence[Any] | None = None


class Unreachable(TransportError):
    """Raised when the server does not answer: refused, silent, or the connection was lost."""


class Refused(TransportError):
    """Raised when the server answers and will not serve us: wrong password, no permission, wrong type."""


class Unfinished(RedisEventsError):
    """Raised when a receiver's last run was begun and did not come to an end: it took its process with it."""


class TransactionLeftOpen(RedisEventsError):
    """Raised when a receiver returned inside a database transaction it began, which was then rolled back."""


class TransactionBroken(RedisEventsError):
    """Raised when a ``once`` receiver returned from a transaction that cannot be committed, and was rolled back."""


class Reject(RedisEventsError):
    """Raised by a receiver to send an event straight to the dead letters: ``raise Reject("why")``."""


class RetryLater(RedisEventsError):
    """Raised by a receiver to be called again: ``raise RetryLater(after=30)``. Counts as a run.

    ``after`` is in seconds or a timedelta; without it the receiver's ``Retry`` says when. Raises ValueError or
    TypeError for what is no time to wait, at most a year.
    """

    def __init__(self, reason: str = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(reason or "asked to be called again")
        self.after = None if after is None else _pause(after)


def _pause(after: float | timedelta) -> float:
    # Refused here, inside the receiver's run: later it would end the listener.
    seconds = after.total_seconds() if isinstance(after, timedelta) else float(after)
    if not 0 <= seconds <= LONGEST_PAUSE:
        raise ValueError(f"after={after!r} is no time to wait: 0 seconds to a year.")
    return seconds


class ReplayError(RedisEventsError):
    """Raised when a replay is asked for what there is not, or for what may mean two things."""


class ActError(RedisEventsError):
    """Raised when somebody asked for what cannot be done to an entry, a consumer or a dead letter."""


class Skipped(RedisEventsError):
    """Recorded when somebody settled an event without running its receivers."""


class NotHere(RedisEventsError):
    """Recorded when a listener holds an event for a receiver that only another release of its service has."""

    def __str__(self) -> str:
        return "waiting for a listener that has this receiver"


class ReceiverPaused(RedisEventsError):
    """Recorded when a listener holds an event for a receiver that somebody has paused."""

    def __str__(self) -> str:
        return "its receiver is paused; it is due when that is resumed"


class ProcessDied(RedisEventsError):
    """Recorded when an event has ended its process MAX_DELIVERIES times."""
