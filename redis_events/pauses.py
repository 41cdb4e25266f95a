"""Which receivers are paused: a hash in Redis that people write to and every listener reads with its heartbeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .conf import conf
from .transports.client import Command


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Who paused a receiver, and when, in seconds since 1970; ``""`` and 0 where nobody can read that."""

    by: str = ""
    at: float = 0.0


def asked() -> Command:
    """What asks for everything that is paused; the reply is for ``decode`` and ``of_service``."""
    return ("HGETALL", _key())


def pause(receiver: str, *, service: str, by: str, at: float) -> Command:
    """What pauses a receiver in all listeners of its service, from their next heartbeat on. ``at``: since 1970."""
    return ("HSET", _key(), _field(service, receiver), msgspec.json.encode(Pause(by=by, at=at)))


def resume(receiver: str, *, service: str) -> Command:
    """What lets it run again. The server answers 1, and 0 where it was not paused."""
    return ("HDEL", _key(), _field(service, receiver))


def decode(answer: Any) -> Mapping[tuple[str, str], Pause] | None:
    """The pauses by service and receiver; None when the server did not say."""
    if not isinstance(answer, list):
        return None
    texts = [field.decode(errors="replace") for field in answer[::2]]
    services_and_receivers = [text.partition(" ")[::2] for text in texts]
    return dict(zip(services_and_receivers, map(_read, answer[1::2]), strict=True))


def of_service(answer: Any, service: str) -> dict[str, Pause] | None:
    """A service's pauses by receiver; None when the server did not say."""
    found = decode(answer)
    return None if found is None else {receiver: each for (of, receiver), each in found.items() if of == service}


def _read(value: bytes) -> Pause:
    """That the field is there pauses the receiver, whatever stands in it."""
    try:
        return msgspec.json.decode(value, type=Pause)
    except msgspec.DecodeError:
        return Pause()


def _key() -> str:
    return conf.redis_name("redis-events:paused")


def _field(service: str, receiver: str) -> str:
    return f"{service} {receiver}"
