"""System checks: every foreseeable misuse, with what to do about it. They open no socket."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from .codec import ANY
from .conf import GROUP, RESERVED, problems
from .exceptions import ConfigurationError
from .registry import Receiver, all_receivers, event_types
from .routing import transport_name
from .transports.pubsub import MOST_PATTERNS

DOCS = "docs/checks.md"
Check = Callable[..., Iterator[CheckMessage]]


def _message(kind: type[CheckMessage], id: str, text: str, hint: str, obj: Any = None) -> CheckMessage:
    return kind(text, hint=f"{hint} ({DOCS}#{id.lower()})", obj=obj, id=f"redis_events.{id}")


@register("redis_events")
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: REDIS_EVENTS has something wrong in it."""
    found = ((f"{problem.place}: {problem.message}", problem.hint or "It is described here.") for problem in problems())
    return [_message(Error, "E001", text, hint) for text, hint in found]


@register("redis_events")
def check_receivers(**_: Any) -> list[CheckMessage]:
    """E002–E008, W001–W004: every receiver, one after the other."""
    if any(problems()):
        return []
    receivers = all_receivers()
    found = [message for receiver in receivers for check in RECEIVER_CHECKS for message in check(receiver)]
    return found + list(_check_names(receivers)) + list(_check_patterns(receivers))


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
    try:
        msgspec.json.Decoder(data_type)
    except (TypeError, ValueError) as error:
        text = f"{receiver.name}: data cannot be decoded to {data_type!r}: {error}."
        yield _message(Error, "E004", text, "Use a dataclass, msgspec.Struct, attrs class or builtin.", receiver.place)
    if receiver.types is None and _is_data_class(data_type):
        text = f"{receiver.name}: what does not fit {data_type.__name__} on {receiver.channel!r} becomes a dead letter."
        yield _message(Warning, "W001", text, "Narrow it with types=, or receive the event class.", receiver.place)


def _check_once(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.once and receiver.is_async:
        text = f"{receiver.name}: once needs a transaction around it, which an async function cannot have."
        yield _message(Error, "E005", text, "Make it a plain def, or leave once out.", receiver.place)
    elif receiver.once and transport_name(receiver.channel) in ("pubsub", "memory"):
        text = f"{receiver.name}: once on {receiver.channel!r}, which is pub/sub: it comes at most once anyway."
        yield _message(Warning, "W002", text, "Leave once out, or put the channel on a stream.", receiver.place)


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


def _is_data_class(data_type: Any) -> bool:
    marks = ("__dataclass_fields__", "__struct_fields__", "__attrs_attrs__")
    return any(hasattr(data_type, mark) for mark in marks)


RECEIVER_CHECKS for message in check(receiver)]
    return found + list(_check_names(receivers)) + list(_check_patterns(receivers))


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
    try:
        msgspec.json.Decoder(data_type)
    except (TypeError, ValueError) as error:
        text = f"{receiver.name}: data cannot be decoded to {data_type!r}: {error}."
        yield _message(Error, "E004", text, "Use a dataclass, msgspec.Struct, attrs class or builtin.", receiver.place)
    if receiver.types is None and _is_data_class(data_type):
        text = f"{receiver.name}: what does not fit {data_type.__name__} on {receiver.channel!r} becomes a dead letter."
        yield _message(Warning, "W001", text, "Narrow it with types=, or receive the event class.", receiver.place)


def _check_once(receiver: Receiver) -> Iterator[CheckMessage]:
    if receiver.once and receiver.is_async:
        text = f"{receiver.name}: once needs a transaction around it, which an async function cannot have."
        yield _message(Error, "E005", text, "Make it a plain def, or leave once out.", receiver.place)
    elif receiver.once and transport_name(receiver.channel) in ("pubsub", "memory"):
        text = f"{receiver.name}: once on {receiver.channel!r}, which is pub/sub: it comes at most once anyway."
        yield _message(Warning, "W002", text, "Leave once out, or put the channel on a stream.", receiver.place)


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


def _is_data_class(data_type: Any) -> bool:
    return (
        hasattr(data_type, "__dataclass_fields__")
        or hasattr(data_type, "__struct_fields__")
        or hasattr(data_type, "__attrs_attrs__")
    )


RECEIVER_CHECKS: Sequence[Callable[[Receiver], Iterator[CheckMessage]]] = (
    _check_signature,
    _check_annotation,
    _check_once,
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
        try:
            msgspec.json.Decoder(data_type)
        except (TypeError, ValueError) as error:
            text = f"{data_type.__qualname__} cannot be the shape of an event: {error}."
            found.append(_message(Error, "E011", text, "Use a dataclass, msgspec.Struct or attrs class.", data_type))
    return found
