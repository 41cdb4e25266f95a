"""What can be done about a consumer group: claim, settle without running, remove a consumer, set the position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import inspection
from ..inspection import Done
from . import show
from .acts import MOST, Plan, chosen
from .blocks import Field
from .look import Look

CONSUMER = "consumer"
POSITION = "position"


def claim(_page: object, look: Look, id: str) -> Plan | None:
    """Hand pending entries to listeners that are alive: the selected ones, one consumer's, or all."""
    channel, _slash, group = id.partition("/")
    ids = _asked_for(look, channel, group)
    question = ngettext(
        "Hand %(count)s pending entry of %(group)s on %(channel)s to a listener that is alive?",
        "Hand %(count)s pending entries of %(group)s on %(channel)s to listeners that are alive?",
        len(ids),
    )
    return _of_entries(
        ids,
        channel=channel,
        group=group,
        title=_("Claim pending entries"),
        question=question,
        button=ngettext("Yes, claim %(count)s entry", "Yes, claim %(count)s entries", len(ids)),
        warning=_("An entry that is being run at this moment by somebody who is alive would run twice."),
        perform=inspection.claim,
    )


def skip(_page: object, look: Look, id: str) -> Plan | None:
    """Settle pending entries without running them; each leaves a dead letter."""
    channel, _slash, group = id.partition("/")
    ids = chosen(look)
    question = ngettext(
        "Settle %(count)s entry of %(group)s on %(channel)s without running its receivers?",
        "Settle %(count)s entries of %(group)s on %(channel)s without running their receivers?",
        len(ids),
    )
    return _of_entries(
        ids,
        channel=channel,
        group=group,
        title=_("Settle without running"),
        question=question,
        button=ngettext("Yes, settle %(count)s entry", "Yes, settle %(count)s entries", len(ids)),
        warning=_(
            "Each leaves dead letters that say who settled it; from there it can be replayed. "
            "A run that has begun goes on to its end, and is not tried again if it fails."
        ),
        perform=partial(inspection.skip, who=look.who),
        is_dangerous=True,
    )


def _of_entries(
    ids: Sequence[str],
    *,
    channel: str,
    group: str,
    title: str,
    question: str,
    button: str,
    warning: str,
    perform: Callable[..., Done],
    is_dangerous: bool = False,
) -> Plan | None:
    """A plan for just these entries; None where there is none."""
    if not ids:
        return None
    names = {"count": show.number(len(ids)), "group": group, "channel": channel}
    return Plan(
        title=title,
        question=question % names,
        button=button % names,
        count=len(ids),
        ids=ids,
        items=ids,
        warning=warning,
        object_id=f"{channel}/{group}",
        object_repr=f"{channel} · {group}",
        is_dangerous=is_dangerous,
        run=lambda entered: perform(channel, group, ids=ids),
    )


def remove(_page: object, look: Look, id: str) -> Plan | None:
    """Remove a consumer that is gone and has nothing pending."""
    channel, _slash, group = id.partition("/")
    consumer = look.asked(CONSUMER)
    known = {each.name: each for each in inspection.consumers(channel, group, server=look.server)}
    if consumer not in known:
        return None
    text = _("Remove 1 consumer, %(consumer)s, from %(group)s on %(channel)s? It has %(pending)s pending.")
    pending = show.number(known[consumer].pending)
    return Plan(
        title=_("Remove a consumer"),
        question=text % {"consumer": consumer, "group": group, "channel": channel, "pending": pending},
        button=_("Yes, remove it"),
        count=1,
        object_id=id,
        object_repr=f"{channel} · {group} · {consumer}",
        is_dangerous=True,
        run=lambda entered: inspection.remove_consumer(channel, group, consumer),
    )


def move(_page: object, look: Look, id: str) -> Plan | None:
    """Let a group go on from another entry; its name must be typed."""
    channel, _slash, group = id.partition("/")
    known = {each.name: each for each in inspection.groups(channel, server=look.server)}
    if group not in known:
        return None
    hint = _("0: everything that is there is run again; $: nothing of it is run.")
    text = _("Let %(group)s on %(channel)s go on from another entry? It stands at %(last)s now.")

    def run(entered: Mapping[str, str]) -> None:
        inspection.move_group(channel, group, entered[POSITION])

    return Plan(
        title=_("Set position"),
        question=text % {"group": group, "channel": channel, "last": show.text(known[group].last_id)},
        button=_("Yes, set it"),
        count=1,
        typed=group,
        fields=[Field(name=POSITION, label=_("Entry id to go on behind"), kind="text", hint=hint)],
        warning=_("Backward, entries are run again; forward, those between are never run, and no dead letters tell."),
        object_id=id,
        object_repr=f"{channel} · {group}",
        is_dangerous=True,
        run=run,
    )


def _asked_for(look: Look, channel: str, group: str) -> list[str]:
    """The chosen entries; before any are, those of the consumer that is named, or all."""
    if look.request.method == "POST" or look.request.GET.getlist("select"):
        return chosen(look)
    consumer = look.asked(CONSUMER)
    entries = inspection.pending(channel, group, limit=MOST, server=look.server)
    return [entry.entry_id for entry in entries if consumer in ("", entry.consumer)]
