"""Holding on to stream deliveries while their receivers run, and looking after the streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import floors
from ..conf import conf
from ..exceptions import TransportError
from .client import Command, Wire
from .roads import is_error
from .scripts import LEASE
from .trimming import Trimmer

MOST_PENDING = 1_000
"""Own pending entries whose lease is renewed in one step."""
TRIM_EVERY = 10.0
FLOORS_EVERY = 2.0

Pair = tuple[str, str]
"""A channel and a group."""


class Keeper:
    """Holds on to deliveries while their receivers run: leases; and writes floors down, and trims."""

    def __init__(self, location: str, consumer: str) -> None:
        self.location = location
        self.consumer = consumer
        self._wire: Wire | None = None
        self._next: dict[str, float] = {}
        self._floors: dict[Pair, str] = {}
        self._trimmer = Trimmer()

    def keep(self, pairs: Sequence[Pair]) -> None:
        """Do what is due. Raises TransportError."""
        if not pairs:
            return
        try:
            self._wire = self._wire or Wire(self.location, timeout=1.0)
            self._every(conf.CLAIM_AFTER / 3, "leases", lambda: self._renew(pairs))
            self._every(FLOORS_EVERY, "floors", lambda: self._save_floors(pairs))
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

    def _save_floors(self, pairs: Sequence[Pair]) -> None:
        names = [(conf.redis_name(channel), group) for channel, group in pairs]
        groups = self._call([("XINFO", "GROUPS", name) for name, _ in names])
        pending = self._call([("XPENDING", name, group) for name, group in names])
        found = {}
        for pair, facts, summary in zip(pairs, groups, pending, strict=True):
            if not is_error(facts) and not is_error(summary):
                floor = _floor(pair[1], facts, summary)
                if floor and self._floors.get(pair) != floor:
                    found[pair] = floor
        if floors.save(found):
            self._floors |= found

    def _trim(self, channels: set[str]) -> None:
        assert self._wire
        self._trimmer.trim(self._wire, channels)


def _floor(group: str, facts: Any, summary: Any) -> str | None:
    """The id up to which all is settled: before the oldest pending entry, else the last delivered."""
    for each in facts:
        known = dict(zip(each[::2], each[1::2], strict=True))
        if known[b"name"].decode() == group:
            return floors.before(summary[1].decode()) if summary[0] else known[b"last-delivered-id"].decode()
    return None
