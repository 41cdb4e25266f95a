"""Which tables are there, before anything rests on them."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import Error

from . import held, inbox, outbox
from .announcements import Announcement
from .registry import Receiver
from .routing import transport_name


def missing(receivers: Sequence[Receiver], announced: Sequence[Announcement]) -> str:
    """What keeps these receivers' promises from being kept; ``""`` when nothing does. Without receivers, the relay's.

    A database that is away may have everything: whoever needs it waits for it.
    """
    if not receivers:
        return "" if outboxes() else "the table of the outbox is missing in every database"
    return _missing_held(receivers, announced) or _missing_inbox(receivers)


def _missing_held(receivers: Sequence[Receiver], announced: Sequence[Announcement]) -> str:
    """A stream's failures are rows, and its events are settled only when those stand."""
    streams = [each for each in receivers if transport_name(each.channel, announced) == "stream"]
    try:
        if not streams or held.has_table(using=held.default_alias()):
            return ""
    except Error:
        return ""
    return f"{streams[0].channel} is a stream, and the tables of redis_events are missing"


def _missing_inbox(receivers: Sequence[Receiver]) -> str:
    once = {each.using or held.default_alias(): each.name for each in receivers if each.once}
    for alias, name in once.items():
        try:
            is_there = inbox.has_table(using=alias)
        except Error:
            continue
        if not is_there:
            return f"{name} is once, and the inbox is missing in the database {alias!r}"
    return ""


def outboxes() -> list[str]:
    """The databases with an outbox."""
    return list(filter(_may_have_outbox, outbox.aliases()))


def _may_have_outbox(alias: str) -> bool:
    try:
        return outbox.has_table(using=alias)
    except Error:
        return True
