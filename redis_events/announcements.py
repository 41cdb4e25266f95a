"""What carries a channel is decided by the service that publishes it; here the others learn it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from .conf import GROUP, NAME, ChannelConf, conf, glob
from .exceptions import TransportError, Unreachable
from .transports.client import Command, ErrorReply, Wire, refused

STREAM = "stream"
PUBSUB = "pubsub"
ASKED_AGAIN = 10.0
"""Seconds that nobody announced a channel is taken for true."""
_MOST_KNOWN = 10_000
PATIENCE = 0.05
"""Seconds worth waiting for another thread's answer: a healthy server gives it in one or two thousandths."""


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a service's CHANNELS, as others see it. ``retention`` is in seconds."""

    service: str
    channel: str
    transport: str
    retention: float
    max_length: int | None = None


def key() -> str:
    """The hash in which announcements stand."""
    return conf.redis_name("redis-events:announcements")


def commands(channels: Iterable[str] = ()) -> list[Command]:
    """What announces this service's CHANNELS, and concrete channels of its patterns; nothing without a SERVICE.

    Channels of a pub/sub pattern need no words of their own: whoever subscribes does so by pattern too.
    """
    if not conf.SERVICE:
        return []
    entries = dict(conf.CHANNELS)
    entries |= {name: entry for name in channels if (entry := conf.channel(name)) and entry.TRANSPORT != "pubsub"}
    return [
        (
            "HSET",
            key(),
            f"{conf.SERVICE} {name}",
            msgspec.json.encode(
                Announcement(
                    service=conf.SERVICE,
                    channel=name,
                    transport=entry.TRANSPORT,
                    retention=entry.RETENTION or conf.RETENTION,
                    max_length=entry.MAX_LENGTH or conf.MAX_LENGTH,
                )
            ),
        )
        for name, entry in entries.items()
    ]


def withdrawals(announced: Iterable[Announcement]) -> list[Command]:
    """What takes back this service's announcements of channels its CHANNELS no longer names or covers."""
    own = [each.channel for each in announced if each.service == conf.SERVICE]
    kept = [name for name in own if name in conf.CHANNELS or ("*" not in name and conf.channel(name))]
    return [("HDEL", key(), f"{conf.SERVICE} {name}") for name in own if name not in kept]


def retention(channel: str, announced: Iterable[Announcement]) -> float:
    """Seconds a channel's entries are kept: the longest that its own entry or another service asks for."""
    own = conf.channel(channel)
    asked = [own.RETENTION or conf.RETENTION] if own else []
    asked += [each.retention for each in _one_a_service(channel, announced)]
    return max(asked, default=conf.RETENTION)


def max_length(channel: str, announced: Iterable[Announcement]) -> int | None:
    """The most entries a channel may have: the least that its own entry or another service asks for."""
    own = conf.channel(channel)
    asked = [own.MAX_LENGTH or conf.MAX_LENGTH] if own else []
    asked += [each.max_length for each in _one_a_service(channel, announced)]
    return min(filter(None, asked), default=None)


def _one_a_service(channel: str, announced: Iterable[Announcement]) -> list[Announcement]:
    """What each service says of a channel."""
    by_service: dict[str, list[Announcement]] = {}
    for each in announced:
        by_service.setdefault(each.service, []).append(each)
    return [found for each in by_service.values() if (found := _best(channel, each))]


def read(wire: Wire) -> list[Announcement]:
    """Everything announced; what nobody can read is left out, and nothing can be read where it is forbidden.

    Raises TransportError, also where the server cannot say now: that it loads its data is not that nobody announced.
    """
    answer = wire.call([("HGETALL", key())])[0]
    if isinstance(answer, ErrorReply):
        error = refused(wire.location, str(answer))
        if isinstance(error, Unreachable):
            raise error
        return []
    return parsed(answer)


def parsed(answer: Sequence[Any]) -> list[Announcement]:
    """The announcements in the reply to HGETALL; what nobody can read is left out."""
    return [found for found in map(_decoded, answer[1::2]) if found]


def _decoded(value: Any) -> Announcement | None:
    """None for what no service announces: anybody may write here, and names end up in log lines and in tables."""
    try:
        found = msgspec.json.decode(value, type=Announcement)
    except msgspec.DecodeError:
        return None
    return found if GROUP.fullmatch(found.service) and NAME.fullmatch(found.channel.replace("*", "x")) else None


def announced_transport(channel: str, announced: Iterable[Announcement]) -> str | None:
    """What others say carries a channel: the exact name, else the longest pattern; None when nobody says."""
    best = _best(channel, announced)
    return best.transport if best else None


