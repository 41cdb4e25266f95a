"""The live feed: what is happening now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import EventFacts, Feed, Server
from ..models import LiveFeed
from . import show
from .blocks import FOLDER, Field, Shown
from .events import event_cells
from .look import Look
from .pages import Page

BETWEEN = "<!--banners-->"
"""Between rows and banners: nobody's text can be a comment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the feed's template needs: the rows so far, and where to ask for the next ones."""

    rows: list[list[object]]
    cursor: str
    url: str
    next: str
    headings: list[str]


class FeedPage(Page):
    def shown(self, look: Look) -> Shown:
        feed = _ask(look)
        asked = {"pattern": look.asked("pattern"), "text": look.asked("text")}
        frame = Frame(
            rows=_rows(look, feed),
            cursor=feed.cursor,
            url=look.url(LiveFeed, view="rows", query=asked),
            next=look.url(LiveFeed, query={**asked, "after": feed.cursor}),
            headings=[_("When"), _("Channel"), _("Type"), _("Key"), _("Data"), _("From"), _("Event id")],
        )
        begun = Field(name="after", label="", kind="hidden", value=look.asked("after") or feed.cursor)
        return Shown(blocks=(), fields=[*self.fields_of(look), begun], feed=frame)

    def fields_of(self, look: Look) -> list[Field]:
        hint = "" if look.may("view_payload") else _("In type and key: data needs a permission you do not have.")
        return [
            Field(name="pattern", label=_("Channel or pattern"), value=look.asked("pattern")),
            Field(name="text", label=_("Text"), value=look.asked("text"), hint=hint),
        ]

    def act_views(self) -> list[tuple[str, Callable[..., HttpResponseBase], str]]:
        return [("rows/", self.rows_view, "rows"), *super().act_views()]

    def rows_view(self, request: HttpRequest) -> HttpResponseBase:
        """What came since a cursor, as rows, then the banners; the next cursor is in X-Cursor."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        with Server() as server:
            look = self.look(request, server=server)
            feed = _ask(look)
            context = {"rows": _rows(look, feed), "banners": look.banners()}
        html = [render_to_string(f"{FOLDER}/{name}.html", context, request=request) for name in ("rows", "inside")]
        return HttpResponse(BETWEEN.join(html), headers={"X-Cursor": feed.cursor, "Cache-Control": "no-store"})


def _ask(look: Look) -> Feed:
    return inspection.feed(look.asked("pattern") or "*", after=look.asked("after"), server=look.server)


def _rows(look: Look, feed: Feed) -> list[list[object]]:
    """The newest on top; what was too much for one answer is said, not left out in silence."""
    rows = [event_cells(look, event) for event in reversed(_wanted(look, feed.events))]
    if feed.skipped:
        rows.append([show.status("warning", _("more came in one millisecond than is shown")), *[""] * 6])
    return rows


def _wanted(look: Look, events: Iterable[EventFacts]) -> list[EventFacts]:
    text = look.asked("text").casefold()
    return [event for event in events if text in _words(look, event).casefold()] if text else list(events)


def _words(look: Look, event: EventFacts) -> str:
    """What a text is looked for in; the data only where it may be seen."""
    parts: list[Any] = [event.channel, event.type, event.key, event.id]
    if look.may("view_payload"):
        parts.append(event.data if isinstance(event.data, str) else show.as_json(event.data, indent=None))
    return "\n".join(parts)
