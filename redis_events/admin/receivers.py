"""Receivers: what runs where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from django.http import Http404
from django.utils.html import format_html
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import Done, ReceiverFacts
from ..models import Channel, ConsumerGroup, DeadLetter, ReceiverStatus
from . import show
from .acts import Act, Plan
from .blocks import Block, Button, Facts, Lesson, Note, Row, Shown, Table
from .letters import error_table
from .look import Look
from .pages import Page


def _found(look: Look, id: str) -> ReceiverFacts | None:
    return next((each for each in inspection.receivers(server=look.server) if _id(each) == id), None)


def _id(receiver: ReceiverFacts) -> str:
    return f"{receiver.service}/{receiver.name}"


def pause(_page: object, look: Look, id: str) -> Plan | None:
    """Let a receiver rest on every host; its deliveries are parked."""
    receiver = _found(look, id)
    if receiver is None or receiver.is_paused:
        return None
    text = _("Pause 1 receiver, %(name)s of %(service)s, in all %(count)s of its listeners?")
    count = show.number(receiver.listeners)
    return Plan(
        title=_("Pause a receiver"),
        question=text % {"name": receiver.name, "service": show.text(receiver.service), "count": count},
        button=_("Yes, pause it"),
        count=1,
        warning=_("What comes for it meanwhile is parked, and run after it was resumed."),
        object_id=id,
        object_repr=receiver.name,
        run=lambda entered: inspection.pause(receiver.name, service=receiver.service, who=look.who),
    )


def resume(_page: object, look: Look, id: str) -> Plan | None:
    """Let a paused receiver run again, what was parked first."""
    receiver = _found(look, id)
    if receiver is None or not receiver.is_paused:
        return None
    text = _("Resume 1 receiver, %(name)s of %(service)s, in all %(count)s of its listeners?")
    count = show.number(receiver.listeners)
    return Plan(
        title=_("Resume a receiver"),
        question=text % {"name": receiver.name, "service": show.text(receiver.service), "count": count},
        button=_("Yes, resume it"),
        count=1,
        object_id=id,
        object_repr=receiver.name,
        run=lambda entered: _resume(receiver),
    )


def _resume(receiver: ReceiverFacts) -> Done:
    was_paused = inspection.resume(receiver.name, service=receiver.service)
    return Done(done=int(was_paused), left={} if was_paused else {_("not paused any more"): 1})


class ReceiverPage(Page):
    has_items = True
    acts: Mapping[str, Act] = {
        "pause": Act(permission="pause_receiver", plan=pause),
        "resume": Act(permission="pause_receiver", plan=resume),
    }

    def blocks(self, look: Look) -> Iterator[Block]:
        yield _table(look, inspection.receivers(server=look.server))

    def item(self, look: Look, id: str) -> Shown:
        receiver = _found(look, id)
        if receiver is None and not look.is_blind:
            raise Http404
        return Shown(subtitle=id.partition("/")[2] or id, blocks=_one(look, receiver))


def _one(look: Look, receiver: ReceiverFacts | None) -> Iterator[Block]:
    if receiver is None:
        yield Note(text=show.UNKNOWN)
        return
    yield Facts(title=_("What it is"), facts=_facts(look, receiver), buttons=_buttons(look, receiver))
    if look.may("view_deadletter"):
        errors = look.rows(lambda: inspection.errors(receiver=receiver.name))
        yield error_table(look, errors, title=_("Its errors"))


def _buttons(look: Look, receiver: ReceiverFacts) -> list[Button]:
    if not look.may("pause_receiver"):
        return []
    view, label = ("resume", _("Resume")) if receiver.is_paused else ("pause", _("Pause"))
    return [Button(label=label, url=look.act_url(ReceiverStatus, view, to=_id(receiver)))]


def _table(look: Look, receivers: Sequence[ReceiverFacts]) -> Table:
    return Table(
        title=_("Receivers"),
        headings=[
            *(_("Receiver"), _("State"), _("Service"), _("Channel"), _("Done, 24 h"), _("Retried, 24 h")),
            *(
                _("Dead, 24 h"),
                _("Waiting"),
                _("Parked"),
                _("Listeners"),
                _("Half within"),
                _("95 % within"),
                _("Last run"),
                _("Types"),
                _("Mode"),
            ),
        ],
        rows=look.drawn(receivers, lambda receiver: _row(look, receiver)),
        lesson=Lesson(
            text=_("Nothing receives anything yet. In receivers.py of an installed app:"),
            lines=[
                "from redis_events import receives",
                "",
                '@receives("shop.orders")',
                "def index(event): print(event.data)",
                "",
                "python manage.py listen_events",
            ],
        ),
    )


def _row(look: Look, receiver: ReceiverFacts) -> Row:
    return Row(
        cells=[
            look.link(ReceiverStatus, receiver.name, to=_id(receiver)),
            _state(receiver),
            show.data(receiver.service),
            look.link(Channel, receiver.channel, to=receiver.channel),
            show.number(receiver.done),
            show.number(receiver.retried),
            show.number(receiver.dead),
            show.number(receiver.waiting),
            show.number(receiver.parked),
            show.number(receiver.listeners),
            show.seconds(receiver.p50),
            show.seconds(receiver.p95),
            show.moment(receiver.last_run),
            _types(receiver),
            _mode(receiver),
        ]
    )


def _types(receiver: ReceiverFacts) -> str:
    return show.names(receiver.types) if receiver.types is not None else _("all")


def _state(receiver: ReceiverFacts) -> str:
    if receiver.is_paused:
        return show.status("idle", _("paused by %s") % show.text(receiver.paused_by))
    if receiver.listeners is None:
        return show.UNKNOWN
    return show.status("ok", _("runs")) if receiver.listeners else show.status("error", _("no listener has it"))


def _mode(receiver: ReceiverFacts) -> str:
    words = [_("once") if receiver.once else "", _("async") if receiver.is_async else ""]
    return ", ".join(word for word in words if word) or (_("plain") if receiver.is_here else show.UNKNOWN)


def _group_id(receiver: ReceiverFacts) -> str:
    """A pattern has a group on each of its channels: then the list of groups has to do."""
    return "" if "*" in receiver.channel else f"{receiver.channel}/{receiver.group}"


def _facts(look: Look, receiver: ReceiverFacts) -> list[tuple[str, object]]:
    paused = format_html("{} {}", show.moment(receiver.paused_at), show.data(receiver.paused_by))
    return [
        (_("Service"), show.data(receiver.service)),
        (_("State"), _state(receiver)),
        *([(_("Paused"), paused)] if receiver.is_paused else []),
        (_("Channel"), look.link(Channel, receiver.channel, to=receiver.channel)),
        (_("Types"), _types(receiver)),
        (_("Consumer group"), look.link(ConsumerGroup, receiver.group, to=_group_id(receiver))),
        (_("Defined in"), show.data(receiver.place)),
        (_("In this code"), show.flag(receiver.is_here)),
        (_("Listeners"), show.number(receiver.listeners)),
        (_("Mode"), show.text(_mode(receiver))),
        (_("Retry"), show.text(receiver.retry)),
        (_("Done, 24 h"), show.number(receiver.done)),
        (_("Retried, 24 h"), show.number(receiver.retried)),
        (_("Dead, 24 h"), look.link(DeadLetter, show.number(receiver.dead))),
        (_("Waiting to run again"), show.number(receiver.waiting)),
        (_("Parked until it is resumed"), show.number(receiver.parked)),
        (_("Half within"), show.seconds(receiver.p50)),
        (_("95 % within"), show.seconds(receiver.p95)),
        (_("Last run"), show.since(receiver.last_run)),
    ]
