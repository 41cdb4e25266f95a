"""Taking over what listeners that are gone have left pending: one entry at a time, each counted as a start."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from .. import heartbeat
from ..conf import conf
from .base import Delivery
from .client import Wire, by_name
from .keeper import Pair
from .roads import delivery, is_error
from .scripts import BURY, CLAIM, UNDO

logger = logging.getLogger("redis_events.listen")

SILENCE = 3.0
"""Seconds without a sign before a listener without a heartbeat counts as dead: with it, about ten in all."""


class Abandoned(msgspec.Struct, frozen=True):
    """A pending entry whose consumer seems to be gone. ``idle`` is in milliseconds."""

    pair: Pair
    owner: bytes
    entry_id: bytes
    idle: int


class Claims:
    """The pending entries of dead consumers, and of live ones that have not shown them a sign for CLAIM_AFTER."""

    def __init__(self, consumer: str) -> None:
        self.consumer = consumer
        self.has_more = False
        """Whether the last look has left some out: look again at once."""
        self._abandoned: deque[Abandoned] = deque()
        self._in_hand: dict[Pair, dict[str, int]] = {}
        self._was_last = False
        self._has_looked = False
        self._trusting_until = 0.0

    def __bool__(self) -> bool:
        return bool(self._abandoned)

    def holds(self, pair: Pair, ids: Sequence[str]) -> bool:
        """Whether one of these was claimed and is not settled yet: it is settled at once, not with the next read."""
        return not self._in_hand.get(pair, {}).keys().isdisjoint(ids)

    def finish(self, pair: Pair, ids: Sequence[str]) -> None:
        """These are settled."""
        for id in ids if pair in self._in_hand else ():
            self._in_hand[pair].pop(id, None)

    def forget(self) -> None:
        """The connection is lost. What was listed is listed again, once the others had time to come back too."""
        self._abandoned.clear()
        self._in_hand.clear()
        self._trusting_until = time.monotonic() + SILENCE if self._has_looked else 0.0

    def give_back(self, wire: Wire) -> None:
        """Take back the start that was counted for what we were asked to stop before running. Raises TransportError."""
        wire.call(
            [
                ("EVAL", UNDO, 1, conf.redis_name(pair[0]), pair[1], self.consumer, id, count)
                for pair, counts in self._in_hand.items()
                for id, count in counts.items()
            ]
        )

    def look(self, wire: Wire, pairs: Sequence[Pair]) -> None:
        """List what is abandoned, and remove dead consumers that have nothing pending."""
        self.has_more, self._has_looked = False, True
        consumers = _other_consumers(wire, pairs, self.consumer)
        alive = heartbeat.alive(wire, sorted({_text(name) for _, name, _, _ in consumers}))
        for pair, name, pending, idle in consumers:
            # Right after a restart or FLUSHALL nobody has a heartbeat: those that just did something are alive.
            is_alive = _text(name) in alive or idle < SILENCE * 1000 or time.monotonic() < self._trusting_until
            if pending:
                self._list(wire, pair, name, idle=int(conf.CLAIM_AFTER * 1000) if is_alive else 0)
            elif not is_alive:
                wire.call([("EVAL", BURY, 1, conf.redis_name(pair[0]), pair[1], name)])

    def _list(self, wire: Wire, pair: Pair, name: bytes, *, idle: int) -> None:
        channel, group = pair
        command = ("XPENDING", conf.redis_name(channel), group, "IDLE", idle, "-", "+", conf.BATCH, name)
        listed = wire.call([command])[0]
        if is_error(listed):
            return
        self.has_more |= len(listed) == conf.BATCH
        self._abandoned.extend(Abandoned(pair, name, entry[0], idle) for entry in listed)

    def take(self, wire: Wire) -> list[Delivery]:
        """At most one, and not twice in a row: new events get their turn."""
        if self._was_last:
            self._was_last = False
            return []
        while self._abandoned:
            claimed = self._claim(wire, self._abandoned.popleft())
            if claimed:
                self._was_last = True
                return [claimed]
        return []

    def _claim(self, wire: Wire, entry: Abandoned) -> Delivery | None:
        channel, group = entry.pair
        arguments = (group, self.consumer, entry.owner, entry.entry_id, entry.idle)
        answer = wire.call([("EVAL", CLAIM, 1, conf.redis_name(channel), *arguments)])[0]
        if is_error(answer) or not answer:
            return None
        if not answer[1:] or not answer[1]:
            report_trimmed(entry.pair, [entry.entry_id.decode()])
            return None
        # The first delivery came with a batch and says nothing; each claim since then was one start.
        claimed = delivery(*entry.pair, entry.entry_id, answer[1], starts=answer[0] - 1, is_repeated=True)
        self._in_hand.setdefault(entry.pair, {})[claimed.id] = answer[0]
        return claimed


def _other_consumers(wire: Wire, pairs: Sequence[Pair], own: str) -> list[tuple[Pair, bytes, int, int]]:
    """The stream and group, name, number of pending entries and idle milliseconds of each."""
    if not pairs:
        return []
    answers = wire.call([("XINFO", "CONSUMERS", conf.redis_name(channel), group) for channel, group in pairs])
    found = [
        (pair, facts[b"name"], facts[b"pending"], facts[b"idle"])
        for pair, answer in zip(pairs, answers, strict=True)
        if not is_error(answer)
        for facts in map(by_name, answer)
    ]
    return [each for each in found if _text(each[1]) != own]


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


def report_trimmed(pair: Pair, ids: Sequence[str]) -> None:
    """Pending entries are gone from their stream: somebody else trimmed it. They are settled."""
    if ids:
        what = "%s: entries pending in %s were trimmed by somebody else: %s, the first %s"
        logger.error(what, *pair, len(ids), ids[0])
