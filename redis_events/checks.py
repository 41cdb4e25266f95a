"""System checks: every foreseeable misuse, with what to do about it. They open no socket."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import router
from msgspec.inspect import CustomType, type_info

from . import outbox
from .announcements import STREAM
from .codec import ANY, type_name
from .conf import GROUP, NAME, RESERVED, ChannelConf, conf, glob, problems
from .events import EventType
from .exceptions import ConfigurationError
from .registry import Receiver, all_receivers, event_types, publishers
from .retry import default_retry
from .routing import create, is_memory, is_outbox, transport_name
from .transports.pubsub import MOST_PATTERNS

DOCS = "docs/checks.md"


def _message(kind: type[Error] | type[Warning], id: str, text: str, hint: str, obj: Any = None) -> CheckMessage:
    return kind(text, hint=f"{hint} ({DOCS}#{id.lower()})", obj=obj, id=f"redis_events.{id}")


@register("redis_events")
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: REDIS_EVENTS has something wrong in it."""
    found = ((f"{problem.place}: {problem.message}", problem.hint or "It is described here.") for problem in problems())
    return [_message(Error, "E001", text, hint) for text, hint in found]


@register("redis_events")
def check_receivers(**_: Any) -> list[CheckMessage]:
    """E002 to E010, W001, W002: every receiver, one after the other."""
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
        yield _message(Error, "E002", text, "A receiver takes the event: def receiver(event): …", receiver.place)


def _check_annotation(receiver: Receiver) -> Iterator[CheckMessage]:
    try:
        data_type = receiver.data_type
    except ConfigurationError as error:
        hint = "Import the class for real, not under TYPE_CHECKING: it says how the data is decoded."
        yield _message(Error, "E003", str(error), hint, receiver.place)
        return
    yield from _check_data_type(receiver, data_type)


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
    elif receiver.once:
        text = f"{receiver.name}: once on {receiver.channel!r}: this release cannot keep that promise."
        hint = "Leave once out and make the receiver idempotent by event.id; a stream delivers at least once."
        yield _message(Error, "E015", text, hint, receiver.place)


def _check_plain(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.once or receiver.is_async or is_memory() or not is_outbox(receiver.channel):
        return
    text = f"{receiver.name}: {receiver.channel!r} has an OUTBOX, and a plain receiver may run twice for an event."
    yield _message(Warning, "W012", text, "Say once=True: its database effect then happens once.", receiver.place)


def _check_channel(receiver: Receiver) -> Iterator[CheckMessage]:
    if not receiver.channel or not receiver.channel.isprintable() or " " in receiver.channel:
        text = f"{receiver.name}: {receiver.channel!r} is no channel name or pattern."
        yield _message(Error, "E006", text, "Letters, digits and ._:- with * for any characters.", receiver.place)
    elif receiver.channel.startswith(RESERVED):
        text = f"{receiver.name}: {receiver.channel!r} is reserved; nothing is ever published there."
        yield _message(Error, "E006", text, "Choose another name.", receiver.place)


def _check_group(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.group and not GROUP.fullmatch(receiver.group):
        text = f"{receiver.name}: {receiver.group!r} is no name for a consumer group."
        yield _message(Error, "E007", text, "Up to 64 letters, digits and ._-.", receiver.place)


def _check_using(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.using and receiver.using not in settings.DATABASES:
        text = f"{receiver.name}: using={receiver.using!r} is not in DATABASES."
        yield _message(Error, "E008", text, f"Known: {', '.join(settings.DATABASES)}.", receiver.place)


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
    _check_plain,
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
        yield _message(Error, "E010", text, "Name the channels: exact subscriptions cost the server nothing.")


@register("redis_events")
def check_event_classes(**_: Any) -> list[CheckMessage]:
    """E011: an event class that no JSON can be made of or read into."""
    found = []
    for data_type in event_types:
        obstacle = _obstacle(data_type) if _is_data_class(data_type) else "it is a plain class"
        if obstacle:
            text = f"{type_name(data_type)} cannot be the shape of an event: {obstacle}."
            hint = "Put @event above @dataclass, or on a msgspec.Struct or attrs class, of such and of builtins."
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
            yield f"{argument} {name!r} is no name", "Up to 128 letters, digits and ._:-."
        elif argument == "channel" and name.startswith(RESERVED):
            yield f"channel {name!r} is reserved", "Choose another name."
    if declared.key_field and not _has_attribute(declared.data_type, declared.key_field):
        yield f"it has no field {declared.key_field!r}", "key_field names one of its fields or properties."


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
            found.append(_message(Error, "E013", text, "A dotted path to a subclass of Transport."))
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
        yield _message(Error, "E014", text, 'Set REDIS_EVENTS["SERVICE"]: it is the consumer group.')


def _check_retention(entry: ChannelConf) -> Iterator[CheckMessage]:
    kept = entry.RETENTION or conf.RETENTION
    own = [each.retry for each in all_receivers() if each.retry and glob(entry.name, each.channel)]
    longest = max(retry.longest for retry in [default_retry(), *own]) + conf.CLAIM_AFTER
    if kept < longest:
        text = f"Channel {entry.name!r} is kept for {kept:g} s, and retries may take {longest:g} s."
        yield _message(Warning, "W005", text, "A longer RETENTION, or a Retry that ends earlier.")


@register("redis_events")
def check_outboxes(**_: Any) -> list[CheckMessage]:
    """E016: a database in which published changes are written and the routers allow no outbox."""
    found = []
    for alias, publisher in _outboxes():
        if alias not in outbox.aliases():
            text = f"{publisher.__qualname__} needs an outbox in {alias!r}, and the routers keep its table from there."
            hint = 'Let allow_migrate() of your routers say None or True for the app "redis_events".'
            found.append(_message(Error, "E016", text, hint, publisher))
    return found


@register("redis_events", Tags.database)
def check_outbox_tables(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W013: a database without the table of its outbox. No error, which would keep ``migrate`` from making it."""
    found = []
    for alias in sorted({alias for alias, _ in _outboxes()} & set(databases or ()) & set(outbox.aliases())):
        if not outbox.has_table(using=alias):
            text = f"The table of the outbox is missing in the database {alias!r}: published changes cannot be saved."
            found.append(_message(Warning, "W013", text, f"Run manage.py migrate --database {alias}."))
    return found


def _outboxes() -> Iterator[tuple[str, Any]]:
    """The databases that publishers on OUTBOX channels write to."""
    if any(problems()) or is_memory():
        return
    for model, declared in publishers.items():
        yield from ((router.db_for_write(model), each) for each in declared if is_outbox(each.channel))


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
                found.append(_message(Warning, "W003", text, f'Add "{_dotted(path)}" to INSTALLED_APPS.'))
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
        found.append(_message(Warning, "W010", text, "Use rediss://."))
    if parse_qs(parts.query).get("ssl_cert_reqs") == ["none"]:
        text = "LOCATION has ssl_cert_reqs=none: anybody can pretend to be the server."
        found.append(_message(Warning, "W011", text, "Leave it out, and name the CA with ssl_ca_certs."))
    return found
