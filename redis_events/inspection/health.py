"""Whether the server and the tables are fit for what this project asks of them: a check each."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import readiness
from ..announcements import contradictions
from ..conf import conf
from ..heartbeat import Card
from ..registry import all_receivers
from ..routing import is_memory
from ..transports.client import seconds_of
from .facts import Check, ServerFacts
from .glance import condition, drift, server_facts
from .rights import MOST_CHANNELS, Rights, rights
from .scene import Scene, scene
from .server import Server
from .streams import streams, unreadable

LEVELS = ("ok", "unknown", "warning", "error")
"""From the best to the worst."""
OLDEST = (6, 2)
SKEWED, FAR_OFF = 1.0, 10.0
"""Seconds the clocks may differ."""
PATIENCE = 5.0
MOST_NAMED = 8


def checks(*, server: Server | None = None) -> list[Check]:
    """Every check, in the order in which their causes are worth mending. Raises ConfigurationError."""
    if server is None:
        with Server(patience=PATIENCE) as own:
            return checks(server=own)
    facts, here = server_facts(server=server), scene(server)
    found = [
        _connection(server, facts),
        _version(facts),
        _memory(facts),
        _eviction(facts),
        _persistence(facts),
        _clock(server),
        _rights(rights(server, here.announced)),
        _channels(server, here),
        _announcements(here),
        _neighbours(here),
        _receivers(server, here),
        _tables(here),
    ]
    return [each for each in found if not is_memory() or each.id in ("connection", "tables")]


def worst(found: Sequence[Check]) -> str:
    """The level of the worst of them."""
    return max((each.level for each in found), key=LEVELS.index, default="ok")


# ------------------------------------------------------------------ the server


def _connection(server: Server, facts: ServerFacts) -> Check:
    title, trouble = _("Connection"), server.trouble
    if is_memory() and trouble:
        return _warn("connection", title, _("%s: there is no server") % facts.location, trouble.advice)
    if trouble:
        return _fail("connection", title, trouble.message, trouble.advice)
    detail = _("%(location)s answers") % {"location": facts.location}
    if facts.latency is not None:
        detail = _("%(location)s answers in %(ms)s ms") % {
            "location": facts.location,
            "ms": f"{facts.latency * 1e3:.3g}",
        }
    return _pass("connection", title, detail)


def _version(facts: ServerFacts) -> Check:
    title = _("Version")
    if not facts.name:
        return _unknown("version", title, _("The server does not say what it is."))
    numbers = re.search(r"(\d+)\.(\d+)", facts.name)
    if not numbers or (int(numbers[1]), int(numbers[2])) >= OLDEST:
        return _pass("version", title, facts.name)
    return _fail("version", title, facts.name, _("Streams need Redis 6.2 or newer, or Valkey."))


def _memory(facts: ServerFacts) -> Check:
    """Whether it takes writes at all."""
    title, trouble = _("Writes"), condition(facts)
    if trouble:
        return _fail("writes", title, trouble.message, trouble.advice)
    if facts.used_memory is None:
        return _unknown("writes", title, _("How much memory is used is not known."))
    used = f"{facts.used_memory / 2**20:,.1f} MiB"
    if not facts.max_memory:
        return _pass("writes", title, _("%(used)s in use, without a limit") % {"used": used})
    limit = f"{facts.max_memory / 2**20:,.1f} MiB"
    if facts.used_memory > 0.9 * facts.max_memory:
        advice = _("Raise maxmemory, or keep less (RETENTION, MAX_LENGTH): a full server takes no more events.")
        return _warn("writes", title, _("%(used)s in use of %(limit)s") % {"used": used, "limit": limit}, advice)
    return _pass("writes", title, _("%(used)s in use of %(limit)s") % {"used": used, "limit": limit})


def _eviction(facts: ServerFacts) -> Check:
    title, policy = _("Eviction"), facts.eviction_policy
    if policy is None:
        return _unknown("eviction", title, _("The server does not say what it throws away when its memory is full."))
    if policy == "noeviction":
        return _pass("eviction", title, policy)
    detail = _("%s: with its memory full the server throws keys away") % policy
    advice = _("Set maxmemory-policy to noeviction: a stream thrown away takes all its groups and events with it.")
    if policy.startswith("volatile"):  # streams have no time to live; heartbeats do
        advice = _("Set maxmemory-policy to noeviction: heartbeats thrown away let living listeners' work be taken.")
        return _warn("eviction", title, detail, advice)
    return _fail("eviction", title, detail, advice)


def _persistence(facts: ServerFacts) -> Check:
    title, kept = _("Persistence"), facts.persistence
    if kept is None:
        return _unknown("persistence", title, _("The server does not say whether it keeps its data on disk."))
    if "aof" in kept:
        return _pass("persistence", title, kept)
    if kept == "rdb":
        detail = _("snapshots only: a crash loses what came after the last one")
    else:
        detail = _("none: a restart loses every stream, and with it what no group had settled")
    advice = _("Turn on appendonly. Channels with OUTBOX are healed from their rows; others are not.")
    return _warn("persistence", title, detail, advice) if _has_streams() else _pass("persistence", title, kept)


def _has_streams() -> bool:
    return any(entry.TRANSPORT == "stream" for entry in conf.CHANNELS.values()) or bool(all_receivers())


def _clock(server: Server) -> Check:
    """Compared in the middle of the round trip: half of it is how wrong that can be."""
    title, before = _("Clocks"), time.time()
    seconds = seconds_of(server.ask(("TIME",))[0])
    doubt = (time.time() - before) / 2
    if seconds is None:
        return _unknown("clocks", title, _("The server does not say what time it is."))
    skew = seconds - before - doubt
    numbers = {"skew": f"{skew:+.3f}", "doubt": f"{doubt * 1e3:.3g}"}
    detail = _("the server's is %(skew)s s from this machine's, give or take %(doubt)s ms") % numbers
    apart = abs(skew) - doubt
    advice = _("Keep both in time (NTP): ages, retention and old events' times come from both.")
    if apart > FAR_OFF:
        return _fail("clocks", title, detail, advice)
    return _warn("clocks", title, detail, advice) if apart > SKEWED else _pass("clocks", title, detail)


def _rights(found: Rights | None) -> Check:
    title = _("Rights")
    if found is None:
        return _unknown("rights", title, _("The server could not be asked."))
    user = {"user": found.user}
    if found.denied:
        detail = _("user %(user)s may not: %(commands)s") % {**user, "commands": _listed(found.denied)}
        return _fail("rights", title, detail, _("Grant them with ACL SETUSER; this project needs them all."))
    if found.blind:
        detail = _("user %(user)s may not: %(commands)s") % {**user, "commands": _listed(found.blind)}
        return _warn(
            "rights",
            title,
            detail,
            _("Events travel without; but statistics, stopping or this very check do not work."),
        )
    if not found.is_whole:
        detail = _("user %(user)s may read what was tried; what it may write is unknown") % user
        return _unknown("rights", title, detail, _("ACL DRYRUN (Redis 7, Valkey) would tell, where it is allowed."))
    detail = _("user %(user)s may do all that this project does") % user
    is_cut = len(conf.CHANNELS) > MOST_CHANNELS
    return _pass("rights", title, f"{detail} ({_('first %d channels') % MOST_CHANNELS})" if is_cut else detail)


def _channels(server: Server, here: Scene) -> Check:
    """A key of another type in a stream's place takes no events, and its groups are gone."""
    title = _("Channels")
    streams(server, here.stream_names())
    if not here.is_known or server.trouble:
        return _unknown("channels", title, _("The server could not be asked."))
    found, refused = unreadable(server), set(server.refusals.values())
    broken = {name: answer for name, answer in found.items() if answer not in refused}
    if broken:
        advice = _("Something else wrote these keys: rename or delete them, and let it use another prefix than PREFIX.")
        return _fail("channels", title, _listed([f"{name}: {answer}" for name, answer in broken.items()]), advice)
    if found:
        return _unknown("channels", title, _listed(sorted(refused & set(found.values()))))
    return _pass("channels", title, _("every stream that is there can be read"))