def _best(channel: str, announced: Iterable[Announcement]) -> Announcement | None:
    matching = [each for each in announced if each.channel == channel or glob(each.channel, channel)]
    return max(matching, key=lambda each: (each.channel == channel, len(each.channel)), default=None)


def is_stream(channel: str, announced: Iterable[Announcement]) -> bool:
    """Whether a channel is a stream, by its own entry of CHANNELS, else by what others announced."""
    own = conf.channel(channel)
    return (own.TRANSPORT if own else announced_transport(channel, announced)) == STREAM


def stream_channels(pattern: str, announced: Sequence[Announcement]) -> list[str]:
    """The stream channels behind a name or pattern, sorted: for a pattern those that somebody named."""
    named = {each.channel for each in announced} | conf.CHANNELS.keys() if "*" in pattern else {pattern}
    return sorted(name for name in named if "*" not in name and glob(pattern, name) and is_stream(name, announced))


def contradictions(announced: Iterable[Announcement]) -> list[tuple[ChannelConf, Announcement]]:
    """What another service announced and an own entry of CHANNELS, a pattern too, says otherwise; with that entry."""
    others = [each for each in announced if each.service != conf.SERVICE]
    return [(own, each) for each in others if (own := _own_entry(each.channel)) and each.transport != own.TRANSPORT]


def _own_entry(name: str) -> ChannelConf | None:
    """For a pattern the same one only: one that overlaps may be for other channels."""
    return conf.CHANNELS.get(name) if "*" in name else conf.channel(name)


class Lookup:
    """What carries the channels this process publishes without an entry of its own: asked once a channel.

    That nobody announced one is asked again every 10 seconds, in a thread that nobody waits for: Redis may have lost
    what was announced, and whoever owns a stream says so again. By pub/sub its events would reach nobody.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._absent: dict[str, float] = {}
        """Channels nobody announced, and until when that is taken for true (``time.monotonic``)."""
        self._next = 0.0
        self._asking = threading.Lock()
        self._is_looking_again = False

    def transport(self, channel: str) -> str | None:
        """``pubsub`` where nobody announced another; None when the server cannot be asked now.

        Whoever comes while another thread asks waits for the answer, since without it a stream's event would go to
        pub/sub; but not for long: while the server is away, one caller a second waits, and no other.
        """
        known = self._remembered(channel)
        if known or time.monotonic() < self._next:
            return known
        asking = self._asking
        if not asking.acquire(timeout=PATIENCE):
            return None
        try:
            return self._remembered(channel) or self._ask(channel)
        finally:
            asking.release()

    def assumed_until(self, channel: str) -> float | None:
        """Until when (``time.monotonic``) a channel is taken for one nobody announced; None for one somebody did."""
        return self._absent.get(channel)

    def _remembered(self, channel: str) -> str | None:
        until = self._absent.get(channel)
        if until is None:
            return self._known.get(channel)
        if time.monotonic() >= max(until, self._next) and not self._is_looking_again:
            self._is_looking_again = True
            threading.Thread(target=self._look_again, name="redis_events-lookup", daemon=True).start()
        return PUBSUB

    def _ask(self, channel: str) -> str | None:
        if time.monotonic() < self._next:
            return None
        announced = self._fetch()
        if announced is None:
            return None
        if len(self._known) + len(self._absent) >= _MOST_KNOWN:
            self._forget()
        return self._note(channel, announced)

    def _look_again(self) -> None:
        """One question for all channels that nobody announced so far."""
        try:
            announced = self._fetch()
            for channel in list(self._absent) if announced is not None else ():
                self._note(channel, announced or ())
        finally:
            self._is_looking_again = False

    def _fetch(self) -> list[Announcement] | None:
        try:
            return fetch(timeout=0.9 * conf.PUBLISH_TIMEOUT)
        except TransportError:
            self._next = time.monotonic() + 1.0
            return None

    def _note(self, channel: str, announced: Sequence[Announcement]) -> str:
        found = announced_transport(channel, announced)
        if found is None:
            self._absent[channel] = time.monotonic() + ASKED_AGAIN
            return PUBSUB
        self._known[channel] = found
        self._absent.pop(channel, None)
        return found

    def _forget(self) -> None:
        self._known.clear()
        self._absent.clear()

    def clear(self) -> None:
        """Forget everything, and after a fork who was asking."""
        self._forget()
        self._next = 0.0
        self._asking = threading.Lock()
        self._is_looking_again = False


def fetch(*, timeout: float) -> list[Announcement]:
    """Everything announced, over a connection of its own. ``timeout`` is in seconds. Raises TransportError."""
    wire = Wire(conf.LOCATION, timeout=timeout)
    try:
        return read(wire)
    finally:
        wire.close()
