"""Channels and consumer groups: how long, how far behind, who is stuck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .. import announcements
from ..conf import conf
from ..floors import is_entry_id, parse
from ..heartbeat import ALIVE
from ..registry import all_receivers, publishers
from ..routing import transport_name
from ..transports.client import ErrorReply, by_name
from ..transports.trimming import OURS
from .facts import ChannelFacts, ConsumerFacts, GroupFacts, PendingFacts
from .rates import Rates, rates
from .scene import Scene, covers, scene
from .server import Server, at


@dataclass(slots=True)
class Stream:
    """What one stream answered. ``about`` and ``groups`` are empty where it is not there, or may not be seen."""

    name: str
    about: dict[str, Any] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    is_known: bool = False

    @property
    def last_id(self) -> str:
        return str(self.about.get("last-generated-id", b"0-0").decode())


def streams(server: Server, names: Sequence[str]) -> list[Stream]:
    """What these streams are, in one round trip for those not asked for before in this look."""
    known: dict[str, Stream] = server.memo.setdefault("streams", {})
    new = [name for name in names if name not in known]
    keys = [conf.redis_name(name) for name in new]
    answers = server.try_all(*(("XINFO", "STREAM", key) for key in keys), *(("XINFO", "GROUPS", key) for key in keys))
    for name, about, groups in zip(new, answers[: len(new)], answers[len(new) :], strict=True):
        known[name] = _stream(name, about, groups)
    return [known[name] for name in names]


def _stream(name: str, about: Any, groups: Any) -> Stream:
    if isinstance(about, ErrorReply):
        is_missing = "no such key" in str(about)
        return Stream(name, problem=None if is_missing else str(about), is_known=is_missing)
    if about is None or groups is None or isinstance(groups, ErrorReply):
        return Stream(name, problem=str(groups) if isinstance(groups, ErrorReply) else None)
    theirs = [each for each in map(named, groups) if not each["name"].startswith(OURS.encode())]
    return Stream(name, about=named(about), groups=theirs, is_known=True)


def unreadable(server: Server) -> dict[str, str]:
    """What the server answered instead of the streams it would not show, by channel, to the looks so far."""
    known: dict[str, Stream] = server.memo.get("streams", {})
    return {name: stream.problem for name, stream in known.items() if stream.problem}


def named(flat: Sequence[Any]) -> dict[str, Any]:
    """A flat list of names and values, as XINFO answers, by name."""
    return {name.decode(): value for name, value in by_name(flat).items()}


def text(name: bytes) -> str:
    """A name on the server as text: anybody may have given it, of any bytes."""
    return name.decode(errors="backslashreplace")


def moment(entry_id: str) -> datetime | None:
    """When the server took an entry, by its id; None for an id that is no time."""
    milliseconds = parse(entry_id)[0]
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC) if 0 < milliseconds < 1 << 47 else None


# ------------------------------------------------------------------ channels


def channels(*, server: Server | None = None) -> list[ChannelFacts]:
    """Every channel and pattern that somebody announced, declared or receives; those furthest behind first."""
    with at(server) as asked:
        here = scene(asked)
        names = here.channel_names()
        found = {each.name: each for each in streams(asked, here.stream_names())}
        counts = _subscribers(asked, here, [name for name in names if name not in found])
        speeds = rates(asked)
        facts = [_channel(name, here, found.get(name), counts.get(name), speeds) for name in names]
    return sorted(facts, key=lambda each: (-(each.lag or 0), each.name))


def channel(name: str, *, server: Server | None = None) -> ChannelFacts | None:
    """One of them; None where nobody has named it."""
    with at(server) as asked:
        return next((each for each in channels(server=asked) if each.name == name), None)


def channel_raw(name: str, *, server: Server | None = None) -> dict[str, Any] | None:
    """What XINFO STREAM says, without the bodies of the first and last entry; None where it does not."""
    with at(server) as asked:
        about = streams(asked, [name])[0].about
    shown = {key: value.decode() if isinstance(value, bytes) else value for key, value in about.items()}
    for end in ("first-entry", "last-entry"):
        shown[end] = about[end][0].decode() if about.get(end) else None
    return shown if about else None


def _subscribers(server: Server, here: Scene, names: Sequence[str]) -> dict[str, int]:
    """How many connections are subscribed to each pub/sub channel by its name."""
    exact = [name for name in names if "*" not in name and transport_name(name, here.announced) == "pubsub"]
    if not exact:
        return {}
    answer = server.ask(("PUBSUB", "NUMSUB", *map(conf.redis_name, exact)))[0]
    return dict(zip(exact, answer[1::2], strict=True)) if answer else {}


def _channel(name: str, here: Scene, stream: Stream | None, subscribers: int | None, speeds: Rates) -> ChannelFacts:
    entry, announced = conf.channel(name), here.announced
    keeps = stream is not None
    return ChannelFacts(
        name=name,
        transport=transport_name(name, announced),
        is_pattern="*" in name,
        has_outbox=bool(entry and entry.OUTBOX),
        announced_by=tuple(sorted({each.service for each in announced if each.channel == name})),
        publishers=tuple(sorted(_publishers(name))),
        receivers=tuple(each.name for each in all_receivers() if covers(each.channel, name)),
        subscribers=subscribers,
        retention=announcements.retention(name, announced) if keeps else None,
        max_length=announcements.max_length(name, announced) if keeps else None,
        rate=speeds.published(name) if keeps else None,
        **(_measures(stream) if stream and stream.is_known else {}),
        problem=stream.problem if stream else None,
    )


def _publishers(channel: str) -> set[str]:
    found = ((model, each) for model, classes in publishers.items() for each in classes if each.channel == channel)
    return {f"{model._meta.label}: {each.__qualname__}" for model, each in found}


def _measures(stream: Stream) -> dict[str, Any]:
    lags = [_lag(stream, group) for group in stream.groups]
    return {
        "groups": len(stream.groups),
        "length": stream.about.get("length", 0),
        "last_event": moment(stream.last_id),
        "lag": None if None in lags else max((lag for lag in lags if lag is not None), default=0),
    }


def _lag(stream: Stream, group: dict[str, Any]) -> int | None:
    """Entries a group has not read; the server knows since Redis 7, and not after entries were deleted."""
    if group["last-delivered-id"] == stream.about.get("last-generated-id") or not stream.about.get("length"):
        return 0
    lag = group.get("lag")
    return int(lag) if lag is not None else None


# ------------------------------------------------------------------ groups


def groups(channel: str | None = None, *, server: Server | None = None) -> list[GroupFacts]:
    """The consumer groups of one stream or of all, of every service: the one furthest behind first."""
    with at(server) as asked:
        here = scene(asked)
        found = streams(asked, [channel] if channel else here.stream_names())
        pairs = [(stream, group) for stream in found for group in stream.groups]
        answers = asked.ask(*(command for pair in pairs for command in _questions(*pair)))
        speeds = rates(asked)
    facts = [
        _group(stream, group, answers[at : at + 3], here, speeds)
        for at, (stream, group) in zip(range(0, len(answers), 3), pairs, strict=True)
    ]
    return sorted(facts, key=_urgency)


def _urgency(group: GroupFacts) -> tuple[bool, float, str, str]:
    since = group.behind_since.timestamp() if group.behind_since else 0.0
    return not group.is_behind, since, group.channel, group.name


def _questions(stream: Stream, group: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The oldest pending entry, the first unread one, and the consumers."""
    key, name = conf.redis_name(stream.name), group["name"]
    unread = ("XRANGE", key, f"({group['last-delivered-id'].decode()}", "+", "COUNT", 1)
    return [("XPENDING", key, name, "-", "+", 1), unread, ("XINFO", "CONSUMERS", key, name)]


