"""Holding on to stream deliveries while their receivers run, looking after the streams, writing floors down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import floors
from ..conf import conf
from ..exceptions import TransportError
from .client import Command, Wire, by_name
from .roads import GROUP_IS_GONE, is_error
from .scripts import LEASE
from .trimming import Trimmer

logger = logging.getLogger("redis_events.listen")

RENEWED_AT_ONCE = 1_000
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
        self._refused: dict[str, str] = {}
        """What the server said last to leases of a channel; ``""`` when it renewed them."""
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
        starts = dict.fromkeys(pairs, "-")
        while starts:
            asked = list(starts.items())
            answers = self._call(
                [
                    ("EVAL", LEASE, 1, conf.redis_name(channel), group, self.consumer, start, RENEWED_AT_ONCE)
                    for (channel, group), start in asked
                ]
            )
            starts = {}
            for (pair, _), answer in zip(asked, answers, strict=True):
                self._complain(pair[0], answer)
                if not is_error(answer) and answer:
                    starts[pair] = answer.decode()

    def _complain(self, channel: str, answer: Any) -> None:
        """One line when it begins. That a group is gone is told, and mended, where it is read."""
        why = str(answer) if is_error(answer) and answer.code not in GROUP_IS_GONE else ""
        if why and not self._refused.get(channel):
            text = "cannot hold on to what is being run on %s: %s. What takes longer than CLAIM_AFTER may run twice."
            logger.error(text, channel, why)
        self._refused[channel] = why

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
