"""Events in the streams: what happened to order 7; and one of them, with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.http import Http404
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import EventFacts, Step
from ..inspection import EventPage as Found
from ..models import Channel, LoggedEvent
from . import show
from .blocks import Block, Facts, Field, Lesson, Note, Row, Shown, Table
from .look import Look
from .pages import Page, needs_payload
from .payload import data_text, raw_text

LEVELS = {"settled": "ok", "done": "ok", "sent": "ok", "present": "ok", "dead": "error", "unknown": "unknown"}
MOMENTS = ("since", "until")
FILTERS = ("type", "key", "id", "correlation_id")


class EventPage(Page):
    has_items = True
    is_live = False

    def fields_of(self, look: Look) -> list[Field]:
        may = look.may("view_payload")
        hint = "" if may else _("Needs the permission “Can see the data of events”.")
        return [
            Field(name="pattern", label=_("Channel or pattern"), value=look.asked("pattern")),
            Field(name="text", label=_("Text in the data"), value=look.asked("text"), is_disabled=not may, hint=hint),
            Field(name="type", label=_("Type"), value=look.asked("type")),
            Field(name="key", label=_("Key"), value=look.asked("key")),
            Field(name="id", label=_("Event id"), value=look.asked("id")),
            Field(name="correlation_id", label=_("Correlation id"), value=look.asked("correlation_id")),
            Field(name="since", label=_("From"), value=look.asked("since"), kind="datetime-local"),
            Field(name="until", label=_("Until"), value=look.asked("until"), kind="datetime-local"),
        ]

    def blocks(self, look: Look) -> Iterator[Block]:
        if look.asked("text") and not look.may("view_payload"):
            yield Note(text=_("Searching in the data of events needs the permission “Can see the data of events”."))
            return
        wrong = [look.asked(name) for name in MOMENTS if look.asked(name) and not _moment(look.asked(name))]
        if wrong:  # without its bound a search would find what was not asked for
            told = _("%s is no moment: write it like 2026-11-22T20:14.") % ", ".join(f"“{each}”" for each in wrong)
            yield Note(text=show.status("error", told))
            return
        page = _search(look)
        yield event_table(look, page.events, title=_("Events"), is_search=_is_search(look), more=_older(look, page))

    def item(self, look: Look, id: str) -> Shown:
        channel, _slash, entry_id = id.rpartition("/")
        found = inspection.event(channel, entry_id, server=look.server)
        if found is None and not look.is_blind:
            raise Http404
        return Shown(subtitle=id, blocks=_one(look, found))


def _search(look: Look) -> Found:
    wanted: dict[str, Any] = {name: look.asked(name) for name in FILTERS}
    return inspection.events(
        look.asked("pattern") or "*",
        text=look.asked("text"),
        since=_moment(look.asked("since")),
        until=_moment(look.asked("until")),
        before=look.asked("before"),
        server=look.server,
        **wanted,
    )


def _is_search(look: Look) -> bool:
    return any(look.asked(name) for name in ("pattern", "text", "before", *MOMENTS, *FILTERS))


def _moment(text: str) -> datetime | None:
    """A moment as a form or a link writes it; None for what is none."""
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    return timezone.make_aware(found) if found and timezone.is_naive(found) else found


def _older(look: Look, page: Found) -> str:
    """How far back was looked, and the link that goes on from there."""
    told = _("Looked at %(count)s entries, back to") % {"count": show.number(page.scanned)}
    back = format_html("{} {}.", told, show.moment(page.back_to)) if page.scanned else ""
    if not page.next:
        return back
    asked = {name: value for name, value in look.request.GET.items() if not name.startswith("_")}
    url = look.url(LoggedEvent, query={**asked, "before": page.next})
    return format_html('{} <a href="{}">{}</a>', back, url, _("Look further back"))


def event_table(
    look: Look, events: Sequence[EventFacts], *, title: str, is_search: bool = False, more: str = ""
) -> Table:
    """Events, a row each, the newest first."""
    lesson = Lesson(
        text=_("No stream has an event yet:"),
        lines=[
            'REDIS_EVENTS = {"SERVICE": "shop", "CHANNELS": {"shop.orders": {"TRANSPORT": "stream"}}}',
            'publish("shop.orders", {"id": 7}, type="shop.order.paid", key=7)',
            "python manage.py shell",
        ],
    )
    return Table(
        title=title,
        headings=[_("When"), _("Channel"), _("Type"), _("Key"), _("Data"), _("From"), _("Event id")],
        rows=look.drawn(events, lambda event: Row(cells=event_cells(look, event))),
        empty=_("Nothing found here.") if is_search else "",
        lesson=None if is_search else lesson,
        more=more,
    )


def event_cells(look: Look, event: EventFacts) -> list[object]:
    """One event's row, of a table or of the live feed."""
    place = f"{event.channel}/{event.entry_id}"
    return [
        look.link(LoggedEvent, show.moment(event.moment), to=place) if event.entry_id else show.moment(event.moment),
        look.link(Channel, event.channel, to=event.channel),
        show.status("error", event.problem) if event.problem else show.data(event.type),
        show.data(event.key),
        show.short(event.data) if look.may("view_payload") else show.UNKNOWN,
        show.data(event.source),
        show.data(show.tail(event.id or event.entry_id)),
    ]


