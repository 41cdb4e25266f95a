"""Channels: what is out there; and one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from django.http import Http404
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import ChannelFacts
from ..models import Channel, LiveFeed, LoggedEvent
from . import show
from .acts import Act
from .blocks import Block, Button, Facts, Lesson, Note, Row, Shown, Table
from .channel_acts import publish
from .events import event_table
from .groups import group_table
from .look import Look
from .pages import Page


class ChannelPage(Page):
    has_items = True
    acts: Mapping[str, Act] = {"publish": Act(permission="publish_event", plan=publish)}

    def blocks(self, look: Look) -> Iterator[Block]:
        found = inspection.channels(server=look.server)
        yield channel_table(look, found, title=_("Channels"))

    def item(self, look: Look, id: str) -> Shown:
        found = inspection.channel(id, server=look.server)
        if found is None and not look.is_blind:
            raise Http404
        return Shown(subtitle=id, blocks=_one(look, id, found))


def _one(look: Look, name: str, channel: ChannelFacts | None) -> Iterator[Block]:
    if channel is None:
        yield Note(text=show.UNKNOWN)
        return
    yield Facts(title=_("What it is"), facts=_facts(channel), buttons=_buttons(look, channel))
    feed = look.link(LiveFeed, _("Watch it live"), query={"pattern": name})
    log = look.link(LoggedEvent, _("All its events"), query={"pattern": name})
    yield Note(text=show.links(feed, log))
    if channel.transport != "pubsub" and not channel.is_pattern:
        found = inspection.groups(name, server=look.server)
        if channel.problem:  # what cannot be seen is not what is not there
            yield Note(text=show.status("error", channel.problem))
            return
        yield group_table(look, found, title=_("Consumer groups"))
        if look.may("view_loggedevent"):
            page = inspection.events(name, limit=10, server=look.server)
            yield event_table(look, page.events, title=_("Last events"))
        raw = inspection.channel_raw(name, server=look.server)
        rows = None if raw is None else [Row(cells=[show.data(key), show.data(value)]) for key, value in raw.items()]
        yield Table(title="XINFO STREAM", headings=[_("Field"), _("Value")], rows=rows)


def _buttons(look: Look, channel: ChannelFacts) -> list[Button]:
    if channel.is_pattern or not look.may("publish_event"):
        return []
    return [Button(label=_("Publish an event…"), url=look.act_url(Channel, "publish", to=channel.name))]


def channel_table(look: Look, channels: Sequence[ChannelFacts], *, title: str) -> Table:
    """Channels, a row each."""
    return Table(
        title=title,
        headings=[
            *(_("Name"), _("Transport"), _("Lag"), _("Published a minute"), _("Last event"), _("Receivers")),
            *(_("Groups"), _("Length"), _("Kept for"), _("Announced by")),
        ],
        rows=look.drawn(channels, lambda channel: _row(look, channel)),
        lesson=Lesson(
            text=_("No service has announced a channel, and nothing is published or received here yet:"),
            lines=[
                'REDIS_EVENTS = {"SERVICE": "shop", "CHANNELS": {"shop.orders": {"TRANSPORT": "stream"}}}',
                'publish("shop.orders", {"id": 7}, type="shop.order.paid", key=7)',
                "python manage.py listen_events",
            ],
        ),
    )


def _row(look: Look, channel: ChannelFacts) -> Row:
    return Row(
        cells=[
            look.link(Channel, channel.name, to=channel.name),
            _transport(channel),
            show.number(channel.lag),
            show.number(channel.rate),
            show.moment(channel.last_event),
            show.names(channel.receivers),
            show.number(channel.groups),
            show.number(channel.length),
            show.seconds(channel.retention),
            show.names(channel.announced_by),
        ]
    )


def _transport(channel: ChannelFacts) -> str:
    if channel.problem:
        return show.status("error", channel.problem)
    if channel.transport == "pubsub":
        return show.prose(_("pub/sub, at most once"))
    return _("outbox + stream") if channel.has_outbox else channel.transport


def _facts(channel: ChannelFacts) -> list[tuple[str, object]]:
    return [
        (_("Transport"), _transport(channel)),
        (_("Announced by"), show.names(channel.announced_by)),
        (_("Publishers here"), show.names(channel.publishers)),
        (_("Receivers"), show.names(channel.receivers)),
        (_("Subscribers"), show.number(channel.subscribers)),
        (_("Length"), show.number(channel.length)),
        (_("Published a minute"), show.number(channel.rate)),
        (_("Lag"), show.number(channel.lag)),
        (_("Last event"), show.since(channel.last_event)),
        (_("Kept for"), show.seconds(channel.retention)),
        (_("At most"), _("no limit") if channel.max_length is None else show.number(channel.max_length)),
    ]
