"""What everybody announced, asked once for each look: services, channels, listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .. import announcements, heartbeat, pauses
from ..announcements import Announcement, is_stream
from ..conf import conf, glob
from ..events import now
from ..heartbeat import Card
from ..pauses import Pause
from ..registry import all_receivers, publishers
from .server import Server

LAST = float(1 << 37)
"""Seconds since 1970: what is later is no time, and dates end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What was announced at one moment. ``is_known`` is False where the server could not be asked."""

    is_known: bool
    moment: datetime
    """The server's clock; ours where it did not say."""
    skew: float | None
    announced: Sequence[Announcement]
    cards: Sequence[Card]
    beats: dict[str, datetime]
    """When each listener of the last hour was last heard of."""
    stopping: frozenset[str]
    paused: Mapping[tuple[str, str], Pause]
    """By service and receiver."""

    def channel_names(self) -> list[str]:
        """Every channel and pattern somebody named, sorted."""
        named = {each.channel for each in self.announced} | conf.CHANNELS.keys()
        named |= {each.channel for each in all_receivers()}
        named |= {publisher.channel for each in publishers.values() for publisher in each}
        named |= {receiver.channel for card in self.cards for receiver in card.receivers}
        return sorted(named)

    def stream_names(self) -> list[str]:
        """The streams among them: names only, patterns are no keys."""
        return [name for name in self.channel_names() if "*" not in name and is_stream(name, self.announced)]

    def serves(self, channel: str, group: str) -> bool | None:
        """Whether a listener that is alive reads a channel for a group."""
        if not self.is_known:
            return None
        return any(group in card.groups(channel) for card in self.cards)


def scene(server: Server) -> Scene:
    """What everybody announced: two round trips at the first question of a look, none at the next."""
    if "scene" not in server.memo:
        server.memo["scene"] = _ask(server)
    found: Scene = server.memo["scene"]
    return found


def _ask(server: Server) -> Scene:
    before = now()
    index = ("ZRANGE", heartbeat.index(), 0, -1, "WITHSCORES")
    # The clock first: whatever an entry of an earlier millisecond is on has been announced by then.
    clock, announced, beats, paused = server.ask(("TIME",), ("HGETALL", announcements.key()), index, pauses.asked())
    known = {id.decode(errors="replace"): noted(float(score)) for id, score in _pairs(beats)}
    asked_of = [("GET", heartbeat.key(id)) for id in known] + [heartbeat.asked_to_stop(id) for id in known]
    answers = server.ask(*asked_of)
    cards, stops = answers[: len(known)], answers[len(known) :]
    moment = _clock(clock)
    return Scene(
        is_known=server.trouble is None,
        moment=moment or now(),
        skew=(moment - before).total_seconds() if moment else None,
        announced=announcements.parsed(announced or ()),
        cards=[card for card in map(heartbeat.read_card, cards) if card],
        beats=known,
        stopping=frozenset(id for id, stop in zip(known, stops, strict=True) if stop),
        paused=pauses.decode(paused) or {},
    )


def _pairs(flat: Sequence[Any] | None) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True)) if flat else []


def noted(seconds: float) -> datetime:
    """A moment that stands in Redis, in seconds since 1970; the nearest one there is: anybody may write there."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), LAST), tz=UTC)


def _clock(answer: Sequence[bytes] | None) -> datetime | None:
    return datetime.fromtimestamp(clock_seconds(answer), tz=UTC) if answer else None


def clock_seconds(clock: Sequence[bytes]) -> float:
    """The reply of TIME, in seconds since 1970."""
    return int(clock[0]) + int(clock[1]) / 1e6


def covers(pattern: str, name: str) -> bool:
    """Whether a name or glob that a person typed means this channel."""
    return not pattern or pattern == name or glob(pattern, name)
