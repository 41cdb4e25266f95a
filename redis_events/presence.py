"""What a stream holds at this moment: where its groups stand, and which rows of the outbox it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import floors, outbox, sent
from .conf import conf
from .floors import Id, parse
from .models import OutboxEvent
from .transports.client import Command, Wire, by_name, refused
from .transports.roads import is_error
from .transports.trimming import OURS

MOST_NAME = 190
"""Characters kept of a group's name: ChannelState has room for 200, and a floor's row begins with a few of its own."""


@dataclass(slots=True)
class Stream:
    """A stream as it is now. ``positions`` and ``floors`` are by group, without and with what is pending."""

    last: Id
    first: Id | None
    positions: dict[str, Id]
    floors: dict[str, Id]


def look(wire: Wire, channel: str) -> Stream | None:
    """A stream and its groups; None where there is none. Raises TransportError, Refused where it may not be seen."""
    name = conf.redis_name(channel)
    groups, about = wire.call([("XINFO", "GROUPS", name), ("XINFO", "STREAM", name)])
    for answer in (groups, about):
        if is_error(answer) and "no such key" in str(answer):
            return None
        if is_error(answer):
            raise refused(wire.location, str(answer))
    facts = by_name(about)
    known = {each[b"name"]: parse(each[b"last-delivered-id"].decode()) for each in map(by_name, groups)}
    theirs = [group for group in known if not group.startswith(OURS.encode())]
    # After the positions: what was read by then and is not pending now is settled.
    pending = wire.call([("XPENDING", name, group) for group in theirs]) if theirs else []
    return Stream(
        last=parse(facts[b"last-generated-id"].decode()),
        first=parse(facts[b"first-entry"][0].decode()) if facts[b"first-entry"] else None,
        positions={_stored(group): position for group, position in known.items()},
        floors={
            _stored(group): _settled(known[group], summary)
            for group, summary in zip(theirs, pending, strict=True)
            if not is_error(summary)
        },
    )


def _stored(group: bytes) -> str:
    """The name of a group as ChannelState takes it: anybody may make one, of any bytes and any length."""
    return group.decode(errors="backslashreplace").replace("\x00", "\\x00")[:MOST_NAME]


def can_be_made(group: str) -> bool:
    """Whether this is the name of a group as the server has it, and not what was stored of it."""
    return "\\" not in group and len(group) < MOST_NAME


def _settled(position: Id, summary: Any) -> Id:
    return min(position, parse(floors.before(summary[1].decode()))) if summary[0] else position


def missing(wire: Wire, channel: str, rows: Sequence[OutboxEvent]) -> list[OutboxEvent]:
    """Rows whose entry is not in the stream, or is another one: ids went back, and somebody else got it.

    Raises TransportError, also where the server refuses.
    """
    name = conf.redis_name(channel)
    answers = wire.call([_question(name, sent.entry_id(row)) for row in rows])
    for answer in answers:
        if is_error(answer):
            raise refused(wire.location, str(answer))
    return [row for row, found in zip(rows, answers, strict=True) if not _is_there(row, found)]


def _question(name: str, entry_id: Id) -> Command:
    """For the entry; where its id is not known to the end, for any that is as large: nobody can say which it is."""
    until = "+" if outbox.MOST in entry_id else text(entry_id)
    return ("XRANGE", name, text(entry_id), until, "COUNT", 1)


def _is_there(row: OutboxEvent, found: list[Any]) -> bool:
    if outbox.MOST in sent.entry_id(row):
        return bool(found)
    return bool(found) and _body(found[0][1]) == bytes(row.body)


def _body(fields: list[bytes]) -> bytes | None:
    return by_name(fields).get(b"event")


def text(entry_id: Id) -> str:
    """An entry id as the server writes it."""
    return f"{entry_id[0]}-{entry_id[1]}"
