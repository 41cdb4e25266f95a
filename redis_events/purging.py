"""Emptying a channel on purpose: its rows are discarded first, else healing would bring everything back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from . import floors, sent
from .conf import conf
from .transports.client import Wire, by_name, refused
from .transports.roads import is_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """What was removed, or would be: rows of outboxes, entries of the stream."""

    rows: int
    entries: int


def count(channel: str, *, outboxes: Collection[str]) -> Purge:
    """What a purge would remove at this moment; ``outboxes`` are databases. Raises TransportError, django.db.Error."""
    wire = Wire(conf.LOCATION, timeout=5.0)
    try:
        entries = _call(wire, "XLEN", conf.redis_name(channel))
        return Purge(rows=sum(sent.count_live(channel, using=alias) for alias in outboxes), entries=entries)
    finally:
        wire.close()


def purge(channel: str, *, outboxes: Collection[str]) -> Purge:
    """Remove all that the channel holds now; what is published meanwhile stays. Groups stay where they are.

    ``outboxes`` are all databases of this service with rows of the channel: those of another would come back.
    The end of the stream is looked at first: whatever stands before it has a row that can be seen. Broken off, it
    leaves discarded rows and entries that are still delivered; begun again, it removes those too. Raises TransportError
    and django.db.Error.
    """
    name = conf.redis_name(channel)
    wire = Wire(conf.LOCATION, timeout=5.0)
    try:
        last = _last_id(wire, name)
        rows = sum(sent.discard_all(channel, using=alias) for alias in outboxes)
        return Purge(rows=rows, entries=_call(wire, "XTRIM", name, "MINID", floors.after(last)) if last else 0)
    finally:
        wire.close()


def _last_id(wire: Wire, name: str) -> str | None:
    if not _call(wire, "EXISTS", name):
        return None
    facts = _call(wire, "XINFO", "STREAM", name)
    return str(by_name(facts)[b"last-generated-id"].decode())


def _call(wire: Wire, *command: object) -> Any:
    answer = wire.call([command])[0]
    if is_error(answer):
        raise refused(wire.location, str(answer))
    return answer
