"""What ``inspect_events`` can do: each act knows what it would touch before it touches it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import inspection
from ..conf import conf
from ..events import now
from ..exceptions import ActError, Unreachable
from ..inspection import ConsumerFacts, Done, ReceiverFacts, Server
from ..registry import all_receivers
from .meant import check_consumer, check_group, refuse_no_letters

Asked = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What would be done, as a question with its exact count, and what does it."""

    question: str
    do: Callable[[], Done]


def who() -> str:
    """Who acts: ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "?"
    return f"{user}@{socket.gethostname()}"


def wanted(asked: Asked) -> tuple[str, Callable[[Asked], Act]] | None:
    """The subject of the act asked for, and what prepares it. Raises ActError for more than one."""
    found = [name for name in ACTS if asked[name]]
    if len(found) > 1:
        raise ActError(_("One act at a time: %s.") % ", ".join(f"--{name.replace('_', '-')}" for name in found))
    return ACTS[found[0]] if found else None


def _one(work: Callable[[], object]) -> Callable[[], Done]:
    """For an act on one thing, which is done or raises."""

    def do() -> Done:
        work()
        return Done(done=1, left={})

    return do


def _answered(server: Server) -> None:
    if server.trouble:
        raise Unreachable(server.trouble.message)


# ------------------------------------------------------------------ groups and their pending entries


def _claim(asked: Asked) -> Act:
    """From one consumer, or from each without a heartbeat."""
    channel, group = asked["claim"]
    chosen = _with_pending(channel, group, named=asked["consumer"])
    count = sum(each.pending for each in chosen)
    names = {"count": f"{count:,}", "place": f"{channel} · {group}", "whom": ", ".join(each.name for each in chosen)}
    question = ngettext(
        "Take %(count)s pending entry of %(place)s from %(whom)s, for listeners that are alive?",
        "Take %(count)s pending entries of %(place)s from %(whom)s, for listeners that are alive?",
        count,
    )
    return Act(question=question % names, do=lambda: _claim_from(channel, group, [each.name for each in chosen]))


def _with_pending(channel: str, group: str, *, named: str | None) -> list[ConsumerFacts]:
    """The consumers to take from. Raises ActError where there are none, Unreachable."""
    with Server() as server:
        check_group(server, channel, group)
        found = inspection.consumers(channel, group, server=server)
        alive = {each.id for each in inspection.listeners(server=server) if each.is_alive}
        _answered(server)
    chosen = [each for each in found if each.pending and (each.name == named if named else each.name not in alive)]
    if not chosen:
        names = {"place": f"{channel} · {group}", "whom": named or _("a consumer without a heartbeat")}
        raise ActError(_("Of %(place)s nothing is in the hands of %(whom)s.") % names)
    return chosen


def _claim_from(channel: str, group: str, consumers: list[str]) -> Done:
    done, left = 0, dict[str, int]()
    for consumer in consumers:
        part = inspection.claim(channel, group, consumer=consumer)
        done += part.done
        left |= {reason: left.get(reason, 0) + count for reason, count in part.left.items()}
    return Done(done=done, left=left)


def _skip(asked: Asked) -> Act:
    if len(asked["skip"]) < 3:
        raise ActError(_("--skip needs a channel, a group, and the ids of entries."))
    channel, group, *ids = asked["skip"]
    with Server() as server:
        check_group(server, channel, group)
    question = ngettext(
        "Settle %(count)s entry of %(place)s without running it? It becomes a dead letter that says who did it.",
        "Settle %(count)s entries of %(place)s without running them? They become dead letters that say who did it.",
        len(ids),
    )
    names = {"count": f"{len(ids):,}", "place": f"{channel} · {group}"}
    return Act(question=question % names, do=lambda: inspection.skip(channel, group, ids, who=who()))


def _remove_consumer(asked: Asked) -> Act:
    channel, group, consumer = asked["remove_consumer"]
    with Server() as server:
        check_consumer(server, channel, group, consumer)
    question = _("Remove the consumer %(consumer)s of %(place)s?")
    names = {"consumer": consumer, "place": f"{channel} · {group}"}
    return Act(question=question % names, do=_one(lambda: inspection.remove_consumer(channel, group, consumer)))


def _move(asked: Asked) -> Act:
    channel, group, to = asked["move"]
    with Server() as server:
        check_group(server, channel, group)
    question = _("Let %(place)s read on behind %(to)s? What is skipped over nobody runs; what is repeated runs again.")
    names = {"place": f"{channel} · {group}", "to": to}
    return Act(question=question % names, do=_one(lambda: inspection.move_group(channel, group, to)))


# ------------------------------------------------------------------ receivers, listeners, dead letters


def _pause(asked: Asked) -> Act:
    name, service = asked["pause"], asked["service"] or conf.SERVICE
    listeners = _known(name, service).listeners or 0
    question = ngettext(
        "Pause %(name)s of %(service)s, which %(count)s listener has? What comes is parked until it is resumed.",
        "Pause %(name)s of %(service)s, which %(count)s listeners have? What comes is parked until it is resumed.",
        listeners,
    )
    names = {"name": name, "service": service, "count": f"{listeners:,}"}
    return Act(question=question % names, do=_one(lambda: inspection.pause(name, service=service, who=who())))


def _known(name: str, service: str) -> ReceiverFacts:
    """The receiver of that name. Raises ActError where a service has none, Unreachable."""
    with Server() as server:
        known = {each.name: each for each in inspection.receivers(server=server) if each.service == service}
        _answered(server)
    if name not in known:
        names = {"service": service, "name": name, "known": ", ".join(sorted(known)) or _("none")}
        raise ActError(_("%(service)s has no receiver %(name)r; there are: %(known)s.") % names)
    return known[name]


def _resume(asked: Asked) -> Act:
    name, service = asked["resume"], asked["service"] or conf.SERVICE
    question = _("Resume %(name)s of %(service)s?") % {"name": name, "service": service}
    return Act(question=question, do=lambda: _resumed(name, service))


def _resumed(name: str, service: str) -> Done:
    """A name nobody has is refused only where it is not paused: all listeners of its service may be down."""
    if inspection.resume(name, service=service):
        return Done(done=1, left={})
    _known(name, service)
    return Done(done=0, left={_("not paused"): 1})


def _stop(asked: Asked) -> Act:
    id = asked["stop"]
    with Server() as server:
        alive = [each.id for each in inspection.listeners(server=server) if each.is_alive]
        _answered(server)
    if id not in alive:
        names = {"id": id, "alive": ", ".join(alive) or _("none")}
        raise ActError(_("%(id)r is no listener that is alive; these are: %(alive)s.") % names)
    question = _("Ask the listener %s to stop, as SIGTERM would?") % id
    return Act(question=question, do=_one(lambda: inspection.stop_listener(id, who=who())))


def _discard(asked: Asked) -> Act:
    chosen = {name: asked[name] for name in ("ids", "fingerprint", "receiver") if asked[name]}
    counted_at = now()
    count = inspection.count_dead(**chosen)
    if not count:
        refuse_no_letters(**chosen, known={each.name for each in all_receivers()})
    question = ngettext("Delete %s dead letter for good?", "Delete %s dead letters for good?", count) % f"{count:,}"
    return Act(question=question, do=lambda: inspection.discard(**chosen, until=counted_at))


ACTS: dict[str, tuple[str, Callable[[Asked], Act]]] = {
    "claim": ("groups", _claim),
    "remove_consumer": ("groups", _remove_consumer),
    "move": ("groups", _move),
    "skip": ("pending", _skip),
    "pause": ("receivers", _pause),
    "resume": ("receivers", _resume),
    "stop": ("listeners", _stop),
    "discard": ("dead", _discard),
}
