"""Handing batches to a transport without getting in anybody's way.

One caller at a time holds the connection; the others leave their batch with it. When the server stops answering, that
one caller waits, up to PUBLISH_TIMEOUT; the rest go on with their work. (With redis-py's defaults each waits 4 to 6 s.)
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from .conf import conf
from .exceptions import TransportError, Unreachable
from .signals import event_published, publish_failed
from .transports.base import Outgoing, Transport
from .wording import counted

logger = logging.getLogger("redis_events.publish")

HANDOVER = 0.01
"""Seconds a caller waits for the one that holds the connection before it leaves its batch there and goes on."""
PROBE_EVERY = 1.0
"""Seconds between two tries while the server is away."""


class Sender:
    """The way out through one transport, for every thread of this process."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.failed = 0
        """Events lost since the server was last seen."""
        self._queue: deque[Sequence[Outgoing]] = deque()
        self._turn = threading.Lock()
        self._turn_began = 0.0
        self._left_behind = False
        self._error: TransportError | None = None
        self._telling = threading.Lock()
        self._is_told = False
        """Whether the log has a line for that: who publishes with ``strict`` is told by the exception."""
        self._refused: set[str] = set()
        self._next_probe = 0.0

    def send(self, batch: Sequence[Outgoing], *, strict: bool = False) -> None:
        """Send a batch, now. Trouble is counted, logged once and signalled; with ``strict`` it is raised."""
        if strict:
            self._send_strictly(batch)
        elif self._is_resting():
            self._lose(batch, self._error)
        else:
            self._queue.append(batch)
            self._share_turn()

    def _share_turn(self) -> None:
        if self._turn.acquire(timeout=self._patience()):
            self._take_turn(self._send_queued)
            return
        self._left_behind = True
        self._catch_up()

    def _is_resting(self) -> bool:
        return self._error is not None and time.monotonic() < self._next_probe

    def _patience(self) -> float:
        """Seconds worth waiting for the turn: none while the server is away, else until its holder has had 10 ms."""
        if self._error:
            return 0.0
        return max(0.001, self._turn_began + HANDOVER - time.monotonic())

    def _take_turn(self, work: Callable[[], None]) -> None:
        self._turn_began = time.monotonic()
        try:
            work()
        finally:
            self._turn.release()
            self._catch_up()

    def _catch_up(self) -> None:
        """Send what others left behind. They mark it, then try for the turn; its holder gives it up, then looks."""
        while self._left_behind and self._turn.acquire(blocking=False):
            try:
                self._left_behind = False
                self._send_queued()
            finally:
                self._turn.release()

    def _send_queued(self) -> None:
        batch: list[Outgoing] = []
        while self._queue:
            batch += self._queue.popleft()
        if not batch:
            return
        if self._is_resting():
            self._lose(batch, self._error)
            return
        try:
            self._attempt(batch)
        except TransportError as error:
            self._lose(batch if error.lost is None else error.lost, error)

    def _send_strictly(self, batch: Sequence[Outgoing]) -> None:
        if self._error and self._is_resting():
            raise self._error
        if not self._turn.acquire(timeout=2 * conf.PUBLISH_TIMEOUT):
            raise Unreachable("the connection is busy: its holder gets no answer")
        self._take_turn(lambda: self._attempt(batch))

    def _attempt(self, batch: Sequence[Outgoing]) -> None:
        try:
            self.transport.send(batch)
        except TransportError as error:
            if error.lost is None:
                self._error, self._next_probe = error, time.monotonic() + PROBE_EVERY
            raise
        if self._error or self._refused:
            self._note_return(batch)
        if event_published.receivers:
            event_published.send_robust(type(self.transport), batch=batch)

    def _tell(self, error: TransportError | None) -> None:
        """One line per change of state. What the server refuses for one channel does not concern the others."""
        if error is None or error.lost is None:
            with self._telling:  # all who come while the server is away lose something, many at once
                is_told, self._is_told = self._is_told, True
            if not is_told:
                logger.error("cannot publish: events are lost until it works again, tried every second: %s", error)
            return
        channels = {outgoing.channel for outgoing in error.lost} - self._refused
        if channels:
            logger.error("cannot publish to %s, whose events are lost: %s", ", ".join(sorted(channels)), error)
        self._refused |= channels

    def _note_return(self, batch: Sequence[Outgoing]) -> None:
        if self._error:
            if self._is_told:
                logger.warning("publishing again; %s lost", counted(self.failed, "event"))
            self._error, self._is_told, self.failed = None, False, 0
        accepted = self._refused & {outgoing.channel for outgoing in batch}
        if accepted:
            logger.warning("publishing to %s again", ", ".join(sorted(accepted)))
        self._refused -= accepted

    def _lose(self, batch: Sequence[Outgoing], error: TransportError | None) -> None:
        self.failed += len(batch)
        self._tell(error)
        publish_failed.send_robust(type(self.transport), batch=batch, error=error)
