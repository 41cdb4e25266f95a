"""System checks: every foreseeable misuse, with what to do about it. They open no socket."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin
from urllib.parse import parse_qs, urlsplit

import msgspec
from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DEFAULT_DB_ALIAS, router
from msgspec.inspect import CustomType, type_info

from . import held, inbox
from .announcements import STREAM
from .codec import ANY, type_name
from .conf import GROUP, NAME, READERS, RESERVED, ChannelConf, conf, glob, problems
from .events import Event, EventType
from .exceptions import ConfigurationError
from .models import HeldDelivery, InboxEntry
from .registry import Receiver, all_receivers, event_types, publishers
from .retry import default_retry
from .routing import create, transport_name
from .transports.pubsub import MOST_PATTERNS

DOCS = "docs/checks.md"
CORRECT = "Correct it, or leave it out: every setting has a default, see docs/settings.md."
WRITE_CHANNEL = "Write it with letters, digits and ._:- only, and * for any characters."
WRITE_GROUP = "Use up to 64 letters, digits and ._- only; the name of the service is put in front by itself."
ELSEWHERE = f"Choose a name that does not start with {RESERVED}"
NEAR = 0.9
"""How alike a setting's name is to ours when it is taken for a slip: REDIS_EVNTS is, REDIS_CLIENTS is not."""


def _message(kind: type[Error] | type[Warning], id: str, text: str, hint: str, obj: Any = None) -> CheckMessage:
    return kind(text, hint=f"{hint} ({DOCS}#{id.lower()})", obj=obj, id=f"redis_events.{id}")


