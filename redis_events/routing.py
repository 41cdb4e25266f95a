"""Which transport carries a channel, and the one sender of this process for each transport."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .conf import conf
from .exceptions import ConfigurationError
from .sender import Sender
from .transports.base import Transport

BUILT_IN = {
    "memory": "redis_events.transports.memory.MemoryTransport",
    "pubsub": "redis_events.transports.pubsub.PubSubTransport",
}

_senders: dict[str, Sender] = {}
_by_channel: dict[str, Sender] = {}
_replacements: list[Sender] = []
_MOST_CHANNELS = 10_000


def transport_name(channel: str) -> str:
    """What carries a channel: ``pubsub``, … or the dotted path of a third party's transport."""
    if urlsplit(conf.LOCATION).scheme == "memory":
        return "memory"
    entry = conf.channel(channel)
    return entry.TRANSPORT if entry else "pubsub"


def create(name: str) -> Transport:
    """A new transport to ``LOCATION``, not yet connected. Raises ConfigurationError."""
    try:
        transport = import_string(BUILT_IN.get(name, name))(conf.LOCATION)
    except ImportError as error:
        raise ConfigurationError(f'REDIS_EVENTS["CHANNELS"]: no transport {name!r}: {error}') from error
    if not isinstance(transport, Transport):
        raise ConfigurationError(f'REDIS_EVENTS["CHANNELS"]: {name!r} is not a Transport')
    return transport


def sender_for(channel: str) -> Sender:
    """This process's way out for a channel."""
    if _replacements:
        return _replacements[-1]
    sender = _by_channel.get(channel)
    if sender is None:
        if len(_by_channel) >= _MOST_CHANNELS:
            _by_channel.clear()
        sender = _by_channel[channel] = _sender(transport_name(channel))
    return sender


def _sender(name: str) -> Sender:
    if name not in _senders:
        _senders[name] = Sender(create(name))
    return _senders[name]


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


setting_changed.connect(reset, dispatch_uid="redis_events.routing")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)