# ------------------------------------------------------------------ the others


def _announcements(here: Scene) -> Check:
    title = _("Announcements")
    if not here.is_known:
        return _unknown("announcements", title, _("The server could not be asked."))
    found = contradictions(here.announced)
    if not found:
        return _pass("announcements", title, _("nobody says otherwise of this project's channels"))
    said = [f"{each.service}: {each.channel} {each.transport}, {own.name} {own.TRANSPORT}" for own, each in found]
    advice = _("Let the service that publishes a channel have its only entry in CHANNELS: listeners exit 5 over this.")
    return _fail("announcements", title, _listed(said), advice)


def _neighbours(here: Scene) -> Check:
    """Two projects of one name would take each other's events; releases of one have something in common."""
    title = _("Name")
    if not here.is_known:
        return _unknown("name", title, _("The server could not be asked."))
    own = {each.name for each in all_receivers()}
    strangers = [card for card in here.cards if _is_stranger(card, own)]
    if not strangers:
        return _pass("name", title, _("no other project listens as %r") % conf.SERVICE)
    detail = _("%(listeners)s listen as %(service)r, and have none of this project's receivers")
    names = {"listeners": _listed([card.id for card in strangers]), "service": conf.SERVICE}
    advice = _("Is it another project? Then give one of them another SERVICE or PREFIX: they take each other's events.")
    return _warn("name", title, detail % names, advice)


def _is_stranger(card: Card, own: set[str]) -> bool:
    theirs = {each.name for each in card.receivers}
    return card.service == conf.SERVICE and bool(own and theirs) and not own & theirs


def _receivers(server: Server, here: Scene) -> Check:
    title = _("Receivers")
    if not here.is_known:
        return _unknown("receivers", title, _("The server could not be asked."))
    found = drift(server=server)
    if not found:
        return _pass("receivers", title, _("what runs is what the code has"))
    return _warn("receivers", title, _listed([each.text for each in found]), _("Start or restart listeners."))


def _tables(here: Scene) -> Check:
    title, receivers = _("Tables"), all_receivers()
    missing = readiness.missing(receivers, here.announced) if receivers else ""
    if not missing and any(entry.OUTBOX for entry in conf.CHANNELS.values()):
        missing = readiness.missing((), here.announced)
    if missing:
        return _fail("tables", title, missing, _("Run `manage.py migrate`."))
    return _pass("tables", title, _("all that is needed are there"))


# ------------------------------------------------------------------ how it is said


def _listed(texts: Sequence[str]) -> str:
    rest = len(texts) - MOST_NAMED
    more = [ngettext("%d more", "%d more", rest) % rest] if rest > 0 else []
    return "; ".join([*texts[:MOST_NAMED], *more])


def _pass(id: str, title: str, detail: str) -> Check:
    return Check(id=id, level="ok", title=title, detail=detail)


def _unknown(id: str, title: str, detail: str, advice: str = "") -> Check:
    return Check(id=id, level="unknown", title=title, detail=detail, advice=advice)


def _warn(id: str, title: str, detail: str, advice: str) -> Check:
    return Check(id=id, level="warning", title=title, detail=detail, advice=advice)


def _fail(id: str, title: str, detail: str, advice: str) -> Check:
    return Check(id=id, level="error", title=title, detail=detail, advice=advice)
