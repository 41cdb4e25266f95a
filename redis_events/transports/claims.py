"""Taking over what listeners that are gone have left pending: one entry at a time, each counted as a start."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from .. import heartbeat
from ..conf import conf
from .base import Delivery
from .client import Wire
from .keeper import Pair
from .roads import delivery, is_error
from .scripts import BURY, CLAIM

logger = logging.getLogger("redis_events.listen")


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
        self._in_hand: dict[Pair, set[str]] = {}
        self._was_last = False

    def __bool__(self) -> bool:
        return bool(self._abandoned)

    def in_hand(self, pair: Pair) -> set[str]:
        """Entry ids that were claimed and are not settled yet: they are settled at once, not with the next read."""
        return self._in_hand.setdefault(pair, set())

    def forget(self) -> None:
        """Drop what was listed: it will be listed again."""
        self._abandoned.clear()
        self._in_hand.clear()

    def look(self, wire: Wire, pairs: Sequence[Pair]) -> None:
        """List what is abandoned, and remove dead consumers that have nothing pending."""
        self.has_more = False
        consumers = _other_consumers(wire, pairs, self.consumer)
        alive = heartbeat.alive(wire, sorted({name.decode() for _, name, _ in consumers}))
        for pair, name, pending in consumers:
            is_alive = name.decode() in alive
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
            report_trimmed(entry.pair, entry.entry_id)
            return None
        # The first delivery came with a batch and says nothing; each claim since then was one start.
        claimed = delivery(*entry.pair, entry.entry_id, answer[1], starts=answer[0] - 1, is_repeated=True)
        self.in_hand(entry.pair).add(claimed.id)
        return claimed


def _other_consumers(wire: Wire, pairs: Sequence[Pair], own: str) -> list[tuple[Pair, bytes, int]]:
    if not pairs:
        return []
    answers = wire.call([("XINFO", "CONSUMERS", conf.redis_name(channel), group) for channel, group in pairs])
    found = [
        (pair, facts[b"name"], facts[b"pending"])
        for pair, answer in zip(pairs, answers, strict=True)
        if not is_error(answer)
        for facts in map(_facts, answer)
    ]
    return [each for each in found if each[1].decode() != own]


def _facts(answer: list[Any]) -> dict[bytes, Any]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def report_trimmed(pair: Pair, entry_id: bytes) -> None:
    """A pending entry is gone from its stream: somebody else trimmed it. It is settled; its outbox row can heal it."""
    logger.error("%s: the pending entry %s of %s was trimmed by somebody else", pair[0], entry_id.decode(), pair[1])
