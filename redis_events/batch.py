"""The transaction's batch: what was published inside it leaves after its commit, in order, in one round trip.

Every outermost ``atomic`` (not a TestCase's own) has an ordered list of weak references to its batches. A rolled-back
savepoint drops its hook and with it the batch; the first hook to run sends every batch still alive. Measured: 1,000
``update_or_create`` in one transaction make 1 round trip instead of 1,000, for 0.4 µs a publish.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic

from .exceptions import PublishError
from .transports.base import Outgoing

_ATTRIBUTE = "_redis_events_transaction"


class Way(Protocol):
    """Where events go after the commit: the sender of a transport, or the poster of a database's outbox."""

    def send(self, batch: Sequence[Outgoing], /) -> None: ...


Waiting = tuple[Way, Outgoing]


class Transaction:
    """The batches of one outermost ``atomic``."""

    __slots__ = ("_batches", "identity")

    def __init__(self, identity: tuple[Atomic, str | None] | None = None) -> None:
        self.identity = identity
        self._batches: list[weakref.ref[Batch]] = []

    @property
    def is_alive(self) -> bool:
        """Whether a batch is still to be sent: none is left after a commit, and none after a rollback."""
        while self._batches and self._batches[-1]() is None:
            self._batches.pop()
        return bool(self._batches)

    def open_batch(self) -> Batch:
        batch = Batch(self)
        self._batches.append(weakref.ref(batch))
        return batch

    def send(self) -> None:
        """Send every batch still alive, in order; one round trip for each transport."""
        by_way: dict[Way, list[Outgoing]] = {}
        for way, outgoing in self.take():
            by_way.setdefault(way, []).append(outgoing)
        for way, batch in by_way.items():
            way.send(batch)

    def take(self) -> list[Waiting]:
        taken = []
        for reference in self._batches:
            batch = reference()
            if batch:
                taken += batch.events
                batch.events = []
        return taken


class Batch:
    """Events published under one set of savepoints; its ``send`` is the ``on_commit`` hook."""

    __slots__ = ("__weakref__", "blocks", "events", "savepoints", "transaction")

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.events: list[Waiting] = []
        self.blocks: list[Atomic] = []
        self.savepoints: list[str | None] = []

    def is_for(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether a publish right now stands in the very blocks this batch was opened in: the usual case, told fast."""
        return bool(self.savepoints == connection.savepoint_ids and self.blocks == connection.atomic_blocks)

    def send(self) -> None:
        # A method, because Django logs a hook that raises by its __qualname__: an instance has none.
        if self.events:
            self.transaction.send()


def add(waiting: Sequence[Waiting], *, using: str) -> None:
    """Send events when the transaction on ``using`` commits, or now when there is none.

    Raises PublishError with autocommit off and no ``atomic``: Django has no commit hook there.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        _open_batch(connection).events.extend(waiting)
        return
    require_commits(connection)
    now = Transaction()
    batch = now.open_batch()
    batch.events.extend(waiting)
    now.send()


def require_commits(connection: BaseDatabaseWrapper) -> None:
    """Raise PublishError where autocommit is off, outside of ``atomic``."""
    if not is_autocommit(connection):
        raise PublishError(
            f"autocommit is off on {connection.alias!r}: publish inside transaction.atomic(), which has a commit."
        )


def is_autocommit(connection: BaseDatabaseWrapper) -> bool:
    """Whether Django commits each statement by itself while no ``atomic`` is open."""
    # get_autocommit() would connect to the database, for nothing.
    return bool(connection.autocommit if connection.connection else connection.settings_dict["AUTOCOMMIT"])


def _open_batch(connection: BaseDatabaseWrapper) -> Batch:
    last = _batch(connection.run_on_commit[-1][1]) if connection.run_on_commit else None
    if last and last.blocks and last.is_for(connection):
        return last
    identity = _outermost(connection)
    if identity is None:  # directly under a TestCase: as in autocommit, each on its own
        return _register(Transaction(), connection)
    current: Transaction | None = connection.__dict__.get(_ATTRIBUTE)
    if current is None or current.identity != identity or not current.is_alive:
        current = connection.__dict__[_ATTRIBUTE] = Transaction(identity)
    batch = _last_batch(connection, current) or _register(current, connection)
    batch.blocks, batch.savepoints = list(connection.atomic_blocks), list(connection.savepoint_ids)
    return batch


def _outermost(connection: BaseDatabaseWrapper) -> tuple[Atomic, str | None] | None:
    """The outermost ``atomic`` that is no TestCase's, with its savepoint: a decorator enters one object many times."""
    # The first block has no savepoint; each further one has an entry, None where it was told to have none.
    entered = zip(connection.atomic_blocks, [None, *connection.savepoint_ids], strict=False)
    return next(((block, name) for block, name in entered if not getattr(block, "_from_testcase", False)), None)


def _last_batch(connection: BaseDatabaseWrapper, current: Transaction) -> Batch | None:
    """The last hook's batch, when it belongs to this transaction and would be rolled back with us."""
    if not connection.run_on_commit:
        return None
    savepoints, hook, *_ = connection.run_on_commit[-1]
    batch = _batch(hook)
    if batch is None or batch.transaction is not current:
        return None
    return batch if _named(savepoints) == _named(connection.savepoint_ids) else None


def _batch(hook: Any) -> Batch | None:
    owner = getattr(hook, "__self__", None)
    return owner if isinstance(owner, Batch) else None


def _named(savepoints: Any) -> set[str]:
    return {savepoint for savepoint in savepoints if savepoint is not None}


def _register(current: Transaction, connection: BaseDatabaseWrapper) -> Batch:
    batch = current.open_batch()
    transaction.on_commit(batch.send, using=connection.alias, robust=True)
    return batch


def is_open(connection: BaseDatabaseWrapper) -> bool:
    """Whether a transaction is open that may commit: a TestCase's own never does."""
    return connection.in_atomic_block and _outermost(connection) is not None


def uncommitted() -> list[Waiting]:
    """What waits for a commit on any connection of this thread, in order."""
    hooks = [hook for connection in connections.all(initialized_only=True) for _, hook, *_ in connection.run_on_commit]
    return [waiting for hook in hooks for waiting in getattr(_batch(hook), "events", ())]
