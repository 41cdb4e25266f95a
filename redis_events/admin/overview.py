"""The overview: is it healthy, in five seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from django.utils.html import format_html
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import Drift, ErrorGroup, Minute, ServerFacts
from ..inspection import Overview as Health
from ..models import ConsumerGroup, DeadLetter, ListenerStatus
from . import show
from .blocks import Block, Card, Cards, Facts, Row, Table
from .channels import channel_table
from .charts import throughput
from .events import event_table
from .groups import group_table
from .letters import error_table
from .look import Look
from .pages import Page

MOST = 8
"""Rows of each table: the pages themselves have the others."""


class OverviewPage(Page):
    def blocks(self, look: Look) -> Iterator[Block]:
        health = look.rows(lambda: inspection.overview(server=look.server))
        if health is None:
            return
        yield Facts(title=_("Server"), facts=_server_facts(health.server), is_line=True)
        yield Cards(title=_("Numbers"), cards=_cards(look, health))
        yield group_table(look, health.groups[:MOST], title=_("Furthest behind"))
        yield throughput(health.minutes)
        yield channel_table(look, health.channels[:MOST], title=_("Channels"))
        if look.may("view_deadletter"):
            yield error_table(look, _errors(look, health), title=_("Errors"))
        if look.may("view_loggedevent"):
            yield event_table(look, health.events[:MOST], title=_("Last events"))
        if health.drift:
            yield _drift_table(health.drift)


def _errors(look: Look, health: Health) -> Sequence[ErrorGroup] | None:
    """None where the table cannot be read, with the banner that asking it once more brings."""
    if health.dead_letters is None:
        return look.rows(lambda: inspection.errors(limit=MOST))
    return health.errors[:MOST]


def _server_facts(server: ServerFacts) -> list[tuple[str, object]]:
    is_up = server.latency is not None
    state = show.status("ok", _("answers")) if is_up else show.status("error", _("does not answer"))
    return [
        (_("Status"), state),
        (_("Location"), show.data(server.location)),
        (_("Server"), format_html("{} {}", show.text(server.name), show.text(server.role) if server.role else "")),
        (_("Latency"), show.seconds(server.latency)),
        (_("Eviction policy"), _eviction(server.eviction_policy)),
        (_("Persistence"), _persistence(server.persistence)),
        (_("Memory"), _memory(server)),
    ]


def _eviction(policy: str | None) -> str:
    return show.unknown_or("ok" if policy == "noeviction" else "warning", policy, policy)


def _persistence(kind: str | None) -> str:
    return show.unknown_or("warning" if kind == "none" else "ok", _("none") if kind == "none" else kind, kind)


def _memory(server: ServerFacts) -> str:
    if not server.max_memory:
        return show.size(server.used_memory)
    shown = {"used": show.size(server.used_memory), "max": show.size(server.max_memory)}
    return _("%(used)s of %(max)s") % shown


def _cards(look: Look, health: Health) -> list[Card]:
    last = health.minutes[-2] if len(health.minutes) > 1 else None  # the last whole one
    minute = show.minute(last.start) if last else ""
    lags = [group.lag for group in health.groups if group.lag is not None]
    is_known = not look.is_blind
    lag = max(lags, default=0 if is_known and not health.groups else None)
    dead = look.link(DeadLetter, show.number(health.dead_letters))
    alive = look.link(ListenerStatus, show.number(health.listeners_alive))
    return [
        Card(label=_("Published a minute"), value=show.number(last.published if last else None), note=minute),
        Card(label=_("Settled a minute"), value=show.number(last.settled if last else None), note=minute),
        Card(label=_("Failed a minute"), value=show.number(_failed(last)), note=minute),
        Card(label=_("Largest lag"), value=look.link(ConsumerGroup, show.number(lag)), note=_("entries not read")),
        _oldest(look, (group.behind_since for group in health.groups), is_known=is_known),
        Card(label=_("Dead letters"), value=dead),
        Card(label=_("Listeners alive"), value=alive),
        *(_outbox_card(health) if health.outboxes else ()),
    ]


def _failed(minute: Minute | None) -> int | None:
    if minute is None or minute.retried is None or minute.dead is None:
        return None
    return minute.retried + minute.dead


def _oldest(look: Look, moments: Iterable[datetime | None], *, is_known: bool) -> Card:
    oldest = min((moment for moment in moments if moment), default=None)
    nothing = _("none") if is_known else show.UNKNOWN
    value = show.age(oldest) if oldest else nothing
    note = format_html("{} {}", _("since"), show.moment(oldest)) if oldest else ""
    return Card(label=_("Oldest unsettled"), value=look.link(ConsumerGroup, value), note=note)


def _outbox_card(health: Health) -> list[Card]:
    counts = [each.unsent for each in health.outboxes]
    total = None if None in counts else sum(count or 0 for count in counts)
    more = "+" if any(each.is_more for each in health.outboxes) else ""
    oldest = min((each.oldest for each in health.outboxes if each.oldest), default=None)
    note = format_html("{} {}", _("since"), show.moment(oldest)) if oldest else ""
    return [Card(label=_("Outbox, unsent"), value=f"{show.number(total)}{more}", note=note)]


def _drift_table(found: Sequence[Drift]) -> Table:
    rows = [
        Row(cells=[show.status("warning", each.kind), show.data(each.name), show.prose(each.text)]) for each in found
    ]
    return Table(
        title=_("Known to Redis or a table, not to the code, or the other way round"),
        headings=[_("What"), _("Name"), _("Why it matters")],
        rows=rows,
    )