@register("redis_events")
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: REDIS_EVENTS has something wrong in it."""
    found = ((f"{problem.place}: {problem.message}", problem.hint or CORRECT) for problem in problems())
    return [_message(Error, "E001", text, hint) for text, hint in found]


@register("redis_events")
def check_setting_names(**_: Any) -> list[CheckMessage]:
    """W006: a setting whose name is nearly REDIS_EVENTS, which nobody reads."""
    found = []
    for name in dir(settings):
        meant = _meant(name)
        if meant:
            text = f"The setting {name} is not read by redis_events."
            found.append(_message(Warning, "W006", text, f"Did you mean {meant}? Write it there."))
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
def check_receivers(**_: Any) -> list[CheckMessage]:
    """E002 to E010, E019 to E021, W001, W002, W014: every receiver, one after the other."""
    if any(problems()):
        return []
    receivers = all_receivers()
    found = [message for receiver in receivers for check in RECEIVER_CHECKS for message in check(receiver)]
    return [*found, *_check_names(receivers), *_check_patterns(receivers)]


def _check_signature(receiver: Receiver) -> Iterator[CheckMessage]:
    try:
        inspect.signature(receiver.function).bind(object())
    except TypeError as error:
        text = f"{receiver.name} cannot be called with one event: {error}."
        hint = "Write it as def receiver(event): …; further arguments need defaults."
        yield _message(Error, "E002", text, hint, receiver.place)


def _check_annotation(receiver: Receiver) -> Iterator[CheckMessage]:
    try:
        data_type = receiver.data_type
    except ConfigurationError as error:
        hint = "Import the class for real, not under TYPE_CHECKING: it says how the data is decoded."
        yield _message(Error, "E003", str(error), hint, receiver.place)
        return
    check = _check_data_type(receiver, data_type) if _takes_events(receiver.annotation) else _bare(receiver)
    yield from check


def _takes_events(annotation: Any) -> bool:
    """Whether an annotation leaves room for an Event: itself, a class above it, or what no one can tell."""
    if annotation in (Any, Event) or get_origin(annotation) is Event:
        return True
    if get_origin(annotation) in (Union, UnionType):
        return any(_takes_events(each) for each in get_args(annotation))
    plain = get_origin(annotation) or annotation
    return not isinstance(plain, type) or getattr(plain, "_is_protocol", False) or issubclass(Event, plain)


def _bare(receiver: Receiver) -> Iterator[CheckMessage]:
    shape = receiver.annotation
    name = str(shape) if get_origin(shape) else shape.__name__
    text = f"{receiver.name}: its argument is annotated with {name}, but what a receiver gets is an Event."
    hint = f"Write Event[{name}] instead, and take the values from event.data."
    yield _message(Error, "E022", text, hint, receiver.place)


def _check_data_type(receiver: Receiver, data_type: Any) -> Iterator[CheckMessage]:
    if data_type is ANY:
        return
    obstacle = _obstacle(data_type)
    if obstacle:
        text = f"{receiver.name}: data cannot be decoded to {type_name(data_type)}: {obstacle}."
        hint = "Use dataclasses, msgspec.Structs, attrs classes and builtins, all the way down."
        yield _message(Error, "E004", text, hint, receiver.place)
    elif receiver.types is None and _is_data_class(data_type):
        text = f"{receiver.name}: what does not fit {data_type.__name__} on {receiver.channel!r} becomes a dead letter."
        hint = 'Narrow it with types= (types="*" says that all of them fit), or receive the event class.'
        yield _message(Warning, "W001", text, hint, receiver.place)


def _check_once(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.once and receiver.is_async:
        text = f"{receiver.name}: once needs a transaction around it, which an async function cannot have."
        yield _message(Error, "E005", text, "Make it a plain def, or leave once out.", receiver.place)
    elif receiver.once and transport_name(receiver.channel) in ("pubsub", "memory"):
        text = f"{receiver.name}: once on {receiver.channel!r}, which is pub/sub: it comes at most once anyway."
        yield _message(Warning, "W002", text, "Leave once out, or put the channel on a stream.", receiver.place)


def _check_inbox(receiver: Receiver) -> Iterator[CheckMessage]:
    """E019 to E021, W014: where the transaction of a `once` receiver is, and whether the inbox can be there too."""
    alias = receiver.using or held.default_alias()
    if not receiver.once or alias not in settings.DATABASES:
        return
    if not inbox.is_possible(using=alias):
        text = f"{receiver.name}: the database {alias!r} cannot say which rows an INSERT made, and once needs that."
        yield _message(Error, "E019", text, "Use PostgreSQL, or SQLite 3.35 or newer.", receiver.place)
    if not all(router.allow_migrate_model(alias, model) for model in (InboxEntry, HeldDelivery)):
        text = f"{receiver.name}: once in the database {alias!r}, where a router keeps the tables of redis_events out."
        hint = "Give redis_events a yes from allow_migrate there: inbox and effect are one transaction."
        yield _message(Error, "E020", text, hint, receiver.place)
    if not settings.DATABASES[alias].get("AUTOCOMMIT", True):
        text = f"{receiver.name}: once in the database {alias!r}, where AUTOCOMMIT is off: nobody would commit."
        yield _message(Error, "E021", text, "Leave AUTOCOMMIT out of its entry of DATABASES.", receiver.place)
    if not receiver.using and alias != DEFAULT_DB_ALIAS:
        text = f"{receiver.name}: its transaction is on {alias!r}, where a router puts the tables of redis_events."
        yield _message(Warning, "W014", text, "Name where its effect is: using=…", receiver.place)


def _check_channel(receiver: Receiver) -> Iterator[CheckMessage]:
    if not receiver.channel or not receiver.channel.isprintable() or " " in receiver.channel:
        text = f"{receiver.name}: {receiver.channel!r} is no channel name or pattern."
        yield _message(Error, "E006", text, WRITE_CHANNEL, receiver.place)
    elif receiver.channel.startswith(RESERVED):
        text = f"{receiver.name}: {receiver.channel!r} is reserved; nothing is ever published there."
        yield _message(Error, "E006", text, ELSEWHERE, receiver.place)


def _check_group(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.group and not GROUP.fullmatch(receiver.group):
        text = f"{receiver.name}: {receiver.group!r} is no name for a consumer group."
        yield _message(Error, "E007", text, WRITE_GROUP, receiver.place)


def _check_using(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.using and receiver.using not in settings.DATABASES:
        text = f"{receiver.name}: using={receiver.using!r} is not in DATABASES."
        yield _message(Error, "E008", text, f"Name one of these: {', '.join(settings.DATABASES)}.", receiver.place)


JSON_VALUES: tuple[Any, ...] = ({}, [], "", 0, 0.0, True, None)


def _obstacle(data_type: Any) -> str:
    """What keeps JSON from being decoded to a type; ``""`` when nothing does."""
    try:
        msgspec.json.Decoder(data_type)
        strangers = sorted({stranger.__qualname__ for stranger in _strangers(type_info(data_type), set())})
    except (NameError, TypeError, ValueError) as error:
        return str(error)
    return f"JSON cannot be made into {', '.join(strangers)}" if strangers else ""


def _strangers(info: Any, seen: set[int]) -> Iterator[type]:
    """The classes inside of a type that msgspec leaves to a hook of the caller: nothing in JSON is one of theirs."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, CustomType):
        if not any(isinstance(value, info.cls) for value in JSON_VALUES):
            yield info.cls
        return
    parts = (
        info if isinstance(info, tuple) else [getattr(info, name) for name in getattr(info, "__struct_fields__", ())]
    )
    for part in parts:
        yield from _strangers(part, seen)


