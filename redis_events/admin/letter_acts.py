"""What can be done about dead letters: let them run again, or delete them for good. One, some, or all of one error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.contrib.admin.models import CHANGE, DELETION
from django.db import connections
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import held, inspection
from ..exceptions import ActError
from ..inspection import Done, ErrorGroup
from ..models import DeadLetter
from . import show
from .acts import Plan, bound, chosen
from .blocks import Field
from .look import Look

Perform = Callable[..., Done]


def find_group(fingerprint: str, using: str) -> ErrorGroup | None:
    """One error's dead letters, counted. Raises django.db.Error."""
    groups = inspection.errors(fingerprint=fingerprint)
    return next((each for each in groups if using in ("", each.using)), None)


def replay(_page: object, look: Look, _id: str) -> Plan | None:
    """Let the receivers of dead letters run again."""
    of_what = _meant(look)
    if of_what is None:
        return None
    foreseen = of_what.told_to(inspection.foresee_replay)
    if not foreseen.done:
        raise ActError(_("None of them can be replayed (%s).") % show.left(foreseen.left))
    question = ngettext(
        "Let the receiver of %(count)s dead letter run again?",
        "Let the receivers of %(count)s dead letters run again?",
        foreseen.done,
    )
    button = ngettext("Yes, replay %(count)s dead letter", "Yes, replay %(count)s dead letters", foreseen.done)
    warning = _("A receiver that is not `once` has its effect again, also what it did before it failed.")
    if foreseen.left:
        rest = _("The others cannot be replayed and are left alone (%s).") % show.left(foreseen.left)
        warning = f"{warning} {rest}"
    return of_what.plan(
        title=_("Replay dead letters"),
        question=question,
        button=button,
        warning=warning,
        perform=inspection.replay,
        touched=foreseen.done,
    )


def discard(_page: object, look: Look, _id: str) -> Plan | None:
    """Delete dead letters for good."""
    of_what = _meant(look)
    if of_what is None:
        return None
    question = ngettext(
        "Delete %(count)s dead letter for good?", "Delete %(count)s dead letters for good?", of_what.count
    )
    button = ngettext("Yes, discard %(count)s dead letter", "Yes, discard %(count)s dead letters", of_what.count)
    return of_what.plan(
        title=_("Discard dead letters"),
        question=question,
        button=button,
        warning=_("They cannot be replayed any more. The events stay in their streams for as long as those keep them."),
        perform=inspection.discard,
        touched=of_what.count,
        is_discard=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """The dead letters an act is about: some by their ids, or all of one error that were there when it was counted."""

    count: int
    using: str
    name: str
    ids: Sequence[str] = ()
    items: Sequence[str] = ()
    fingerprint: str = ""
    receiver: str = ""
    until: datetime | None = None

    def told_to(self, perform: Perform) -> Done:
        """What this does to them."""
        keys = [id.partition(":")[2] for id in self.ids]
        same = {"fingerprint": self.fingerprint, "receiver": self.receiver, "using": self.using, "until": self.until}
        return perform(ids=keys, **same)

    def plan(
        self,
        *,
        title: str,
        question: str,
        button: str,
        warning: str,
        perform: Perform,
        touched: int,
        is_discard: bool = False,
    ) -> Plan:
        """The confirmation's words, of as many as are ``touched``, and the call that makes them true."""
        count = {"count": show.number(touched)}
        return Plan(
            title=title,
            question=question % count,
            button=button % count,
            warning=warning,
            count=self.count,
            ids=self.ids,
            until=self.until,
            using=self.using,
            items=self.items,
            object_id=self.ids[0] if len(self.ids) == 1 else "",
            object_repr=self.name,
            fields=[Field(name="note", label=_("Note, for the log"), kind="text")] if is_discard else (),
            is_dangerous=is_discard,
            run=lambda entered: self.told_to(perform),
            flag=DELETION if is_discard else CHANGE,
        )


def _meant(look: Look) -> Meant | None:
    ids = chosen(look)
    if ids:
        return _some(ids)
    fingerprint, receiver = look.asked("fingerprint"), look.asked("receiver")
    if fingerprint:
        return _all_of_error(look, fingerprint)
    return _all_of_receiver(look, receiver) if receiver else None


def _some(ids: Sequence[str]) -> Meant | None:
    """Those of one database that are still dead: the page they were selected on is one of one database."""
    using = ids[0].partition(":")[0]
    keys = [
        key
        for alias, _colon, key in (id.partition(":") for id in ids)
        if alias == using and key.isascii() and key.isdecimal()
    ]
    if len(keys) < len(ids):
        raise ActError(_("These ids are none of dead letters of one database."))
    letters = _rows(using, keys)
    if not letters:
        return None
    return Meant(
        count=len(letters),
        using=using,
        name=letters[0].exception or letters[0].event_id,
        ids=[f"{using}:{each.pk}" for each in letters],
        items=[f"{each.type or each.channel} {each.key} {each.event_id} → {each.receiver}" for each in letters],
    )


def _all_of_error(look: Look, fingerprint: str) -> Meant | None:
    group = find_group(fingerprint, look.asked("using"))
    if group is None:
        return None
    name = f"{group.exception} {group.receiver}"
    return Meant(count=group.count, using=group.using, name=name, fingerprint=fingerprint, until=_until(look, group))


def _all_of_receiver(look: Look, receiver: str) -> Meant | None:
    """Those of one database: a receiver has its rows in two only while its `using` changes."""
    latest = inspection.errors(receiver=receiver, limit=1)
    if not latest:
        return None
    using, until = latest[0].using, _until(look, latest[0])
    count = inspection.count_dead(receiver=receiver, using=using, until=until)
    return Meant(count=count, using=using, name=receiver, receiver=receiver, until=until) if count else None


def _until(look: Look, latest: ErrorGroup) -> datetime:
    """The latest that was counted; once it was confirmed, the latest that was counted then."""
    return bound(look, using=latest.using) if look.request.method == "POST" else latest.last


def _rows(using: str, keys: Sequence[str]) -> list[DeadLetter]:
    if using not in connections.settings:
        return []
    rows = DeadLetter.objects.using(using).filter(held.ours())
    pks = [int(key) for key in keys if len(key) < 19]
    if rows.filter(event_id__in=keys).exclude(pk__in=pks).exists():
        raise ActError(_("Some of these ids are event ids of other dead letters: replay or discard all of the error."))
    return list(rows.filter(pk__in=pks).defer("raw", "traceback").order_by("pk"))
