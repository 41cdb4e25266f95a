"""Running `once` receivers: what they write, and that they have written it, is one transaction.

A batch of events for one receiver shares a transaction, which saves a commit an event. When any run of it goes wrong
all of it is undone, and each is run again in a transaction of its own: so a failure concerns its own event only.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import Error, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from . import held, inbox
from .conf import conf
from .exceptions import TransactionBroken
from .retry import DONE
from .runner import Result, Run, Surrounding, call, event_restored, identity, judged, stranded
from .wording import one_line

logger = logging.getLogger("redis_events.listen")

MOST_CONFLICTS = 10
"""Conflicts in a row after which a lone run counts as failed: it may be in its own way."""
LONGEST = 0.5
"""Seconds a batch's transaction may take before the next ones are smaller: it keeps locks, on SQLite the only one."""
IN_TRANSACTION = 2
"""libpq's PQTRANS_INTRANS: neither ended (0) nor broken (3)."""
DEADLOCKS = {"40001", "40P01"}
"""SQLSTATE: serialization_failure, deadlock_detected."""
BUSY = {5, 6}
"""Result codes of SQLite: SQLITE_BUSY, SQLITE_LOCKED."""


class _Undone(Exception):
    """Raised in a transaction to roll it back: a run in it did not end well."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


class OnceRunner:
    """Runs `once` receivers for one thread; ``stopping`` ends its patience with conflicts."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._sizes: dict[str, int] = {}
        self._away: dict[str, BaseException | None] = {}
        """Databases that are away, for the batch in hand, with what showed it."""

    def call_all(self, runs: Sequence[Run], *, durable: bool) -> list[Result]:
        """Run a batch, receiver by receiver. Where a database is away, the rest of its runs are not begun."""
        self._away.clear()
        by_receiver: dict[str, list[Run]] = {}
        for run in runs:
            by_receiver.setdefault(run.receiver.name, []).append(run)
        return [result for own in by_receiver.values() for result in self._in_order(own, durable)]

    def _in_order(self, runs: Sequence[Run], durable: bool) -> list[Result]:
        results: list[Result] = []
        alias = identity(runs[0])[0]
        while left := runs[len(results) :]:
            if alias in self._away:  # each would wait as long to be told so again
                return results + [stranded(run, self._away[alias], durable) for run in left]
            size = self._sizes.get(runs[0].receiver.name, conf.BATCH)
            results += self._next(left[:size], durable)
        return results

    def _next(self, runs: Sequence[Run], durable: bool) -> list[Result]:
        """The results of some runs, or of the first of them; none when they are to be tried again, fewer at a time."""
        if len(runs) == 1:
            self._resize(runs, quick=True)
            return self._one_by_one(runs, durable)
        began = time.perf_counter()
        stopped: BaseException | None = None
        try:
            results = self._committed(runs, durable)
        except _Undone as undone:
            stopped = undone.result.error
        except Error as error:
            stopped = error
        if stopped:  # not in there: what is raised from now on would have this one in its traceback
            return self._undone(runs, stopped, durable)
        self._resize(runs, quick=time.perf_counter() - began < LONGEST)
        return results

    def _undone(self, runs: Sequence[Run], error: BaseException | None, durable: bool) -> list[Result]:
        alias = identity(runs[0])[0]
        if not is_passing(error, alias):
            return self._one_by_one(runs, durable)
        if held.is_away(alias):
            self._away[alias] = error
            return []
        self._note(runs, error)
        self._resize(runs, quick=False)
        self._pause(1)
        return []

    def _one_by_one(self, runs: Sequence[Run], durable: bool) -> list[Result]:
        results: list[Result] = []
        for run in runs:
            result = self.call(run, durable=durable)
            results.append(result)
            if result.is_stranded:
                self._away[identity(run)[0]] = result.error
                break
        return results

    def _note(self, runs: Sequence[Run], error: BaseException | None) -> None:
        """One line when it begins, and no other until all is as it was."""
        name = runs[0].receiver.name
        if name not in self._sizes:
            text = "%s is in a conflict over its database; its transactions are smaller for a while: %s"
            logger.warning(text, one_line(name), one_line(error))

    def call(self, run: Run, *, durable: bool, and_then: Callable[[], None] | None = None) -> Result:
        """One run in a transaction of its own, ``and_then`` with it. What passes by itself is tried again.

        Once more even when stopping: a connection that was lost is a new one then.
        """
        alias = identity(run)[0]
        for tries in range(1, MOST_CONFLICTS + 1):
            result = self._alone(run, durable, and_then)
            is_its_own = not is_passing(result.error, alias)
            if result.error is None or (is_its_own and not _is_lost(alias)):
                break
            if held.is_away(alias):
                return stranded(run, result.error, durable)
            if is_its_own or (tries > 1 and self._stopping.is_set()):
                break
            self._pause(tries)
        return result

    def _alone(self, run: Run, durable: bool, and_then: Callable[[], None] | None) -> Result:
        began = time.perf_counter()
        try:
            return self._committed([run], durable, and_then)[0]
        except _Undone as undone:
            return undone.result
        except Error as error:  # the inbox, what comes with the run, or COMMIT itself: a deferred constraint
            return judged(run, error, began, durable)

    def _committed(
        self, runs: Sequence[Run], durable: bool, and_then: Callable[[], None] | None = None
    ) -> list[Result]:
        """Results of runs that are all committed. Raises _Undone or django.db.Error, and none is."""
        alias = identity(runs[0])[0]
        digests = [inbox.digest(*identity(run)[1:]) for run in runs]
        with event_restored(), _transaction(alias) as connection:
            left = inbox.insert(digests, using=alias)
            pairs = zip(runs, digests, strict=True)
            results = [_result(run, digest, left, connection, durable) for run, digest in pairs]
            if and_then:
                and_then()
        return results

    def _resize(self, runs: Sequence[Run], *, quick: bool) -> None:
        """Halve the batches of a receiver whose transactions are in somebody's way; let them grow again."""
        name = runs[0].receiver.name
        size = self._sizes.pop(name, conf.BATCH)
        size = size + 1 + size // 4 if quick else min(size, len(runs)) // 2
        if size < conf.BATCH:
            self._sizes[name] = max(size, 1)

    def _pause(self, tries: int) -> None:
        self._stopping.wait(random.uniform(0, min(1.0, 0.01 * 2.0**tries)))


