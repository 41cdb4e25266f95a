"""What is wrong with the settings, and with what they promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import router

from .. import outbox
from ..announcements import STREAM
from ..conf import READERS, ChannelConf, conf, glob, problems
from ..exceptions import ConfigurationError
from ..registry import all_receivers, publishers
from ..retry import default_retry
from ..routing import create, is_memory, is_outbox
from .messages import message

CORRECT = "Correct it, or leave it out: every setting has a default, see docs/settings.md."
NEAR = 0.9
"""How alike a setting's name is to ours when it is taken for a slip: REDIS_EVNTS is, REDIS_CLIENTS is not."""


@register("redis_events")
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: REDIS_EVENTS has something wrong in it."""
    found = ((f"{problem.place}: {problem.message}", problem.hint or CORRECT) for problem in problems())
    return [message(Error, "E001", text, hint) for text, hint in found]


@register("redis_events")
def check_setting_names(**_: Any) -> list[CheckMessage]:
    """W006: a setting whose name is nearly REDIS_EVENTS, which nobody reads."""
    found = []
    for name in dir(settings):
        meant = _meant(name)
        if meant:
            text = f"The setting {name} is not read by redis_events."
            found.append(message(Warning, "W006", text, f"Did you mean {meant}? Write it there."))
    return found


def _meant(name: str) -> str:
    """What a setting was probably meant to be; ``""`` for one of somebody else's."""
    key = name.removeprefix("REDIS_EVENTS_")
    if key in READERS and key != name:
        return f'REDIS_EVENTS["{key}"]'
    letters = name.replace("_", "")
    is_near = "REDISEVENT" in letters or SequenceMatcher(None, letters, "REDISEVENTS").ratio() >= NEAR
    if name == "REDIS_EVENTS" or not is_near or not isinstance(getattr(settings, name), Mapping):
        return ""
    return "REDIS_EVENTS"


@register("redis_events")
def check_transports(**_: Any) -> list[CheckMessage]:
    """E013: a TRANSPORT that cannot be imported, or is none."""
    if any(problems()):
        return []
    found = []
    for entry in conf.CHANNELS.values():
        try:
            create(entry.TRANSPORT)
        except ConfigurationError as error:
            text = f"{error} (channel {entry.name!r})."
            found.append(message(Error, "E013", text, 'Use "pubsub", "stream" or the path of a Transport.'))
    return found


@register("redis_events")
def check_streams(**_: Any) -> list[CheckMessage]:
    """E014, W005: streams without the name of a service, or that are kept for too short a time."""
    if any(problems()):
        return []
    streams = [entry for entry in conf.CHANNELS.values() if entry.TRANSPORT == STREAM]
    return [message for entry in streams for check in (_check_service, _check_retention) for message in check(entry)]


def _check_service(entry: ChannelConf) -> Iterator[CheckMessage]:
    if not conf.SERVICE:
        text = f"Channel {entry.name!r} is a stream, and this service has no name."
        yield message(Error, "E014", text, 'Set REDIS_EVENTS["SERVICE"] to a name no other service has.')


def _check_retention(entry: ChannelConf) -> Iterator[CheckMessage]:
    kept = entry.RETENTION or conf.RETENTION
    own = [each.retry for each in all_receivers() if each.retry and glob(entry.name, each.channel)]
    longest = max(retry.longest for retry in [default_retry(), *own]) + conf.CLAIM_AFTER
    if kept < longest:
        text = f"Channel {entry.name!r} is kept for {kept:g} s, and retries may take {longest:g} s."
        yield message(Warning, "W005", text, "Raise its RETENTION, or use a Retry that ends earlier.")


@register("redis_events")
def check_time_zones(**_: Any) -> list[CheckMessage]:
    """E023: tables of ours that would have to take times without a zone."""
    if any(problems()) or settings.USE_TZ:
        return []
    if not (all_receivers() or any(entry.OUTBOX for entry in conf.CHANNELS.values())):
        return []
    text = "USE_TZ is False, and the times in the tables of redis_events have a zone: nothing can be written there."
    return [message(Error, "E023", text, "Set USE_TZ to True, as Django does by default.")]


@register("redis_events")
def check_outboxes(**_: Any) -> list[CheckMessage]:
    """E016: a database in which published changes are written and the routers allow no outbox."""
    found = []
    for alias, publisher in _outboxes():
        if alias not in outbox.aliases():
            text = f"{publisher.__qualname__} needs an outbox in {alias!r}, and the routers keep its table from there."
            hint = 'Make allow_migrate() of your routers say None or True for the app "redis_events".'
            found.append(message(Error, "E016", text, hint, publisher))
    return found


@register("redis_events", Tags.database)
def check_outbox_tables(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W013: a database without the table of its outbox. No error, which would keep ``migrate`` from making it."""
    found = []
    for alias in sorted({alias for alias, _ in _outboxes()} & set(databases or ()) & set(outbox.aliases())):
        if not outbox.has_table(using=alias):
            text = f"The table of the outbox is missing in the database {alias!r}: published changes cannot be saved."
            found.append(message(Warning, "W013", text, f"Run manage.py migrate --database {alias}."))
    return found


def _outboxes() -> Iterator[tuple[str, Any]]:
    """The databases that publishers on OUTBOX channels write to."""
    if any(problems()) or is_memory():
        return
    for model, declared in publishers.items():
        yield from ((router.db_for_write(model), each) for each in declared if is_outbox(each.channel))


@register("redis_events", Tags.security, deploy=True)
def check_deployment(**_: Any) -> list[CheckMessage]:
    """W010, W011: what must not leave this machine unencrypted. Only with ``check --deploy``."""
    if any(problems()):
        return []
    parts = urlsplit(conf.LOCATION)
    found = []
    if parts.scheme == "redis" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        text = f"LOCATION talks to {parts.hostname} without TLS: passwords and events can be read on the way."
        found.append(message(Warning, "W010", text, "Use rediss:// in LOCATION."))
    if parse_qs(parts.query).get("ssl_cert_reqs") == ["none"]:
        text = "LOCATION has ssl_cert_reqs=none: anybody can pretend to be the server."
        found.append(message(Warning, "W011", text, "Leave it out, and name the CA with ssl_ca_certs."))
    return found
