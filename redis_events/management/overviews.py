"""The overview in a terminal: is it healthy, in one look."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _

from ..events import now
from ..inspection import Overview, ServerFacts
from .tables import UNKNOWN, cell, duration, milliseconds
from .views import VIEWS, Found, Row, event_row, facts, shown

MINUTES = 5
"""Minutes over which rates are taken."""


def overview_text(found: Overview, *, limit: int) -> str:
    """Everything, each part under its heading; parts with nothing in them are left out."""
    parts = [_status(found.server), "\n".join(_figures(found)), *_tables(found, limit=limit)]
    if found.drift:
        parts.append("\n".join([_("Code and Redis differ:"), *(f"  {each.text}" for each in found.drift)]))
    return "\n\n".join(filter(None, parts))


def overview_facts(found: Overview) -> Row:
    """The same for a JSON document."""
    return {**facts(found), "events": [event_row(each) for each in found.events]}


def _status(server: ServerFacts) -> str:
    """One line about the server."""
    eviction = _("eviction %s") % cell(server.eviction_policy)
    persistence = _("persistence %s") % cell(server.persistence)
    latency = _("answers in %s") % cell(milliseconds(server.latency))
    return " · ".join([f"{server.name or _('Redis')} {server.location}", latency, eviction, persistence])


def _figures(found: Overview) -> Iterator[str]:
    figures = {
        _("listeners alive"): found.listeners_alive,
        _("published a minute"): _rate(found, "published"),
        _("settled a minute"): _rate(found, "settled"),
        _("dead a minute"): _rate(found, "dead"),
        _("waiting to run again"): found.waiting,
        _("parked"): found.parked,
        _("dead letters"): found.dead_letters,
        _("unsent in the outbox"): _unsent(found),
        _("behind for"): _behind(found),
    }
    width = max(map(len, figures))
    yield from (f"{name:<{width}}  {cell(value)}" for name, value in figures.items())


def _unsent(found: Overview) -> str:
    """Over all databases; those that do not say are named."""
    counts = [each.unsent for each in found.outboxes if each.unsent is not None]
    silent = [f"{each.using} {UNKNOWN}" for each in found.outboxes if each.unsent is None]
    known = [cell(sum(counts)) + "+" * any(each.is_more for each in found.outboxes)] if counts else []
    return ", ".join([*known, *silent]) or UNKNOWN


def _rate(found: Overview, name: str) -> float | None:
    """Over the minutes of which it is known."""
    counts = [getattr(minute, name) for minute in found.minutes[-MINUTES:]]
    known = [count for count in counts if count is not None]
    return sum(known) / len(known) if known else None


def _behind(found: Overview) -> str | None:
    """How long the group that is behind the longest is so."""
    since = [each.behind_since for each in found.groups if each.is_behind and each.behind_since]
    if since:
        return duration((now() - min(since)).total_seconds())
    return None if found.trouble or any(each.is_behind is None for each in found.groups) else _("nobody is")


def _tables(found: Overview, *, limit: int) -> Iterator[str]:
    for name, facts_of in (("channels", found.channels), ("groups", found.groups), ("dead", found.errors)):
        if facts_of:
            yield shown(VIEWS[name], Found([facts(each) for each in facts_of]), limit=limit)