@contextmanager
def _transaction(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """A transaction in which hooks for its commit can spoil nothing: by then it is committed."""
    with Surrounding(alias, True, False):
        connection = connections[alias]
        yield connection
        hooks: list[Any] = connection.run_on_commit
        hooks[:] = [(savepoints, hook, True) for savepoints, hook, *_ in hooks]  # the last one means robust


def _result(run: Run, digest: bytes, left: set[bytes], connection: BaseDatabaseWrapper, durable: bool) -> Result:
    """Run it, unless its effect is there, also when the same event is twice in a batch. Raises _Undone."""
    if digest not in left:
        return Result(run, DONE, None, 0.0)
    left.remove(digest)
    began = time.perf_counter()
    result = call(run, durable=durable)
    if result.error is None and not _is_whole(connection):
        what = "it left its transaction so that nothing can be committed: let database errors out, close nothing"
        result = judged(run, TransactionBroken(what), began, durable)
    if result.error:
        raise _Undone(result)
    return result


def _is_whole(connection: BaseDatabaseWrapper) -> bool:
    """Whether COMMIT would commit. PostgreSQL answers one that cannot with a ROLLBACK, and with no error."""
    if connection.needs_rollback or not connection.connection:
        return False
    if connection.vendor == "postgresql":
        return bool(connection.connection.info.transaction_status == IN_TRANSACTION)
    with connection.wrap_database_errors:
        return connection.vendor != "sqlite" or bool(connection.connection.in_transaction)


def is_passing(error: BaseException | None, alias: str) -> bool:
    """Whether a transaction failed for what others did, not its receiver: a conflict, or a connection that is gone."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    cause = error.__cause__
    if getattr(cause, "sqlstate", None) in DEADLOCKS or getattr(cause, "pgcode", None) in DEADLOCKS:
        return True
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in BUSY:
        return True
    return _is_lost(alias)


def _is_lost(alias: str) -> bool:
    """Whether this thread's connection is no more: Django closes one on which ROLLBACK fails."""
    return connections[alias].connection is None
