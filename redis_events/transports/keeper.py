"""Holding on to stream deliveries while their receivers run, looking after the streams, writing floors down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import floors
from ..conf import conf
from ..exceptions import TransportError
from .client import Command, Wire, by_name
from .roads import is_error
from .scripts import LEASE
from .trimming import Trimmer

MOST_PENDING = 1_000
"""Own pending entries whose lease is renewed in one step."""
TRIM_EVERY = 10.0

Pair = tuple[str, str]
"""A channel and a group."""


class Keeper:
    """Holds on to deliveries while their receivers run: leases; and trims. It never waits for a database."""

    def __init__(self, location: str, consumer: str) -> None:
        self.location = location
        self.consumer = consumer
        self._wire: Wire | None = None
        self._next: dict[str, float] = {}
        self._trimmer = Trimmer()

    def keep(self, pairs: Sequence[Pair]) -> None:
        """Do what is due. Raises TransportError."""
        if not pairs:
            return
        try:
            self._wire = self._wire or Wire(self.location, timeout=1.0)
            self._every(conf.CLAIM_AFTER / 3, "leases", lambda: self._renew(pairs))
            self._every(TRIM_EVERY, "trim", lambda: self._trim({channel for channel, _ in pairs}))
        except TransportError:
            if self._wire:
                self._wire.close()
            self._wire = None
            raise

    def _every(self, seconds: float, name: str, work: Callable[[], None]) -> None:
        if time.monotonic() >= self._next.get(name, 0.0):
            self._next[name] = time.monotonic() + seconds
            work()

    def _call(self, commands: list[Command]) -> list[Any]:
        assert self._wire
        return self._wire.call(commands)

    def _renew(self, pairs: Sequence[Pair]) -> None:
        arguments = (self.consumer, MOST_PENDING)
        self._call([("EVAL", LEASE, 1, conf.redis_name(channel), group, *arguments) for channel, group in pairs])

    def _trim(self, channels: set[str]) -> None:
        assert self._wire
        self._trimmer.trim(self._wire, channels)


class Recorder:
    """Writes floors down when they have moved."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._wire: Wire | None = None
        self._floors: dict[Pair, str] = {}

    def record(self, pairs: Sequence[Pair]) -> None:
        """Look, and write. Raises TransportError."""
        try:
            self._wire = self._wire or Wire(self.location, timeout=1.0)
            moved = self._moved(self._wire, pairs)
        except TransportError:
            self.close()
            raise
        if moved and floors.save(moved):
            self._floors |= moved

    def close(self) -> None:
        """Give the connection back."""
        if self._wire:
            self._wire.close()
        self._wire = None

    def _moved(self, wire: Wire, pairs: Sequence[Pair]) -> dict[Pair, str]:
        names = [(conf.redis_name(channel), group) for channel, group in pairs]
        groups = wire.call([("XINFO", "GROUPS", name) for name, _ in names])
        pending = wire.call([("XPENDING", name, group) for name, group in names])
        found = {}
        for pair, facts, summary in zip(pairs, groups, pending, strict=True):
            if not is_error(facts) and not is_error(summary):
                floor = _floor(pair[1], facts, summary)
                if floor and self._floors.get(pair) != floor:
                    found[pair] = floor
        return found


def _floor(group: str, facts: Any, summary: Any) -> str | None:
    """The id up to which all is settled: before the oldest pending entry, else the last delivered."""
    for each in facts:
        known = by_name(each)
        if known[b"name"] == group.encode():  # others may have names that are no text
            return floors.before(summary[1].decode()) if summary[0] else known[b"last-delivered-id"].decode()
    return None