def _group(stream: Stream, group: dict[str, Any], answers: Sequence[Any], here: Scene, speeds: Rates) -> GroupFacts:
    oldest, unread, consumers = answers
    name, lag = text(group["name"]), _lag(stream, group)
    waiting = [entry[0].decode() for entry in (*(oldest or ()), *(unread or ()))]
    first = min(waiting, key=parse, default=None)
    rate = speeds.settled(stream.name, name)
    alive = [_is_alive(each, here) for each in consumers] if consumers is not None else None
    is_served = here.serves(stream.name, name)
    return GroupFacts(
        channel=stream.name,
        name=name,
        service=name.partition(":")[0],
        lag=lag,
        behind_since=moment(first) if first else None,
        is_behind=None if oldest is None or unread is None else bool(waiting),
        pending=group["pending"],
        oldest_idle=oldest[0][2] / 1000 if oldest else None,
        consumers=len(alive) if alive is not None else None,
        consumers_alive=sum(map(bool, alive)) if alive is not None else None,
        last_id=group["last-delivered-id"].decode(),
        last_delivered=moment(group["last-delivered-id"].decode()),
        rate=rate,
        eta=None if is_served is False else _eta(lag, group["pending"], rate),
        is_served=is_served,
    )


def _eta(lag: int | None, pending: int, rate: float | None) -> float | None:
    """Seconds until a group has caught up, where it gets anything done at all."""
    if lag is None or not rate:
        return None
    return (lag + pending) / rate * 60


# ------------------------------------------------------------------ who has what in hand


def consumers(channel: str, group: str, *, server: Server | None = None) -> list[ConsumerFacts]:
    """The consumers of a group, those with the most pending first."""
    with at(server) as asked:
        here = scene(asked)
        answer = asked.ask(("XINFO", "CONSUMERS", conf.redis_name(channel), group))[0]
    facts = [
        ConsumerFacts(
            name=text(named(each)["name"]),
            pending=named(each)["pending"],
            idle=named(each)["idle"] / 1000,
            is_alive=_is_alive(each, here),
        )
        for each in answer or ()
    ]
    return sorted(facts, key=lambda each: (-each.pending, each.name))


def _is_alive(consumer: Sequence[Any], here: Scene) -> bool | None:
    """Whether a consumer has a heartbeat, or did something since the last one would have been."""
    if not here.is_known:
        return None
    facts = named(consumer)
    return text(facts["name"]) in {card.id for card in here.cards} or facts["idle"] < ALIVE * 500


def pending(
    channel: str, group: str, *, after: str = "", limit: int = 100, server: Server | None = None
) -> list[PendingFacts]:
    """Entries given to a consumer and not settled, oldest first, at most ``limit``, behind the entry id ``after``."""
    with at(server) as asked:
        here = scene(asked)
        start = f"({after}" if is_entry_id(after) else "-"
        answer = asked.ask(("XPENDING", conf.redis_name(channel), group, start, "+", limit))[0]
    alive = {card.id for card in here.cards}
    return [
        PendingFacts(
            entry_id=id.decode(),
            consumer=text(consumer),
            idle=idle / 1000,
            deliveries=deliveries,
            published=moment(id.decode()) or here.moment,
            is_alive=text(consumer) in alive if here.is_known else None,
        )
        for id, consumer, idle, deliveries in answer or ()
    ]