def _is_data_class(data_type: Any) -> bool:
    marks = ("__dataclass_fields__", "__struct_fields__", "__attrs_attrs__")
    return any(hasattr(data_type, mark) for mark in marks)


RECEIVER_CHECKS: Sequence[Callable[[Receiver], Iterator[CheckMessage]]] = (
    _check_signature,
    _check_annotation,
    _check_once,
    _check_inbox,
    _check_channel,
    _check_group,
    _check_using,
)


def _check_names(receivers: Sequence[Receiver]) -> Iterator[CheckMessage]:
    """Two receivers of one name would share retries, dead letters and inbox."""
    seen: dict[str, Receiver] = {}
    for receiver in receivers:
        other = seen.setdefault(receiver.name, receiver)
        if other is not receiver:
            text = f"Two receivers are called {receiver.name!r}: {other.place} and {receiver.place}."
            yield _message(Error, "E009", text, "Give one of them a name= of its own.", receiver.place)


def _check_patterns(receivers: Sequence[Receiver]) -> Iterator[CheckMessage]:
    patterns = {receiver.channel for receiver in receivers if "*" in receiver.channel}
    if len(patterns) > MOST_PATTERNS:
        text = f"{len(patterns)} channel patterns; a listener may subscribe to {MOST_PATTERNS}."
        hint = "Name the channels, which costs the server nothing, or use one wider pattern."
        yield _message(Error, "E010", text, hint)


@register("redis_events")
def check_event_classes(**_: Any) -> list[CheckMessage]:
    """E011: an event class that no JSON can be made of or read into."""
    found = []
    for data_type in event_types:
        obstacle = _obstacle(data_type) if _is_data_class(data_type) else "it is a plain class"
        if obstacle:
            text = f"{type_name(data_type)} cannot be the shape of an event: {obstacle}."
            hint = "Make it a dataclass (below @event), msgspec.Struct or attrs class, of such and of builtins."
            found.append(_message(Error, "E011", text, hint, data_type))
    return found


@register("redis_events")
def check_event_names(**_: Any) -> list[CheckMessage]:
    """E012: an event class with a type or channel that is no name, or a key_field that is no field."""
    found = []
    for declared in event_types.values():
        for problem, hint in _wrong_names(declared):
            text = f"{type_name(declared.data_type)} cannot be published: {problem}."
            found.append(_message(Error, "E012", text, hint, declared.data_type))
    return found


def _wrong_names(declared: EventType) -> Iterator[tuple[str, str]]:
    for argument, name in (("type", declared.type), ("channel", declared.channel)):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            yield f"{argument} {name!r} is no name", "Use up to 128 letters, digits and ._:- only, no patterns."
        elif argument == "channel" and name.startswith(RESERVED):
            yield f"channel {name!r} is reserved", ELSEWHERE
    if declared.key_field and not _has_attribute(declared.data_type, declared.key_field):
        yield (
            f"it has no field {declared.key_field!r}",
            "Name one of its fields or properties in key_field, or leave it out.",
        )


