"""Limits for cron: which of them are exceeded, and which nobody can say of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.utils.translation import gettext as _

from ..events import now
from ..inspection import GroupFacts
from .tables import duration


@dataclass(frozen=True, slots=True)
class Verdict:
    """A line for each limit that is exceeded, and for each that cannot be judged."""

    exceeded: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def judge_lag(groups: Sequence[GroupFacts], *, most: int, into: Verdict) -> None:
    """No group may have more unread entries than that."""
    for group in groups:
        place = f"{group.channel} · {group.name}"
        if group.lag is None:
            into.unknown.append(_("lag: %s does not say") % place)
        elif group.lag > most:
            numbers = {"place": place, "lag": f"{group.lag:,}", "most": f"{most:,}"}
            into.exceeded.append(_("lag: %(place)s has %(lag)s unread, more than %(most)s") % numbers)


def judge_age(groups: Sequence[GroupFacts], *, most: float, into: Verdict) -> None:
    """No group may have an entry unsettled for more seconds than that."""
    for group in groups:
        place = f"{group.channel} · {group.name}"
        if group.is_behind is None:
            into.unknown.append(_("age: %s does not say") % place)
        elif group.behind_since and (age := (now() - group.behind_since).total_seconds()) > most:
            numbers = {"place": place, "age": duration(age), "most": duration(most)}
            into.exceeded.append(_("age: %(place)s is behind for %(age)s, more than %(most)s") % numbers)


def judge_dead(count: int | None, *, most: int, into: Verdict) -> None:
    """There may be no more dead letters than that."""
    if count is None:
        into.unknown.append(_("dead: the database does not say"))
    elif count > most:
        into.exceeded.append(
            _("dead: %(count)s dead letters, more than %(most)s") % {"count": f"{count:,}", "most": f"{most:,}"}
        )
