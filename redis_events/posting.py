"""Trying at once: what a commit has left in the outbox is sent by whoever committed it, if that costs no wait.

What is not sent now waits in its row for a relay. So nobody waits for a turn, and while the server is away one caller
a second finds out whether it is back, within PUBLISH_TIMEOUT; for all others it is as if there were no Redis.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from django.core.signals import setting_changed
from django.db import Error

from . import outbox
from .exceptions import Refused, TransportError
from .outbox import LIMIT, Round, Written, is_of_channel
from .routing import create
from .transports.base import Outgoing
from .wording import one_line

if TYPE_CHECKING:
    from .transports.stream import StreamTransport

logger = logging.getLogger("redis_events.publish")

PROBE_EVERY = 1.0
"""Seconds between two tries while the server or the database is in trouble."""
MOST_FOR_OTHERS = 0.05
"""Seconds a caller goes on sending what others have left with it; then a relay is told."""


class Breaker:
    """Whether the server is worth trying now: one for all the databases of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._next_probe = 0.0

    @property
    def is_resting(self) -> bool:
        return self._is_open and time.monotonic() < self._next_probe

    def may_try(self) -> bool:
        """While there is trouble, one caller a second may."""
        if not self._is_open:
            return True
        with self._lock:
            if self.is_resting:
                return False
            self._next_probe = time.monotonic() + PROBE_EVERY
            return True

    def note_trouble(self, error: Exception) -> None:
        if not self._is_open:
            logger.error("events wait in the outbox, a relay sends them: %s", one_line(error))
        self._is_open, self._next_probe = True, time.monotonic() + PROBE_EVERY

    def note_success(self) -> bool:
        """Whether that was the end of the trouble."""
        was_open, self._is_open = self._is_open, False
        if was_open:
            logger.warning("sending again what commits leave in the outbox")
        return was_open


class Poster:
    """Sends what this process has committed to one database's outbox."""

    def __init__(self, alias: str, breaker: Breaker) -> None:
        self.alias = alias
        self._breaker = breaker
        self._transport = cast("StreamTransport", create("stream"))
        self._ids: deque[int] = deque()
        self._turn = threading.Lock()
        self._refused: set[str] = set()

    def send(self, batch: Sequence[Outgoing], /) -> None:
        """Send rows that were just committed, if nobody else is at it and there is no trouble. Raises nothing."""
        if self._breaker.is_resting:
            return
        ids = [each.id for each in batch if isinstance(each, Written)]
        self._ids.extend(id for id in ids[:LIMIT] if id)  # a caller must not be held up by a bulk of its own
        until = time.monotonic() + MOST_FOR_OTHERS
        # Who leaves ids and does not get the turn can rely on its holder: it looks again after giving it up.
        while self._ids and self._turn.acquire(blocking=False):
            try:
                self._send_queued()
            finally:
                self._turn.release()
            if time.monotonic() > until:
                break
        if self._ids or 0 in ids or len(ids) > LIMIT:
            self._wake_relays()

    def _send_queued(self) -> None:
        ids = [self._ids.popleft() for _ in range(min(len(self._ids), LIMIT))]
        if not ids or not self._breaker.may_try():
            return
        try:
            done = outbox.send_some(self._transport, using=self.alias, ids=ids)
            self._note_refusals(done)
            if self._breaker.note_success() or done.has_more:
                self._transport.wake_relays()
        except (TransportError, Error) as error:
            self._breaker.note_trouble(error)

    def _note_refusals(self, done: Round) -> None:
        """One line per change of state. Raises Refused where it is not only a channel's own trouble."""
        for channel, answer in done.refused.items():
            if not is_of_channel(answer):
                raise Refused(answer)
            if channel not in self._refused:
                logger.error("events for %s wait in the outbox: %s", channel, one_line(answer))
        accepted = self._refused & {each.channel for each in done.sent} - done.refused.keys()
        for channel in sorted(accepted):
            logger.warning("events for %s leave the outbox again", channel)
        self._refused = (self._refused | done.refused.keys()) - accepted

    def _wake_relays(self) -> None:
        if not self._breaker.is_resting and self._turn.acquire(blocking=False):
            try:
                self._transport.wake_relays()
            except TransportError as error:
                self._breaker.note_trouble(error)
            finally:
                self._turn.release()


_posters: dict[str, Poster] = {}
_breaker = Breaker()


def poster_for(alias: str) -> Poster:
    """This process's poster for a database: one, however many threads ask for it first at the same moment."""
    found = _posters.get(alias)
    return found or _posters.setdefault(alias, Poster(alias, _breaker))


def reset(**kwargs: Any) -> None:
    """Forget every connection without closing it: after a fork it is the parent's, after a setting it is elsewhere."""
    global _breaker
    if kwargs.get("setting", "REDIS_EVENTS") == "REDIS_EVENTS":
        _posters.clear()
        _breaker = Breaker()


setting_changed.connect(reset, dispatch_uid="redis_events.posting")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)
