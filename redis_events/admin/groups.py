"""Consumer groups: who is behind, by how much, since when; and what of one group is pending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from django.http import Http404
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import inspection
from ..inspection import ConsumerFacts, GroupFacts, PendingFacts
from ..models import Channel, ConsumerGroup, LoggedEvent
from . import show
from .acts import Act
from .blocks import Block, Button, Facts, Lesson, Note, Row, Shown, Table
from .group_acts import claim, move, remove, skip
from .look import Look
from .pages import Page

LIMIT = 100
"""Pending entries on one page."""


class GroupPage(Page):
    has_items = True
    acts: Mapping[str, Act] = {
        "claim": Act(permission="claim_pending", plan=claim),
        "skip": Act(permission="claim_pending", plan=skip),
        "remove": Act(permission="claim_pending", plan=remove),
        "move": Act(permission="claim_pending", plan=move),
    }

    def blocks(self, look: Look) -> Iterator[Block]:
        found = inspection.groups(server=look.server)
        for name, answer in inspection.unreadable(look.server).items():
            yield Note(text=show.status("error", f"{name}: {answer}"))
        yield group_table(look, found, title=_("Consumer groups"))

    def item(self, look: Look, id: str) -> Shown:
        channel, _slash, name = id.partition("/")
        found = [group for group in inspection.groups(channel, server=look.server) if group.name == name]
        if not found and not look.is_blind:
            raise Http404
        return Shown(subtitle=f"{channel} · {name}", blocks=_one(look, id, found))


def _one(look: Look, id: str, found: Sequence[GroupFacts]) -> Iterator[Block]:
    channel, _slash, name = id.partition("/")
    for group in found:
        yield Facts(title=_("Where it stands"), facts=_facts(look, group), buttons=_group_buttons(look, id, group))
    yield _consumer_table(look, id, inspection.consumers(channel, name, server=look.server))
    after = look.asked("after")
    entries = inspection.pending(channel, name, after=after, limit=LIMIT, server=look.server)
    yield _pending_table(look, id, entries)


def _group_buttons(look: Look, id: str, group: GroupFacts) -> list[Button]:
    if not look.may("claim_pending"):
        return []
    claim_all = Button(label=_("Claim all pending"), url=look.act_url(ConsumerGroup, "claim", to=id))
    set_position = Button(label=_("Set position…"), url=look.act_url(ConsumerGroup, "move", to=id), is_dangerous=True)
    return [*([claim_all] if group.pending else []), set_position]


def group_table(look: Look, groups: Sequence[GroupFacts], *, title: str) -> Table:
    """Groups, a row each, the one furthest behind first."""
    return Table(
        title=title,
        headings=[
            *(_("Group"), _("Channel"), _("Lag"), _("Behind since"), _("State"), _("Pending"), _("Longest idle")),
            *(_("Consumers alive"), _("Last delivered"), _("Settled a minute"), _("Caught up in")),
        ],
        rows=look.drawn(groups, lambda group: _row(look, group)),
        lesson=Lesson(
            text=_("No stream has a consumer group: one comes with the first listener that receives it."),
            lines=[
                '@receives("shop.orders")',
                "def index(event): ...",
                "python manage.py listen_events",
            ],
        ),
    )


def _row(look: Look, group: GroupFacts) -> Row:
    return Row(
        cells=[
            look.link(ConsumerGroup, group.name, to=f"{group.channel}/{group.name}"),
            look.link(Channel, group.channel, to=group.channel),
            show.number(group.lag),
            show.since(group.behind_since),
            _state(group),
            show.number(group.pending),
            show.seconds(group.oldest_idle),
            _alive(group),
            show.moment(group.last_delivered),
            show.number(group.rate),
            show.seconds(group.eta),
        ]
    )


def _state(group: GroupFacts) -> str:
    if group.is_served is False:
        return show.status("error", _("nobody serves it"))
    if group.is_behind is None:
        return show.UNKNOWN
    return show.status("warning", _("behind")) if group.is_behind else show.status("ok", _("keeps up"))


def _alive(group: GroupFacts) -> str:
    shown = {"alive": show.number(group.consumers_alive), "all": show.number(group.consumers)}
    return _("%(alive)s of %(all)s") % shown if group.consumers is not None else show.UNKNOWN


def _facts(look: Look, group: GroupFacts) -> list[tuple[str, object]]:
    return [
        (_("Channel"), look.link(Channel, group.channel, to=group.channel)),
        (_("Service"), show.data(group.service)),
        (_("State"), _state(group)),
        (_("Lag"), _entries(group.lag)),
        (_("Behind since"), show.since(group.behind_since)),
        (_("Pending"), _entries(group.pending)),
        (_("Consumers alive"), _alive(group)),
        (_("Last delivered"), format_html("{} {}", show.data(group.last_id), show.moment(group.last_delivered))),
        (_("Settled a minute"), show.number(group.rate)),
        (_("Caught up in"), show.seconds(group.eta)),
    ]


def _entries(count: int | None) -> str:
    if count is None:
        return show.UNKNOWN
    return ngettext("%(count)s entry", "%(count)s entries", count) % {"count": show.number(count)}


def _consumer_table(look: Look, id: str, consumers: Sequence[ConsumerFacts]) -> Table:
    return Table(
        title=_("Consumers"),
        headings=[_("Consumer"), _("State"), _("Pending"), _("Idle"), ""],
        rows=look.drawn(consumers, lambda each: _consumer_row(look, id, each)),
        empty=_("No listener has read from this group yet."),
    )


def _consumer_row(look: Look, id: str, consumer: ConsumerFacts) -> Row:
    return Row(
        cells=[
            show.data(consumer.name),
            _liveness(consumer.is_alive),
            show.number(consumer.pending),
            show.seconds(consumer.idle),
            _consumer_acts(look, id, consumer),
        ]
    )


def _liveness(is_alive: bool | None) -> str:
    if is_alive is None:
        return show.UNKNOWN
    return show.status("ok", _("alive")) if is_alive else show.status("error", _("gone"))


def _consumer_acts(look: Look, id: str, consumer: ConsumerFacts) -> str:
    if not look.may("claim_pending") or consumer.is_alive:
        return ""
    view, label = ("claim", _("Claim its entries")) if consumer.pending else ("remove", _("Remove"))
    url = look.act_url(ConsumerGroup, view, to=id, query={"consumer": consumer.name})
    return format_html('<a href="{}">{}</a>', url, label)


def _pending_table(look: Look, id: str, entries: Sequence[PendingFacts]) -> Table:
    may = look.may("claim_pending")
    buttons = [
        Button(label=_("Claim selected"), url=look.url(ConsumerGroup, to=id, view="claim")),
        Button(label=_("Settle without running"), url=look.url(ConsumerGroup, to=id, view="skip"), is_dangerous=True),
    ]
    return Table(
        title=_("Pending entries"),
        headings=[_("Entry"), _("Published"), _("Consumer"), _("Its state"), _("Idle"), _("Deliveries")],
        rows=look.drawn(entries, lambda entry: _pending_row(look, id, entry)),
        empty=_("Nothing is pending: every entry that was delivered is settled."),
        buttons=buttons if may else (),
        back=look.here,
        more=_more(look, id, entries),
    )


def _pending_row(look: Look, id: str, entry: PendingFacts) -> Row:
    channel = id.partition("/")[0]
    return Row(
        value=entry.entry_id,
        label=entry.entry_id,
        cells=[
            look.link(LoggedEvent, entry.entry_id, to=f"{channel}/{entry.entry_id}"),
            show.since(entry.published),
            show.data(entry.consumer),
            _liveness(entry.is_alive),
            show.seconds(entry.idle),
            show.number(entry.deliveries),
        ],
    )


def _more(look: Look, id: str, entries: Sequence[PendingFacts]) -> str:
    if len(entries) < LIMIT:
        return ""
    url = look.url(ConsumerGroup, to=id, query={"after": entries[-1].entry_id})
    return format_html('<a href="{}">{}</a>', url, _("Later entries"))
