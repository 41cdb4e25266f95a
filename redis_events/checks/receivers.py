"""What is wrong with receivers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import DEFAULT_DB_ALIAS, router

from .. import held, inbox
from ..codec import ANY, type_name
from ..conf import GROUP, RESERVED, problems
from ..events import Event
from ..exceptions import ConfigurationError
from ..models import HeldDelivery, InboxEntry
from ..registry import Receiver, all_receivers
from ..routing import is_memory, is_outbox, transport_name
from ..transports.pubsub import MOST_PATTERNS
from .messages import ELSEWHERE, message
from .shapes import is_data_class, obstacle

WRITE_CHANNEL = "Write it with letters, digits and ._:- only, and * for any characters."
WRITE_GROUP = "Use up to 64 letters, digits and ._- only; the name of the service is put in front by itself."


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
        yield message(Error, "E002", text, hint, receiver.place)


def _check_annotation(receiver: Receiver) -> Iterator[CheckMessage]:
    try:
        data_type = receiver.data_type
    except ConfigurationError as error:
        hint = "Import the class for real, not under TYPE_CHECKING: it says how the data is decoded."
        yield message(Error, "E003", str(error), hint, receiver.place)
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
    yield message(Error, "E022", text, hint, receiver.place)


def _check_data_type(receiver: Receiver, data_type: Any) -> Iterator[CheckMessage]:
    if data_type is ANY:
        return
    why_not = obstacle(data_type)
    if why_not:
        text = f"{receiver.name}: data cannot be decoded to {type_name(data_type)}: {why_not}."
        hint = "Use dataclasses, msgspec.Structs, attrs classes and builtins, all the way down."
        yield message(Error, "E004", text, hint, receiver.place)
    elif receiver.types is None and is_data_class(data_type):
        text = f"{receiver.name}: what does not fit {data_type.__name__} on {receiver.channel!r} becomes a dead letter."
        hint = 'Narrow it with types= (types="*" says that all of them fit), or receive the event class.'
        yield message(Warning, "W001", text, hint, receiver.place)


def _check_once(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.once and receiver.is_async:
        text = f"{receiver.name}: once needs a transaction around it, which an async function cannot have."
        yield message(Error, "E005", text, "Make it a plain def, or leave once out.", receiver.place)
    elif receiver.once and transport_name(receiver.channel) in ("pubsub", "memory"):
        text = (
            f"{receiver.name}: once on {receiver.channel!r}, which is pub/sub by the settings: it comes at most once."
        )
        hint = "Leave once out, or put the channel on a stream. Where another service has done so, silence this."
        yield message(Warning, "W002", text, hint, receiver.place)


def _check_inbox(receiver: Receiver) -> Iterator[CheckMessage]:
    """E019 to E021, W014: where the transaction of a `once` receiver is, and whether the inbox can be there too."""
    alias = receiver.using or held.default_alias()
    if not receiver.once or alias not in settings.DATABASES:
        return
    if not inbox.is_possible(using=alias):
        text = f"{receiver.name}: the database {alias!r} cannot say which rows an INSERT made, and once needs that."
        yield message(Error, "E019", text, "Use PostgreSQL, or SQLite 3.35 or newer.", receiver.place)
    if not all(router.allow_migrate_model(alias, model) for model in (InboxEntry, HeldDelivery)):
        text = f"{receiver.name}: once in the database {alias!r}, where a router keeps the tables of redis_events out."
        hint = "Give redis_events a yes from allow_migrate there: inbox and effect are one transaction."
        yield message(Error, "E020", text, hint, receiver.place)
    if not settings.DATABASES[alias].get("AUTOCOMMIT", True):
        text = f"{receiver.name}: once in the database {alias!r}, where AUTOCOMMIT is off: nobody would commit."
        yield message(Error, "E021", text, "Leave AUTOCOMMIT out of its entry of DATABASES.", receiver.place)
    if not receiver.using and alias != DEFAULT_DB_ALIAS:
        text = f"{receiver.name}: its transaction is on {alias!r}, where a router puts the tables of redis_events."
        yield message(Warning, "W014", text, "Name where its effect is: using=…", receiver.place)


def _check_plain(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.once or receiver.is_async or is_memory() or not is_outbox(receiver.channel):
        return
    text = f"{receiver.name}: {receiver.channel!r} has an OUTBOX, and a plain receiver may run twice for an event."
    yield message(Warning, "W012", text, "Write once=True: its database effect then happens once.", receiver.place)


def _check_channel(receiver: Receiver) -> Iterator[CheckMessage]:
    if not receiver.channel or not receiver.channel.isprintable() or " " in receiver.channel:
        text = f"{receiver.name}: {receiver.channel!r} is no channel name or pattern."
        yield message(Error, "E006", text, WRITE_CHANNEL, receiver.place)
    elif receiver.channel.startswith(RESERVED):
        text = f"{receiver.name}: {receiver.channel!r} is reserved; nothing is ever published there."
        yield message(Error, "E006", text, ELSEWHERE, receiver.place)


def _check_group(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.group and not GROUP.fullmatch(receiver.group):
        text = f"{receiver.name}: {receiver.group!r} is no name for a consumer group."
        yield message(Error, "E007", text, WRITE_GROUP, receiver.place)


def _check_using(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.using and receiver.using not in settings.DATABASES:
        text = f"{receiver.name}: using={receiver.using!r} is not in DATABASES."
        yield message(Error, "E008", text, f"Name one of these: {', '.join(settings.DATABASES)}.", receiver.place)


RECEIVER_CHECKS: Sequence[Callable[[Receiver], Iterator[CheckMessage]]] = (
    _check_signature,
    _check_annotation,
    _check_once,
    _check_inbox,
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
            yield message(Error, "E009", text, "Give one of them a name= of its own.", receiver.place)


def _check_patterns(receivers: Sequence[Receiver]) -> Iterator[CheckMessage]:
    patterns = {receiver.channel for receiver in receivers if "*" in receiver.channel}
    if len(patterns) > MOST_PATTERNS:
        text = f"{len(patterns)} channel patterns; a listener may subscribe to {MOST_PATTERNS}."
        hint = "Name the channels, which costs the server nothing, or use one wider pattern."
        yield message(Error, "E010", text, hint)
