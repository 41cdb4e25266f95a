"""Roads: blocked connections that read streams for a group."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from ..conf import conf
from .base import Delivery
from .client import Command, ErrorReply, Wire, by_name

BLOCK = 2.0
"""Seconds a read blocks on the server; a road without an answer for BLOCK + MARGIN is dead."""
MARGIN = 3.0
GROUP_IS_GONE = ("NOGROUP", "UNBLOCKED", "WRONGTYPE")
"""What the server answers when a stream or group went away: told apart, and mended, by looking again."""
SENT_AGAIN = {b"event", b"settled"}
"""The fields of an entry that was lost and sent again: ``settled`` names, parted by spaces, the groups that had it."""


class Road:
    """One blocked connection, one group, one stream channel (or several, where there are very many).

    What was settled is acknowledged in the same write that reads on: one round trip a batch. While there is a backlog
    the next batch is read ahead, so that nobody waits for that round trip either.
    """

    def __init__(self, wire: Wire, *, group: str, channels: Sequence[str], consumer: str) -> None:
        self.wire = wire
        self.group = group
        self.channels = tuple(channels)
        self.settled: dict[str, list[str]] = {}
        """Entry ids to acknowledge with the next write, by channel."""
        self.is_full = False
        """Whether the last read brought all it may: there is a backlog."""
        self.is_blocked = False
        """Whether a read waits on the server, which looks at no further command meanwhile."""
        self._names = {conf.redis_name(channel).encode(): channel for channel in channels}
        self._consumer = consumer
        self._asked_at: float | None = None
        self._awaited: list[tuple[str, list[str]] | None] = []
        """What the replies to come are to, in order: None is a read, else the ids that were acknowledged."""
        self._replies: list[Any] = []
        self._count = 0

    @property
    def is_asked(self) -> bool:
        """Whether the answer to a read is still to come."""
        return None in self._awaited

    @property
    def is_ahead(self) -> bool:
        """Whether a read is under way that is answered at once, also with nothing."""
        return self.is_asked and not self.is_blocked

    @property
    def is_answered(self) -> bool:
        """Whether the answer to a read is here already, so that the socket has nothing to tell."""
        return bool(self._replies) and None in self._awaited[: len(self._replies)]

    def ask(self, limit: int, *, blocks: bool, ahead: bool) -> None:
        """Acknowledge, and read on where no read is under way; with ``ahead`` also where one is."""
        acknowledged, self.settled = list(self.settled.items()), {}
        commands = [acknowledgement(channel, self.group, ids) for channel, ids in acknowledged]
        self._awaited += acknowledged
        if not self.is_asked or (ahead and self._awaited.count(None) == 1 and not self.is_blocked):
            commands.append(self._read(limit, blocks=blocks and not self.is_asked))
            self._awaited.append(None)
        if commands:
            self.wire.write(commands)

    def _read(self, limit: int, *, blocks: bool) -> Command:
        self._count = max(1, limit // len(self.channels))
        self.is_blocked = blocks
        self._asked_at = self._asked_at or time.monotonic()
        return (
            *("XREADGROUP", "GROUP", self.group, self._consumer, "COUNT", self._count),
            *(("BLOCK", int(BLOCK * 1000)) if blocks else ()),
            "STREAMS",
            *self._names,
            *(">" for _ in self._names),
        )

    def collect(self) -> tuple[list[tuple[str, list[str]]], Any] | None:
        """The acknowledged ids by channel and the answer to the first read; None while it is not all there.

        A refused acknowledgement is the answer, whatever the read brought: that is fetched once it can be settled.
        """
        if not self.is_answered:
            self._replies += self.wire.read(self.wire.timeout)
            if not self.is_answered:
                return None
        acknowledged = []
        refusal = None
        while (each := self._awaited.pop(0)) is not None:
            reply = self._replies.pop(0)
            if is_error(reply):
                refusal = reply
            else:
                acknowledged.append(each)
        answer = self._replies.pop(0)
        self.is_blocked = False
        self._asked_at = time.monotonic() if self.is_asked else None
        return acknowledged, refusal or answer

    def deliveries(self, answer: Any) -> list[Delivery]:
        """The deliveries in the answer to a read."""
        parts = [self._of_channel(self._names[stream], entries) for stream, entries in answer or ()]
        self.is_full = any(len(part) >= self._count for part in parts)
        return [each for part in parts for each in part]

    def _of_channel(self, channel: str, entries: list[Any]) -> list[Delivery]:
        # The usual entry without a call of its own: a tenth of a microsecond of five for a whole event.
        group = self.group
        return [
            Delivery(channel, fields[1], group, entry_id.decode(), True)
            if len(fields) == 2 and fields[0] == b"event"
            else delivery(channel, group, entry_id, fields)
            for entry_id, fields in entries
        ]

    @property
    def is_dead(self) -> bool:
        """Whether its answer is overdue: the connection is half-open, or the server hangs."""
        return self._asked_at is not None and time.monotonic() - self._asked_at > BLOCK + MARGIN


def acknowledgement(channel: str, group: str, ids: Sequence[str]) -> Command:
    """The command that settles entries."""
    return ("XACK", conf.redis_name(channel), group, *ids)


def delivery(
    channel: str, group: str, entry_id: bytes, fields: list[bytes], *, starts: int = 0, is_repeated: bool = False
) -> Delivery:
    """One stream entry as a delivery. An entry without the field ``event`` is somebody else's: a plain message."""
    if len(fields) == 2 and fields[0] == b"event":
        return Delivery(channel, fields[1], group, entry_id.decode(), True, starts, is_repeated)
    named = by_name(fields)
    if named.keys() == SENT_AGAIN:  # this group may have had it, even where nobody had seen that it was settled
        is_settled = bool(group) and group.encode() in named[b"settled"].split()
        return Delivery(channel, named[b"event"], group, entry_id.decode(), True, starts, True, is_settled)
    body, is_document = _other_body(named)
    return Delivery(channel, body, group, entry_id.decode(), is_document, starts, is_repeated)


def _other_body(fields: dict[bytes, bytes]) -> tuple[bytes, bool]:
    if b"event" in fields:
        return fields[b"event"], True
    if len(fields) == 1:
        return next(iter(fields.values())), False
    try:
        return msgspec.json.encode({name.decode(): value.decode() for name, value in fields.items()}), False
    except UnicodeDecodeError:  # kept as they are: the codec quarantines what is not UTF-8
        return b"\n".join(b"=".join(item) for item in fields.items()), False


def is_error(reply: Any) -> bool:
    """Whether the server refused."""
    return isinstance(reply, ErrorReply)


def parts(channels: list[str], roads: int) -> list[list[str]]:
    """Channels shared out over at most ``roads`` roads (at least one), in equal parts."""
    count = max(1, min(roads, len(channels)))
    return [channels[at::count] for at in range(count)]