def _one(look: Look, event: EventFacts | None) -> Iterator[Block]:
    if event is None:
        yield Note(text=show.UNKNOWN)
        return
    yield Facts(title=_("What it is"), facts=_facts(look, event))
    steps = look.rows(lambda: inspection.trace(event, server=look.server))
    yield _step_table(look, steps)
    if not look.may("view_payload"):
        yield Note(text=needs_payload())
        return
    yield data_text(look, event.data, title=_("Data"))
    yield raw_text(look, event.raw, title=_("Raw bytes"))


def _facts(look: Look, event: EventFacts) -> Sequence[tuple[str, object]]:
    correlated = look.link(LoggedEvent, event.correlation_id, query={"correlation_id": event.correlation_id})
    found = [
        (_("Channel"), look.link(Channel, event.channel, to=event.channel)),
        (_("Entry"), show.data(event.entry_id)),
        (_("Published"), show.since(event.moment)),
        (_("Type"), show.data(event.type)),
        (_("Key"), show.data(event.key)),
        (_("From"), show.data(event.source)),
        (_("Event id"), show.data(event.id)),
        (_("Correlation id"), correlated if event.correlation_id else show.UNKNOWN),
        (_("Caused by"), show.data(event.causation_id)),
    ]
    return [*found, (_("Problem"), show.status("error", event.problem))] if event.problem else found


def _step_table(look: Look, steps: Sequence[Step] | None) -> Table:
    return Table(
        title=_("What became of it"),
        headings=[_("Where"), _("Who"), _("State"), _("When"), _("More")],
        rows=None if steps is None else [_step_row(look, step) for step in steps],
    )


def _step_row(look: Look, step: Step) -> Row:
    """The note of a held delivery is the exception's text, which may quote the data."""
    state = show.status(LEVELS.get(step.state, "warning"), _words().get(step.state, step.state))
    where = _words().get(step.place, step.place)
    is_open = step.place != "held" or look.may("view_payload")
    return Row(
        cells=[
            where,
            show.data(step.who),
            state,
            show.moment(step.at),
            show.data(step.note) if is_open else show.UNKNOWN,
        ]
    )


def _words() -> dict[str, str]:
    return {
        "outbox": _("outbox"),
        "stream": _("stream"),
        "group": _("consumer group"),
        "held": _("held delivery"),
        "inbox": _("inbox"),
        "written": _("written"),
        "sent": _("sent"),
        "present": _("in the stream"),
        "waiting": _("waiting"),
        "pending": _("pending"),
        "settled": _("settled"),
        "parked": _("parked"),
        "dead": _("dead"),
        "done": _("done"),
        "unknown": _("unknown"),
    }