def _has_attribute(data_type: type, name: str) -> bool:
    annotated = {each for base in data_type.__mro__ for each in vars(base).get("__annotations__", ())}
    return name in annotated or hasattr(data_type, str(name))


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
            found.append(_message(Error, "E013", text, 'Use "pubsub", "stream" or the path of a Transport.'))
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
        yield _message(Error, "E014", text, 'Set REDIS_EVENTS["SERVICE"] to a name no other service has.')


def _check_retention(entry: ChannelConf) -> Iterator[CheckMessage]:
    kept = entry.RETENTION or conf.RETENTION
    own = [each.retry for each in all_receivers() if each.retry and glob(entry.name, each.channel)]
    longest = max(retry.longest for retry in [default_retry(), *own]) + conf.CLAIM_AFTER
    if kept < longest:
        text = f"Channel {entry.name!r} is kept for {kept:g} s, and retries may take {longest:g} s."
        yield _message(Warning, "W005", text, "Raise its RETENTION, or use a Retry that ends earlier.")


@register("redis_events")
def check_publishers(**_: Any) -> list[CheckMessage]:
    """W004: a published field whose values may have no JSON form."""
    found = []
    for model, declared in publishers.items():
        for publisher in declared:
            for field in _unknown_fields(publisher):
                text = f"{publisher.__qualname__}: values of {model._meta.label}.{field.name} may have no JSON form."
                hint = f"Leave it out, or override data(): nobody here knows its class, {type(field).__qualname__}."
                found.append(_message(Warning, "W004", text, hint, publisher))
    return found


def _unknown_fields(publisher: Any) -> list[Any]:
    snapshot = getattr(publisher, "_snapshot", None)
    return snapshot.unknown_fields() if snapshot else []


@register("redis_events")
def check_strays(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """W003: an events.py or receivers.py beside an installed app that nobody imports."""
    installed = {Path(app.path) for app in apps.get_app_configs()}
    found = []
    for path in sorted(_project_packages(installed)):
        for name in ("events.py", "receivers.py"):
            if (path / name).is_file() and _mentions_us(path / name):
                text = f"{path / name} is never imported: {_dotted(path)} is not in INSTALLED_APPS."
                found.append(
                    _message(Warning, "W003", text, f'Add "{_dotted(path)}" to INSTALLED_APPS, or move it into an app.')
                )
    return found


def _project_packages(installed: set[Path]) -> set[Path]:
    """Packages beside the project's own apps and settings that are no apps."""
    settings_module = sys.modules.get(getattr(settings, "SETTINGS_MODULE", None) or "")
    own = [Path(settings_module.__file__).parent] if settings_module and settings_module.__file__ else []
    roots = {path.parent for path in (*own, *installed) if "site-packages" not in path.parts} | set(own)
    packages = {init.parent for root in roots for init in root.glob("*/__init__.py")} | set(own)
    return packages - installed


def _dotted(package: Path) -> str:
    """A package's name as it is imported: ``demo_project.billing``."""
    parent = package.parent
    return f"{_dotted(parent)}.{package.name}" if (parent / "__init__.py").is_file() else package.name


def _mentions_us(path: Path) -> bool:
    return "redis_events" in path.read_text(errors="replace")


@register("redis_events", Tags.security, deploy=True)
def check_deployment(**_: Any) -> list[CheckMessage]:
    """W010, W011: what must not leave this machine unencrypted. Only with ``check --deploy``."""
    if any(problems()):
        return []
    parts = urlsplit(conf.LOCATION)
    found = []
    if parts.scheme == "redis" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        text = f"LOCATION talks to {parts.hostname} without TLS: passwords and events can be read on the way."
        found.append(_message(Warning, "W010", text, "Use rediss:// in LOCATION."))
    if parse_qs(parts.query).get("ssl_cert_reqs") == ["none"]:
        text = "LOCATION has ssl_cert_reqs=none: anybody can pretend to be the server."
        found.append(_message(Warning, "W011", text, "Leave it out, and name the CA with ssl_ca_certs."))
    return found
