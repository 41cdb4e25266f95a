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
SENT_AGAIN = {b"event", b"settled"}
"""The fields of an entry that was lost and sent again: ``settled`` names, parted by spaces, the groups that had it."""


class Road:
    """One blocked connection, one group, one stream channel (or several, where there are very many).

    What was settled is acknowledged in the same write that reads on: one round trip a batch.
    """

    def __init__(self, wire: Wire, *, group: str, channels: Sequence[str], consumer: str) -> None:
        self.wire = wire
        self.group = group
        self.channels = tuple(channels)
        self.settled: dict[str, list[str]] = {}
        """Entry ids to acknowledge with the next read, by channel."""
        self.asked_at: float | None = None
        self._names = {conf.redis_name(channel).encode(): channel for channel in channels}
        self._consumer = consumer
        self._in_flight: list[tuple[str, list[str]]] = []
        self._replies: list[Any] = []

    def ask(self, limit: int, *, blocks: bool = True) -> None:
        """Acknowledge and read on; the answer comes to ``collect``: when there is one, else at once."""
        self._in_flight, self.settled = list(self.settled.items()), {}
        acks = [acknowledgement(channel, self.group, ids) for channel, ids in self._in_flight]
        count = max(1, limit // len(self.channels))
        read: Command = (
            *("XREADGROUP", "GROUP", self.group, self._consumer, "COUNT", count),
            *(("BLOCK", int(BLOCK * 1000)) if blocks else ()),
            "STREAMS",
            *self._names,
            *(">" for _ in self._names),
        )
        self._replies = []
        self.wire.write([*acks, read])
        self.asked_at = time.monotonic()

    def collect(self) -> tuple[list[tuple[str, list[str]]], Any] | None:
        """The acknowledged ids by channel and the answer to the read; None while it is not all there."""
        self._replies += self.wire.read(self.wire.timeout)
        if len(self._replies) <= len(self._in_flight):
            return None
        self.asked_at = None
        asked, self._in_flight = self._in_flight, []
        answered = zip(asked, self._replies[:-1], strict=True)
        return [each for each, answer in answered if not is_error(answer)], self._replies[-1]

    def deliveries(self, answer: Any) -> list[Delivery]:
        """The deliveries in the answer to a read."""
        return [each for stream, entries in answer or () for each in self._of_channel(self._names[stream], entries)]

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
        return self.asked_at is not None and time.monotonic() - self.asked_at > BLOCK + MARGIN


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
