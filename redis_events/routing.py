"""Which transport carries a channel, and the one sender of this process for each transport."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .announcements import Announcement, Lookup, announced_transport
from .conf import conf, mask
from .exceptions import ConfigurationError, Unreachable
from .registry import Receiver
from .sender import Sender
from .signals import publish_failed
from .transports.base import Outgoing, Transport

BUILT_IN = {
    "memory": "redis_events.transports.memory.MemoryTransport",
    "pubsub": "redis_events.transports.pubsub.PubSubTransport",
    "stream": "redis_events.transports.stream.StreamTransport",
}

logger = logging.getLogger("redis_events.publish")

TOLD_AGAIN = 60.0
"""Seconds between two log lines about events whose way nobody could be asked."""

_senders: dict[str, Sender] = {}
_by_channel: dict[str, Sender] = {}
_assumed: dict[str, tuple[Sender | None, float]] = {}
"""The senders of channels nobody announced, and until when that is taken for true (``time.monotonic``)."""
_UNKNOWN = None, 0.0
_outboxed: dict[str, bool] = {}
_replacements: list[Sender] = []
_lookup = Lookup()
_MOST_CHANNELS = 10_000


def is_memory() -> bool:
    """Whether everything stays inside this process."""
    return urlsplit(conf.LOCATION).scheme == "memory"


def transport_name(channel: str, announced: Sequence[Announcement] = ()) -> str:
    """What carries a channel: ``pubsub``, ``stream`` or the dotted path of a third party's transport.

    Its own entry of CHANNELS decides, else what others announced, else it is pub/sub.
    """
    if is_memory():
        return "memory"
    entry = conf.channel(channel)
    return entry.TRANSPORT if entry else announced_transport(channel, announced) or "pubsub"


def listening_plan(receivers: Sequence[Receiver], announced: Sequence[Announcement]) -> dict[str, list[Receiver]]:
    """The receivers each transport listens for.

    A channel nobody has said anything about is listened to on pub/sub, and on a stream from the moment it is one; a
    pattern covers channels of both kinds. Raises ConfigurationError where a stream is received without a SERVICE.
    """
    plan: dict[str, list[Receiver]] = {}
    for receiver in receivers:
        for name in _transports(receiver.channel, announced):
            plan.setdefault(name, []).append(receiver)
    if "stream" in plan and not conf.SERVICE:
        channels = sorted({receiver.channel for receiver in plan["stream"]})
        raise ConfigurationError(f'REDIS_EVENTS["SERVICE"] is needed to receive the stream {channels[0]!r}.')
    return plan


def _transports(channel: str, announced: Sequence[Announcement]) -> list[str]:
    name = transport_name(channel, announced)
    is_settled = name != "pubsub" or channel in conf.CHANNELS
    if "*" not in channel and is_settled:
        return [name]
    if name not in ("pubsub", "stream"):
        return [name]
    return ["pubsub", "stream"] if conf.SERVICE else ["pubsub"]


def create(name: str) -> Transport:
    """A new transport to ``LOCATION``, not yet connected. Raises ConfigurationError."""
    try:
        transport = import_string(BUILT_IN.get(name, name))(conf.LOCATION)
    except ImportError as error:
        raise ConfigurationError(f'REDIS_EVENTS["CHANNELS"]: no transport {name!r}: {error}') from error
    if not isinstance(transport, Transport):
        raise ConfigurationError(f'REDIS_EVENTS["CHANNELS"]: {name!r} is not a Transport')
    return transport


class Undecided:
    """Stands for the way out while nobody can be asked what carries a channel: asks again when the events leave.

    Sent by pub/sub instead, a stream's event would reach nobody, and nobody would know.
    """

    def __init__(self) -> None:
        self._next_line = 0.0

    def send(self, batch: Sequence[Outgoing], *, strict: bool = False) -> None:
        """Send what can be told by now. The rest is lost as in any outage: told, and with ``strict`` raised."""
        for each in batch:
            sender = sender_for(each.channel)
            if isinstance(sender, Sender):
                sender.send([each], strict=strict)
            else:
                self._lose(each, strict=strict)

    def _lose(self, lost: Outgoing, *, strict: bool) -> None:
        error = Unreachable(f"{mask(conf.LOCATION)} cannot be asked what carries {lost.channel}")
        if strict:
            raise error
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + TOLD_AGAIN
            logger.error("cannot publish: events are lost until it works again, tried every second: %s", error)
        publish_failed.send_robust(Undecided, batch=[lost], error=error)


_undecided = Undecided()


def sender_for(channel: str) -> Sender | Undecided:
    """This process's way out for a channel."""
    if _replacements:
        return _replacements[-1]
    sender = _by_channel.get(channel)
    if sender:
        return sender
    sender, until = _assumed.get(channel, _UNKNOWN)
    return sender if sender and time.monotonic() < until else _find_sender(channel)


def is_outbox(channel: str) -> bool:
    """Whether its entry of CHANNELS says OUTBOX: then no change may be committed without its event."""
    known = _outboxed.get(channel)
    if known is None:
        if len(_outboxed) >= _MOST_CHANNELS:
            _outboxed.clear()
        entry = conf.channel(channel)
        known = _outboxed[channel] = entry is not None and entry.OUTBOX
    return known


def has_rows(channel: str) -> bool:
    """Whether its events are written to the outbox: not where they stay in this process, nor while replaced."""
    return is_outbox(channel) and not _replacements and not is_memory()


def _find_sender(channel: str) -> Sender | Undecided:
    """The sender of a channel without one so far, and remembered from now on."""
    name: str | None = transport_name(channel)
    if not is_memory() and conf.channel(channel) is None:
        name = _lookup.transport(channel)
    if name is None:
        return _undecided
    if len(_by_channel) + len(_assumed) >= _MOST_CHANNELS:
        _by_channel.clear()
        _assumed.clear()
    sender, until = _sender(name), _lookup.assumed_until(channel)
    if until is None:
        _by_channel[channel] = sender
    else:
        _assumed[channel] = sender, until
    return sender


def _sender(name: str) -> Sender:
    found = _senders.get(name)
    return found or _senders.setdefault(name, Sender(create(name)))  # threads may ask for it first at the same moment


@contextmanager
def replaced(transport: Transport) -> Iterator[None]:
    """Every channel goes through ``transport`` in this block, in every thread."""
    _replacements.append(Sender(transport))
    try:
        yield
    finally:
        _replacements.pop()


def reset(**kwargs: Any) -> None:
    """Forget every connection without closing it: after a fork it is the parent's, after a setting it is elsewhere."""
    if kwargs.get("setting", "REDIS_EVENTS") == "REDIS_EVENTS":
        _senders.clear()
        _by_channel.clear()
        _assumed.clear()
        _outboxed.clear()
        _lookup.clear()


setting_changed.connect(reset, dispatch_uid="redis_events.routing")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)
