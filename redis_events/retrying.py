"""Running held deliveries again when they are due."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial

from django.db import Error, close_old_connections, connections

from . import held
from .codec import Document, decode, plain
from .conf import conf
from .events import now
from .exceptions import DecodeError, Unfinished
from .models import HeldDelivery
from .once import OnceRunner
from .registry import Receiver
from .retry import DEAD, DONE, Outcome, default_retry
from .runner import AsyncRunner, Result, Run, call_all, log_failure, without_stranded
from .signals import event_settled
from .tally import Tally
from .transports.base import Delivery

logger = logging.getLogger("redis_events.listen")

UNPARK = 5.0
"""Seconds between two looks for parked deliveries of receivers that are not paused: a listener that learned of the
resuming late may have parked one more.
"""
PAGE = 500
"""Parked deliveries made due in one statement."""


class Retrier:
    """Polls the held deliveries of this process's receivers and runs those that are due."""

    def __init__(self, receivers: Sequence[Receiver], *, tally: Tally | None = None) -> None:
        self.counts: Counter[Outcome] = Counter()
        """Runs by outcome since the start, replays among them."""
        self._receivers = {receiver.name: receiver for receiver in receivers}
        self._aliases = held.aliases(receivers)
        self._async = AsyncRunner()
        self._stopping = threading.Event()
        self._once = OnceRunner(self._stopping)
        self._away: set[str] = set()
        self._running: tuple[HeldDelivery, str] | None = None
        self._hand = threading.Lock()
        self._stranded: list[tuple[HeldDelivery, str]] = []
        self._tally = tally
        self._paused: frozenset[str] = frozenset()
        self._next_unpark: dict[str, float] = {}

    def note_paused(self, names: Collection[str]) -> None:
        """Learn which receivers are paused: their deliveries stay as they are until they are resumed.

        Safe in any thread.
        """
        resumed = self._paused.difference(names)
        self._paused = frozenset(names)
        if resumed:
            self._next_unpark.clear()

    @property
    def in_flight(self) -> int:
        """Deliveries being run: one at a time."""
        return int(self._running is not None)

    def keep(self) -> None:
        """Keep the delivery that is being run; called by another thread. Raises django.db.Error."""
        with self._hand:
            if self._running:
                row, alias = self._running
                held.renew(row, using=alias)

    def run(self) -> None:
        """Run due deliveries until ``stop``."""
        try:
            while not self._stopping.wait(self._pause()):
                self.run_due()
        finally:
            self._close()

    def drain(self) -> None:
        """Run due deliveries until none is left, or ``stop``."""
        try:
            while self.run_due():
                pass
        finally:
            self._close()

    def _close(self) -> None:
        self._async.close()
        connections.close_all()

    def stop(self) -> None:
        """End ``run`` after the delivery in hand."""
        self._stopping.set()

    def run_due(self) -> int:
        """Run everything that is due now; how many runs that were."""
        close_old_connections()
        return sum(self._run_due(alias) for alias in self._aliases)

    def _run_due(self, alias: str) -> int:
        """One database's part; it being away keeps nobody from the others'."""
        count = 0
        try:
            self._release_stranded(alias)
            self._unpark(alias)
            for row in held.due_rows(self._unpaused(), using=alias, limit=conf.BATCH):
                count += not self._stopping.is_set() and self._run_row(row, alias)
            self._away.discard(alias)
        except Error as error:
            self._log_away(alias, error)
        return count

    def _unpark(self, alias: str) -> None:
        """At the start, after a change and from time to time: what is parked for nothing becomes due."""
        if time.monotonic() < self._next_unpark.get(alias, 0.0):
            return
        self._next_unpark[alias] = time.monotonic() + UNPARK  # first: of a change that comes now nothing is lost
        if held.unpark(self._unpaused(), using=alias, limit=PAGE) == PAGE:
            self._next_unpark[alias] = 0.0

    def _unpaused(self) -> tuple[str, ...]:
        paused = self._paused
        return tuple(name for name in self._receivers if name not in paused)

    def _run_row(self, row: HeldDelivery, alias: str) -> bool:
        if row.receiver in self._paused or not held.claim(row, using=alias):
            return False
        self._running = row, alias
        result = self._result(row, alias)
        with self._hand:  # a renewal that comes later would move the time of the next run
            self._running = None
        _, stranded = without_stranded([result])
        if stranded:
            self._stranded.append((row, alias))
            self._release_stranded(alias)  # now, if it is there again: after a stop nobody would
            return False
        if result.error or not result.run.receiver.has_inbox:
            held.finish(row, result.verdict, result.error, using=alias)
        self.counts[result.verdict.outcome] += 1
        if result.error:
            log_failure(result)
        if self._tally:
            self._tally.note([result], failed=[result] if result.error else [])
        event_settled.send_robust(Retrier, results=[result])
        return True

    def _release_stranded(self, alias: str) -> None:
        """Runs that failed because the database went away were none: their count is taken back when it is there."""
        for row, of in list(self._stranded):
            if of == alias:
                held.release(row, using=alias)
                self._stranded.remove((row, of))

    def _result(self, row: HeldDelivery, alias: str) -> Result:
        try:
            self._refuse_another(row)
            document = decode(bytes(row.raw), channel=row.channel, id=row.event_id)
        except (Unfinished, DecodeError) as error:  # it was an event once: MAX_EVENT_BYTES may be smaller now
            document = plain(bytes(row.raw), channel=row.channel, id=row.event_id)
            return Result(self._run_of(row, document), DEAD, error, 0.0)
        return self._call(self._run_of(row, document), row, alias)

    def _refuse_another(self, row: HeldDelivery) -> None:
        """Raise Unfinished when every run was begun: the claim counted them, the last one never said what it became."""
        allowed = (self._receivers[row.receiver].retry or default_retry()).attempts
        if row.attempt > allowed:
            row.attempt -= 1
            raise Unfinished(f"begun {row.attempt} times of {allowed}; the last run did not come to an end")

    def _run_of(self, row: HeldDelivery, document: Document) -> Run:
        return Run(
            receiver=self._receivers[row.receiver],
            document=document,
            delivery=Delivery(channel=row.channel, body=bytes(row.raw), group=row.group, id=row.entry_id),
            attempt=row.attempt,
            replayed=row.replayed,
        )

    def _call(self, run: Run, row: HeldDelivery, alias: str) -> Result:
        """A `once` receiver's row goes in the transaction of its effect; the others' is finished after the run."""
        durable = bool(row.entry_id)
        if run.receiver.has_inbox:
            done = partial(held.finish, row, DONE, None, using=alias)
            return self._once.call(run, durable=durable, and_then=done)
        run_all = self._async.call_all if run.receiver.is_async else call_all
        return run_all([run], durable=durable)[0]

    def _pause(self) -> float:
        """Seconds until the earliest delivery is due, at most POLL."""
        seconds = [conf.POLL, *(each for alias in self._aliases if (each := self._seconds_to_next(alias)) is not None)]
        return max(0.0, min(seconds))

    def _seconds_to_next(self, alias: str) -> float | None:
        try:
            earliest = held.next_due(self._unpaused(), using=alias)
        except Error as error:
            self._log_away(alias, error)
            return None
        return (earliest - now()).total_seconds() if earliest else None

    def _log_away(self, alias: str, error: Error) -> None:
        if alias not in self._away:
            logger.error("held deliveries in %r cannot be read, retries wait: %s", alias, held.complaint(error))
        self._away.add(alias)
