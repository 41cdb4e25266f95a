"""Whether it is healthy: everything that the first page shows, in one look."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from django.db import Error
from django.utils.translation import gettext as _

from ..conf import conf, mask
from ..events import now
from ..held import State
from ..registry import all_receivers
from . import rows
from .facts import Drift, ErrorGroup, GroupFacts, Overview, ServerFacts, Trouble
from .log import events
from .people import listeners, receivers
from .rates import throughput
from .scene import scene
from .server import Server, advice, at
from .streams import channels, groups

SHOWN = 10
"""Errors and events on the first page."""


def overview(*, server: Server | None = None) -> Overview:
    """The first page: at most 12 round trips to the server, and as few questions to the database."""
    with at(server) as asked:
        facts = server_facts(server=asked)
        found = groups(server=asked)
        return Overview(
            server=facts,
            trouble=asked.trouble or condition(facts),
            minutes=throughput(server=asked),
            channels=channels(server=asked),
            groups=found,
            errors=_errors(),
            dead_letters=rows.dead_count(),
            waiting=_kept(asked, State.WAITING),
            parked=_kept(asked, State.PARKED),
            events=events(limit=SHOWN, server=asked).events,
            listeners_alive=_alive(asked),
            outboxes=rows.outboxes(),
            drift=[*drift(server=asked, found=found)],
        )


def _errors() -> Sequence[ErrorGroup]:
    try:
        return rows.errors(limit=SHOWN)
    except Error:
        return ()


def _kept(server: Server, state: State) -> int | None:
    counts = rows.kept(server=server)
    return counts[state].total() if counts else None


def _alive(server: Server) -> int | None:
    return len(scene(server).cards) if scene(server).is_known else None


# ------------------------------------------------------------------ the server


def server_facts(*, server: Server | None = None) -> ServerFacts:
    """The server itself, as far as our user may know."""
    with at(server) as asked:
        scene(asked)  # the connection is made: what is measured is one question
        began = time.perf_counter()
        answer = asked.ask(("INFO",))[0]
        latency = time.perf_counter() - began
        saves = asked.ask(("CONFIG", "GET", "save"), quietly=True)[0]
    if answer is None:
        return ServerFacts(location=mask(conf.LOCATION))
    facts = dict(line.split(":", 1) for line in answer.decode(errors="replace").splitlines() if ":" in line)
    return ServerFacts(
        location=mask(conf.LOCATION),
        name=_name(facts),
        latency=latency,
        eviction_policy=facts.get("maxmemory_policy"),
        persistence=_persistence(facts, saves),
        role=facts.get("role"),
        used_memory=_number(facts.get("used_memory")),
        max_memory=_number(facts.get("maxmemory")) or None,
        clock_skew=scene(asked).skew,
    )


def _name(facts: dict[str, str]) -> str | None:
    for key, name in (("valkey_version", "Valkey"), ("redis_version", "Redis")):
        if key in facts:
            return f"{name} {facts[key]}"
    return None


def _persistence(facts: dict[str, str], saves: Sequence[bytes] | None) -> str | None:
    """Where the configuration may not be asked, snapshots show by their having been made."""
    if "aof_enabled" not in facts:
        return None
    snapshots = bool(saves[1]) if saves else _number(facts.get("rdb_saves")) not in (0, None)
    kept = ["aof"] * (facts["aof_enabled"] == "1") + ["rdb"] * snapshots
    return "+".join(kept) or "none"


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() else None


def condition(facts: ServerFacts) -> Trouble | None:
    """What keeps a server that can be read from being written to."""
    if facts.max_memory and facts.used_memory and facts.used_memory >= facts.max_memory:
        return _trouble("memory-full", _("The server is out of memory."))
    if facts.role == "slave":
        return _trouble("read-only", _("This is a replica: it takes no writes."))
    return None


def _trouble(kind: str, message: str) -> Trouble:
    return Trouble(kind=kind, message=message, since=now(), advice=advice(kind))


# ------------------------------------------------------------------ drift


def drift(*, server: Server | None = None, found: Sequence[GroupFacts] | None = None) -> list[Drift]:
    """What Redis or a table knows and the code does not, or the other way round. ``found``: the groups, where known."""
    with at(server) as asked:
        known = groups(server=asked) if found is None else found
        return [*_unserved_groups(known), *_receivers(asked), *_rows(asked)]


def _unserved_groups(known: Sequence[GroupFacts]) -> Iterator[Drift]:
    for group in known:
        if group.is_behind and group.is_served is False:
            text = _("no listener of %(group)s is alive; what it has not read of %(channel)s is kept for it")
            yield Drift(
                kind="group-unserved", name=group.name, text=text % {"group": group.name, "channel": group.channel}
            )


def _receivers(server: Server) -> Iterator[Drift]:
    """Receivers of this service that only the code has, or only its listeners."""
    for receiver in receivers(server=server):
        if receiver.service != conf.SERVICE or receiver.listeners is None:
            continue
        if receiver.is_here and not receiver.listeners:
            text = _("no listener that is alive has the receiver %(name)s")
            yield Drift(kind="receiver-unserved", name=receiver.name, text=text % {"name": receiver.name})
        if not receiver.is_here:
            text = _("listeners have the receiver %(name)s, this code does not")
            yield Drift(kind="receiver-unknown", name=receiver.name, text=text % {"name": receiver.name})


def _rows(server: Server) -> Iterator[Drift]:
    known = {each.name for each in all_receivers()}
    known |= {name for each in listeners(server=server) for name in each.receivers}
    counts = sum((rows.kept(server=server) or {}).values(), Counter[str]())
    for name, count in sorted((name, count) for name, count in counts.items() if name not in known):
        text = _("%(count)d held deliveries wait for the receiver %(name)s, which nobody has")
        yield Drift(kind="rows-unknown", name=name, text=text % {"count": count, "name": name})
