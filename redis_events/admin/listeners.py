"""Listeners: who is alive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from django.http import Http404
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import ListenerFacts
from ..models import ListenerStatus
from . import show
from .acts import Act, Plan
from .blocks import Block, Button, Facts, Lesson, Note, Row, Shown, Table
from .look import Look
from .pages import Page


def _found(look: Look, id: str) -> ListenerFacts | None:
    return next((each for each in inspection.listeners(server=look.server) if each.id == id), None)


def stop(_page: object, look: Look, id: str) -> Plan | None:
    """Ask a listener to finish what it has begun and end."""
    listener = _found(look, id)
    if listener is None or not listener.is_alive or listener.is_stopping:
        return None
    text = _("Ask 1 listener to stop: process %(pid)s of %(service)s on %(host)s?")
    names = {"pid": show.text(listener.pid), "service": show.text(listener.service), "host": show.text(listener.host)}
    return Plan(
        title=_("Stop a listener"),
        question=text % names,
        button=_("Yes, ask it to stop"),
        count=1,
        warning=_("It finishes what it has begun, then ends; what starts it again is your supervisor."),
        object_id=id,
        object_repr=id,
        is_dangerous=True,
        run=lambda entered: inspection.stop_listener(id, who=look.who),
    )


class ListenerPage(Page):
    has_items = True
    acts: Mapping[str, Act] = {"stop": Act(permission="stop_listener", plan=stop)}

    def blocks(self, look: Look) -> Iterator[Block]:
        yield _table(look, inspection.listeners(server=look.server))

    def item(self, look: Look, id: str) -> Shown:
        listener = _found(look, id)
        if listener is None and not look.is_blind:
            raise Http404
        return Shown(subtitle=id, blocks=_one(look, listener))


def _one(look: Look, listener: ListenerFacts | None) -> Iterator[Block]:
    if listener is None:
        yield Note(text=show.UNKNOWN)
        return
    is_stoppable = look.may("stop_listener") and listener.is_alive and not listener.is_stopping
    button = Button(
        label=_("Ask it to stop"), url=look.act_url(ListenerStatus, "stop", to=listener.id), is_dangerous=True
    )
    yield Facts(title=_("What it is"), facts=_facts(listener), buttons=[button] if is_stoppable else [])


def _table(look: Look, listeners: Sequence[ListenerFacts]) -> Table:
    return Table(
        title=_("Listeners"),
        headings=[
            *(_("Listener"), _("Service"), _("State"), _("In flight"), _("Last heard of"), _("Channels")),
            *(_("Started"), _("Memory"), _("Host"), _("Process"), _("Version")),
        ],
        rows=look.drawn(listeners, lambda listener: _row(look, listener)),
        lesson=Lesson(
            text=_("No listener has been heard of within the hour. Start one beside your web process:"),
            lines=["python manage.py listen_events"],
        ),
    )


def _row(look: Look, listener: ListenerFacts) -> Row:
    return Row(
        cells=[
            look.link(ListenerStatus, listener.id, to=listener.id),
            show.data(listener.service),
            _state(listener),
            show.number(listener.in_flight),
            show.moment(listener.last_beat),
            show.names(listener.channels),
            show.moment(listener.started),
            show.size(listener.memory),
            show.data(listener.host),
            show.text(listener.pid),
            show.data(listener.version),
        ]
    )


def _state(listener: ListenerFacts) -> str:
    if not listener.is_alive:
        return show.status("error", _("gone"))
    return show.status("warning", _("stopping")) if listener.is_stopping else show.status("ok", _("alive"))


def _facts(listener: ListenerFacts) -> list[tuple[str, object]]:
    return [
        (_("State"), _state(listener)),
        (_("Service"), show.data(listener.service)),
        (_("Host"), show.data(listener.host)),
        (_("Process"), show.text(listener.pid)),
        (_("Version"), show.data(listener.version)),
        (_("Channels"), show.names(listener.channels)),
        (_("Receivers"), show.names(listener.receivers)),
        (_("Started"), show.since(listener.started)),
        (_("Last heard of"), show.since(listener.last_beat)),
        (_("In flight"), show.number(listener.in_flight)),
        (_("Memory"), show.size(listener.memory)),
    ]
