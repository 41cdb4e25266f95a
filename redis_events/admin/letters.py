"""Dead letters: what failed, and can it go again. By error, then one error's, then one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from django.db import connections
from django.http import Http404
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _

from .. import held, inspection
from ..inspection import ErrorGroup
from ..models import Channel, DeadLetter, HeldDelivery, LoggedEvent
from . import show
from .acts import Act
from .blocks import Block, Button, Facts, Field, Lesson, Note, Row, Shown, Table, Text
from .letter_acts import discard, find_group, replay
from .look import BACK, Look, Query
from .pages import Page, needs_payload
from .payload import raw_text

LIMIT = 100
"""Dead letters of one error on a page, and errors on the first one."""


class LetterPage(Page):
    has_items = True
    acts: Mapping[str, Act] = {
        "replay": Act(permission="replay_event", plan=replay, is_on_item=False, needs_server=False),
        "discard": Act(permission="discard_deadletter", plan=discard, is_on_item=False, needs_server=False),
    }

    def shown(self, look: Look) -> Shown:
        fingerprint = look.asked("fingerprint")
        if fingerprint:
            return Shown(subtitle=_("Dead letters of one error"), blocks=_of_one_error(look, fingerprint))
        return Shown(blocks=self.blocks(look), fields=self.fields_of(look))

    def fields_of(self, look: Look) -> list[Field]:
        return [Field(name="receiver", label=_("Receiver"), value=look.asked("receiver"))]

    def blocks(self, look: Look) -> Iterator[Block]:
        receiver = look.asked("receiver")
        groups = look.rows(lambda: inspection.errors(receiver=receiver, limit=LIMIT))
        if receiver and groups:
            yield _of_receiver(look, receiver, using=groups[0].using)
        yield error_table(look, groups, title=_("Errors"))

    def item(self, look: Look, id: str) -> Shown:
        alias, _colon, key = id.partition(":")
        letter = look.rows(lambda: _letter(alias, key))
        return Shown(subtitle=_("Dead letter %s") % key, blocks=_one(look, letter) if letter else ())


def _letter(alias: str, key: str) -> DeadLetter:
    is_known = alias in connections.settings and key.isascii() and key.isdecimal() and len(key) < 19
    letter = DeadLetter.objects.using(alias).filter(held.ours(), pk=int(key)).first() if is_known else None
    if letter is None:
        raise Http404
    return letter


# ------------------------------------------------------------------ by error


def _of_receiver(look: Look, receiver: str, *, using: str) -> Facts:
    """Those of the database with the latest: an act on all of them is one on these."""
    count = look.rows(lambda: inspection.count_dead(receiver=receiver, using=using))
    buttons = _all_buttons(look, count, receiver, {"receiver": receiver}) if count else []
    facts = [(_("Dead letters"), show.number(count)), (_("Database"), show.data(using)), *_obstacle(look, receiver)]
    return Facts(title=receiver, facts=facts, buttons=buttons)


def error_table(look: Look, groups: Sequence[ErrorGroup] | None, *, title: str) -> Table:
    """Dead letters by what failed, a row each, the latest first."""
    return Table(
        title=title,
        headings=[_("Error"), _("Receiver"), _("Channel"), _("Dead letters"), _("Latest"), _("First")],
        rows=None if groups is None else [_error_row(look, group) for group in groups],
        empty=_("No dead letters: every event was handled, or is being tried again."),
        lesson=Lesson(
            text=_("An event gets here when its receiver raised on its last try, or said so at once:"),
            lines=["from redis_events import Reject", "", 'raise Reject("no such order")'],
        ),
    )


def _error_row(look: Look, group: ErrorGroup) -> Row:
    same = {"fingerprint": group.fingerprint, "using": group.using}
    error = look.link(DeadLetter, group.exception or _("no event"), query=same)
    reason = show.short(group.reason) if group.reason and look.may("view_payload") else ""
    why = [show.text(told) for _label, told in _obstacle(look, group.receiver)]
    acts = show.links(*why, *(_anchor(button) for button in _group_buttons(look, group)))
    return Row(
        cells=[
            format_html_join("", "<div>{}</div>", ((line,) for line in (error, reason, acts) if line)),
            show.data(group.receiver),
            look.link(Channel, group.channel, to=group.channel),
            show.number(group.count),
            show.since(group.last),
            show.moment(group.first),
        ]
    )


def _anchor(button: Button) -> str:
    return format_html('<a href="{}">{}</a>', button.url, button.label)


def _group_buttons(look: Look, group: ErrorGroup) -> list[Button]:
    same = {"fingerprint": group.fingerprint, "using": group.using}
    return _all_buttons(look, group.count, group.receiver, same)


def _may_replay(look: Look, receiver: str) -> bool:
    return look.may("replay_event") and not inspection.obstacle(receiver)


def _obstacle(look: Look, receiver: str) -> list[tuple[str, str]]:
    """Why there is no button to replay, for whoever looks for it."""
    why = inspection.obstacle(receiver) if look.may("replay_event") else ""
    return [(_("Replay"), _("cannot be replayed: %s") % why)] if why else []


def _all_buttons(look: Look, number: int, receiver: str, same: Query) -> list[Button]:
    count = show.number(number)
    found = []
    if _may_replay(look, receiver):
        found.append(Button(label=_("Replay all %s") % count, url=look.act_url(DeadLetter, "replay", query=same)))
    if look.may("discard_deadletter"):
        url = look.act_url(DeadLetter, "discard", query=same)
        found.append(Button(label=_("Discard all %s") % count, url=url, is_dangerous=True))
    return found


# ------------------------------------------------------------------ of one error


def _of_one_error(look: Look, fingerprint: str) -> Iterator[Block]:
    using = look.asked("using")
    group = look.rows(lambda: find_group(fingerprint, using))
    if group is None:
        yield Note(text=_("No dead letter of this error is left."))
        return
    yield Facts(title=_("What failed"), facts=_group_facts(look, group), buttons=_group_buttons(look, group))
    letters = look.rows(
        lambda: inspection.held_deliveries(state="dead", fingerprint=fingerprint, using=group.using, limit=LIMIT)
    )
    yield _letter_table(look, letters, group)
    sample = look.rows(lambda: DeadLetter.objects.using(group.using).filter(pk=group.sample).first())
    if sample and look.may("view_payload"):
        yield Text(title=_("Traceback of the latest"), text=show.text(sample.traceback))


def _group_facts(look: Look, group: ErrorGroup) -> list[tuple[str, object]]:
    return [
        (_("Error"), show.data(group.exception)),
        (_("Reason of the latest"), show.data(group.reason) if look.may("view_payload") else needs_payload()),
        (_("Receiver"), show.data(group.receiver)),
        (_("Channel"), look.link(Channel, group.channel, to=group.channel)),
        (_("Dead letters"), show.number(group.count)),
        (_("Latest"), show.since(group.last)),
        (_("First"), show.since(group.first)),
        (_("Database"), group.using),
        *_obstacle(look, group.receiver),
    ]


def _letter_table(look: Look, letters: Sequence[HeldDelivery] | None, group: ErrorGroup) -> Table:
    count = {"shown": show.number(len(letters or ())), "all": show.number(group.count)}
    return Table(
        title=_("Dead letters"),
        headings=[_("Event"), _("Type"), _("Key"), _("Reason"), _("Runs"), _("Died")],
        rows=None if letters is None else [_letter_row(look, letter) for letter in letters],
        note=_("The latest %(shown)s of %(all)s.") % count,
        buttons=_letter_buttons(look, group),
        back=look.here,
    )


def _letter_buttons(look: Look, group: ErrorGroup) -> list[Button]:
    found = []
    if _may_replay(look, group.receiver):
        url = look.url(DeadLetter, view="replay")
        found.append(Button(label=_("Replay selected"), url=url))
    if look.may("discard_deadletter"):
        url = look.url(DeadLetter, view="discard")
        found.append(Button(label=_("Discard selected"), url=url, is_dangerous=True))
    return found


def _id(letter: HeldDelivery) -> str:
    return f"{letter._state.db}:{letter.pk}"


def _letter_row(look: Look, letter: HeldDelivery) -> Row:
    return Row(
        value=_id(letter),
        label=letter.event_id,
        cells=[
            look.link(DeadLetter, show.tail(letter.event_id), to=_id(letter)),
            show.data(letter.type),
            show.data(letter.key),
            show.short(letter.reason) if look.may("view_payload") else show.UNKNOWN,
            show.number(letter.attempt),
            show.moment(letter.updated_at),
        ],
    )


# ------------------------------------------------------------------ one


def _one(look: Look, letter: DeadLetter) -> Iterator[Block]:
    yield Facts(title=_("What failed"), facts=_facts(look, letter), buttons=_buttons(look, letter))
    if not look.may("view_payload"):
        yield Note(text=needs_payload())
        return
    if letter.traceback:
        yield Text(title=_("Traceback"), text=letter.traceback)
    yield raw_text(look, bytes(letter.raw), title=_("Raw bytes"))


def _buttons(look: Look, letter: DeadLetter) -> list[Button]:
    group = look.url(DeadLetter, query={"fingerprint": letter.fingerprint, "using": letter._state.db})
    chosen = {"select": _id(letter), BACK: group}
    found = []
    if _may_replay(look, letter.receiver):
        found.append(Button(label=_("Replay"), url=look.act_url(DeadLetter, "replay", query=chosen)))
    if look.may("discard_deadletter"):
        url = look.act_url(DeadLetter, "discard", query=chosen)
        found.append(Button(label=_("Discard"), url=url, is_dangerous=True))
    return found


def _facts(look: Look, letter: DeadLetter) -> list[tuple[str, object]]:
    same = {"fingerprint": letter.fingerprint, "using": letter._state.db}
    entry = look.link(LoggedEvent, letter.entry_id, to=f"{letter.channel}/{letter.entry_id}")
    return [
        (_("Error"), look.link(DeadLetter, letter.exception or _("no event"), query=same)),
        (_("Reason"), show.data(letter.reason) if look.may("view_payload") else needs_payload()),
        (_("Receiver"), show.data(letter.receiver)),
        (_("Consumer group"), show.data(letter.group)),
        (_("Channel"), look.link(Channel, letter.channel, to=letter.channel)),
        (_("Type"), show.data(letter.type)),
        (_("Key"), show.data(letter.key)),
        (_("From"), show.data(letter.source)),
        (_("Event id"), show.data(letter.event_id)),
        (_("Entry"), entry if letter.entry_id else show.UNKNOWN),
        (_("Runs"), show.number(letter.attempt)),
        (_("Held since"), show.since(letter.created_at)),
        (_("Died"), show.since(letter.updated_at)),
        *_obstacle(look, letter.receiver),
    ]
