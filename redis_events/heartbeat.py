"""Which listeners are alive, and what each of them has: a key with a short life for each."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from .conf import conf, glob
from .registry import Receiver
from .transports.client import Command, ErrorReply, Wire, refused

ALIVE = 6
"""Seconds a heartbeat lasts: a dead listener's work is taken over within 10."""
PATIENCE = 60
"""Seconds a listener has to see that it is asked to stop."""
_MEMORY = Path("/proc/self/statm")


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver, as other listeners of its group need to know it."""

    name: str
    channel: str
    types: tuple[str, ...] | None
    group: str
    using: str | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a listener says of itself. ``started`` is in seconds since 1970.

    Other releases read it too: what is new has a default, and what they do not know they ignore.
    """

    id: str
    service: str
    host: str
    pid: int
    version: str
    started: float
    receivers: tuple[Announced, ...]
    in_flight: int | None = None
    """Deliveries in hand."""
    memory: int | None = None
    """Bytes of it that are in memory, None where the system does not say."""

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


def card(receivers: Sequence[Receiver], *, version: str, started: float | None = None) -> Card:
    """This process's card. ``started`` is in seconds since 1970, without it now."""
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
        started=time.time() if started is None else started,
        receivers=tuple(announced),
    )


def stand_in(announced: Announced) -> Receiver:
    """Another listener's receiver, for matching only."""
    return Receiver(
        function=_elsewhere,
        name=announced.name,
        channel=announced.channel,
        types=announced.types,
        event_type=None,
        group=announced.group,
        using=announced.using,
    )


def _elsewhere(event: object) -> None:
    raise NotImplementedError("this receiver runs in another listener")


def as_it_is_now(own: Card, *, in_flight: int) -> Card:
    """A card with what changes from beat to beat."""
    return msgspec.structs.replace(own, in_flight=in_flight, memory=_memory())


def _memory() -> int | None:
    try:
        return int(_MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def key(id: str) -> str:
    """The key with the card of a listener."""
    return conf.redis_name(f"redis-events:listeners:{id}")


def index() -> str:
    """The sorted set of the listeners there were, by their last beat."""
    return conf.redis_name("redis-events:listeners")


def beat(
    wire: Wire, own: Card, *, also: Sequence[Command] = (), hear: Callable[[Sequence[Any]], None] | None = None
) -> None:
    """Say that this listener is alive. Raises TransportError, Refused where nobody will see it.

    ``also`` goes in the same round trip; ``hear`` gets the replies to it, before anything is raised for a refusal.
    """
    name = key(own.id)
    told, _, lives_on, *others = wire.call(
        [
            ("SET", name, msgspec.json.encode(own), "EX", ALIVE),
            ("ZADD", index(), int(time.time()), own.id),
            ("EXPIRE", name, ALIVE),  # a server out of memory refuses the two others, not this
            *also,
        ]
    )
    if hear:
        hear(others)
    if lives_on != 1:
        raise refused(wire.location, str(told))


def retire(wire: Wire, own: Card) -> None:
    """Say that this listener is gone: its work may be taken over at once."""
    wire.call([("DEL", key(own.id)), ("ZREM", index(), own.id)])


def stop(id: str, *, who: str) -> Command:
    """What asks a listener to stop, as SIGTERM would."""
    return ("SET", _stop_key(id), who, "EX", PATIENCE)


def asked_to_stop(id: str) -> Command:
    """What asks whether a listener was asked to stop; the reply says by whom."""
    return ("GET", _stop_key(id))


def _stop_key(id: str) -> str:
    return conf.redis_name(f"redis-events:stop:{id}")


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
