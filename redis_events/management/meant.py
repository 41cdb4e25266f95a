"""What the options of a command mean and is not there: said, and not done to nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from .. import inspection
from ..exceptions import ActError
from ..inspection import Server


def refuse_nothing(options: Mapping[str, Any], names: Iterable[str]) -> None:
    """`--fingerprint "$F"` with nothing in F is a mistake, not the dead letters of every error. Raises ActError."""
    for name in names:
        value = options[name]
        if value == "" or (isinstance(value, (list, tuple)) and "" in value):
            raise ActError(_("--%(option)s has nothing in it.") % {"option": name.replace("_", "-")})


def refuse_no_letters(
    *, ids: Sequence[str] = (), fingerprint: str = "", receiver: str = "", known: Collection[str]
) -> None:
    """For whoever found no dead letter. Raises ActError, but not for a receiver there is: none of its has failed."""
    named = [*ids, *filter(None, [fingerprint])]
    if named or receiver not in known:
        what = ", ".join([*named, *filter(None, [receiver])])
        raise ActError(_("There is no dead letter of that: %s.") % what)


def check_group(server: Server, channel: str, group: str) -> None:
    """Raises ActError for a consumer group there is not; where our user may not look, the act itself will tell."""
    there = [each.name for each in inspection.groups(channel, server=server)]
    if group in there or server.trouble or server.refusals:
        return
    problem = inspection.unreadable(server).get(channel)
    if problem:
        raise ActError(f"{channel}: {problem}")
    names = {"channel": channel, "group": group, "there": ", ".join(there) or _("none")}
    raise ActError(_("%(channel)s has no consumer group %(group)r; there are: %(there)s.") % names)


def check_consumer(server: Server, channel: str, group: str, consumer: str) -> None:
    """Raises ActError for a consumer there is not, or a group."""
    check_group(server, channel, group)
    there = [each.name for each in inspection.consumers(channel, group, server=server)]
    if consumer in there or server.trouble or server.refusals:
        return
    names = {"place": f"{channel} · {group}", "consumer": consumer, "there": ", ".join(there) or _("none")}
    raise ActError(_("%(place)s has no consumer %(consumer)r; there are: %(there)s.") % names)
