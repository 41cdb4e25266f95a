"""What is known of one event: in the outbox, in its stream, in each group, in held deliveries, in the inbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import Error
from django.utils.translation import gettext as _

from .. import inbox, readiness
from ..conf import conf
from ..floors import parse
from ..models import OutboxEvent
from ..outbox import halves
from ..registry import Receiver, Table, all_receivers
from ..runner import group_name
from ..wording import one_line
from . import rows
from .facts import EventFacts, Step
from .server import Server, at
from .streams import Stream, streams, text


def trace(event: EventFacts, *, server: Server | None = None) -> list[Step]:
    """What became of an event, as far as this service's tables and the server tell."""
    with at(server) as asked:
        stream = streams(asked, [event.channel])[0] if event.entry_id else None
        in_stream = list(_in_stream(event, stream, asked)) if stream else []
    return [*_in_outbox(event), *in_stream, *_held(event), *_in_inbox(event)]


def _in_outbox(event: EventFacts) -> Iterator[Step]:
    """Found by its entry id: that is what the table has an index for."""
    if not event.entry_id or event.source != conf.source:
        return
    ms, seq = halves(event.entry_id)
    place = {"channel": event.channel, "sent_ms": ms, "sent_seq": seq}
    for alias in readiness.outboxes():
        try:
            for row in OutboxEvent.objects.using(alias).filter(event_id=event.id, **place).defer("body"):
                yield Step(place="outbox", who=alias, state="sent", at=row.created_at)
        except Error as error:
            yield Step(place="outbox", who=alias, state="unknown", note=one_line(error))


# ------------------------------------------------------------------ in the stream


def _in_stream(event: EventFacts, stream: Stream, server: Server) -> Iterator[Step]:
    names = [group["name"] for group in stream.groups]
    key, id = conf.redis_name(event.channel), event.entry_id
    present, *pending = server.ask(("XRANGE", key, id, id), *(("XPENDING", key, name, id, id, 1) for name in names))
    if present is not None:
        state, note = ("present", "") if present else ("unknown", _("trimmed, or lost"))
        yield Step(place="stream", who=event.channel, state=state, at=event.moment, note=note)
    for group, answer in zip(stream.groups, pending, strict=True):
        yield _of_group(event, group, answer)


def _of_group(event: EventFacts, group: dict[str, Any], pending: Any) -> Step:
    name = text(group["name"])
    if pending is None:
        return Step(place="group", who=name, state="unknown")
    if pending:
        _id, consumer, idle, deliveries = pending[0]
        note = _("%(consumer)s has it since %(seconds)d s, delivery %(deliveries)d")
        facts = {"consumer": text(consumer), "seconds": idle // 1000, "deliveries": deliveries}
        return Step(place="group", who=name, state="pending", note=note % facts)
    is_unread = parse(event.entry_id) > parse(group["last-delivered-id"].decode())
    return Step(place="group", who=name, state="waiting" if is_unread else "settled")


# ------------------------------------------------------------------ in this service's tables


def _held(event: EventFacts) -> Iterator[Step]:
    for alias in rows.databases():
        found = rows.ours(alias).filter(source=event.source, event_id=event.id)
        try:
            for row in found.defer(*rows.HEAVY).order_by("receiver"):
                at = row.due or row.updated_at
                yield Step(place="held", who=row.receiver, state=row.state, at=at, note=row.reason)
        except Error as error:
            yield Step(place="held", who=alias, state="unknown", note=one_line(error))


def _in_inbox(event: EventFacts) -> Iterator[Step]:
    """The effects of this service's `once` receivers."""
    for receiver in _once_receivers(event):
        alias = receiver.using or rows.databases()[0]
        try:
            is_done = inbox.has(alias, event.source, event.id, group_name(receiver), receiver.name)
        except Error:
            yield Step(place="inbox", who=receiver.name, state="unknown")
            continue
        if is_done:
            yield Step(place="inbox", who=receiver.name, state="done")


def _once_receivers(event: EventFacts) -> list[Receiver]:
    matching = Table(all_receivers()).match(event.channel, event.type)
    return [receiver for receiver in matching if receiver.once and not receiver.is_async]
