"""Which listeners are alive, and what each of them has: a key with a short life for each."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from .conf import conf, glob
from .registry import Receiver
from .transports.client import ErrorReply, Wire, refused

ALIVE = 6
"""Seconds a heartbeat lasts: a dead listener's work is taken over within 10."""


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver, as other listeners of its group need to know it."""

    name: str
    channel: str
    types: tuple[str, ...] | None
    group: str
    using: str | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a listener says of itself. ``started`` is in seconds since 1970."""

    id: str
    service: str
    host: str
    pid: int
    version: str
    started: float
    receivers: tuple[Announced, ...]
    in_flight: int | None = None
    memory: int | None = None

    def groups(self, channel: str) -> set[str]:
        """The consumer groups it serves on a channel."""
        matching = (each for each in self.receivers if glob(each.channel, channel))
        return {f"{self.service}:{each.group}" if each.group else self.service for each in matching}


@cache
def own_id() -> str:
    """This process's name as a consumer, unique for each start: ``host:pid:random``."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=own_id.cache_clear)


def card(receivers: Sequence[Receiver], *, version: str) -> Card:
    """This process's card."""
    announced = (
        Announced(name=each.name, channel=each.channel, types=each.types, group=each.group, using=each.using)
        for each in receivers
    )
    return Card(
        id=own_id(),
        service=conf.SERVICE,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=version,
        started=time.time(),
        receivers=tuple(announced),
    )


def key(id: str) -> str:
    """The key with the card of a listener."""
    return conf.redis_name(f"redis-events:listeners:{id}")


def stop_key(id: str) -> str:
    """The key by which a listener is asked to stop."""
    return conf.redis_name(f"redis-events:stop:{id}")


def index() -> str:
    """The sorted set of the listeners there were, by their last beat."""
    return conf.redis_name("redis-events:listeners")


def beat(wire: Wire, own: Card) -> None:
    """Say that this listener is alive. Raises TransportError, Refused where nobody will see it."""
    card_key = key(own.id)
    told, _, lives_on = wire.call(
        [
            ("SET", card_key, msgspec.json.encode(own), "EX", ALIVE),
            ("ZADD", index(), int(time.time()), own.id),
            ("EXPIRE", card_key, ALIVE),  # a server out of memory refuses the two others, not this
        ]
    )
    if lives_on != 1:
        raise refused(wire.location, str(told))


def retire(wire: Wire, own: Card) -> None:
    """Say that this listener is gone: its work may be taken over at once."""
    wire.call([("DEL", key(own.id)), ("ZREM", index(), own.id)])


def alive(wire: Wire, ids: Sequence[str]) -> set[str]:
    """Those of the consumers that have a heartbeat."""
    if not ids:
        return set()
    answers = wire.call([("EXISTS", key(id)) for id in ids])
    return {id for id, answer in zip(ids, answers, strict=True) if answer or isinstance(answer, ErrorReply)}


def cards(wire: Wire) -> list[Card]:
    """The cards of all listeners that are alive, of every service. Forgets those that died long ago."""
    listed = wire.call([("ZREMRANGEBYSCORE", index(), "-inf", int(time.time()) - 3600), ("ZRANGE", index(), 0, -1)])[1]
    if isinstance(listed, ErrorReply) or not listed:
        return []
    answers = wire.call([("GET", key(id.decode(errors="replace"))) for id in listed])
    return [card for card in map(read_card, answers) if card]


def read_card(answer: Any) -> Card | None:
    """The card in the reply to GET; None where there is none, or nobody can read it."""
    try:
        return msgspec.json.decode(answer, type=Card) if isinstance(answer, bytes) else None
    except msgspec.DecodeError:
        return None
