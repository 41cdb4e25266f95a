"""Which receivers are paused: a hash in Redis that people write to and every listener reads with its heartbeat.

A receiver that was resumed stays in it, with nothing as its value: one that is gone was forgotten by the server.
"""

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


def say_again(receiver: str, pause: Pause, *, service: str) -> Command:
    """What pauses a receiver of which the server knows nothing any more, unless somebody has decided about it since."""
    return ("HSETNX", _key(), _field(service, receiver), msgspec.json.encode(pause))


def resume(receiver: str, *, service: str) -> list[Command]:
    """What lets it run again. The first answer is empty where it was not paused."""
    field = _field(service, receiver)
    return [("HGET", _key(), field), ("HSET", _key(), field, b"")]


def decode(answer: Any) -> Mapping[tuple[str, str], Pause] | None:
    """The pauses by service and receiver; None when the server did not say."""
    found = _decode(answer)
    return None if found is None else {key: pause for key, pause in found.items() if pause}


def of_service(answer: Any, service: str) -> dict[str, Pause | None] | None:
    """By receiver of a service its pause, None once it was resumed; None for all when the server did not say."""
    found = _decode(answer)
    return None if found is None else {receiver: each for (of, receiver), each in found.items() if of == service}


def _decode(answer: Any) -> dict[tuple[str, str], Pause | None] | None:
    if not isinstance(answer, list):
        return None
    texts = [field.decode(errors="replace") for field in answer[::2]]
    services_and_receivers = [text.partition(" ")[::2] for text in texts]
    return dict(zip(services_and_receivers, map(_read, answer[1::2]), strict=True))


def _read(value: bytes) -> Pause | None:
    """That something stands there pauses the receiver, whatever it is."""
    if not value:
        return None
    try:
        return msgspec.json.decode(value, type=Pause)
    except msgspec.DecodeError:
        return Pause()


def _key() -> str:
    return conf.redis_name("redis-events:paused")


def _field(service: str, receiver: str) -> str:
    return f"{service} {receiver}"
