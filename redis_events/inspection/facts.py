"""What a look finds: frozen facts, for pages and for scripts. ``None`` is what nobody could say, and never means 0.

Durations are in seconds, moments are aware datetimes, sizes are in bytes, channel names are without PREFIX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why the server cannot be asked.

    ``kind``: refused, host, database, silent, password, forbidden, loading, memory-full, read-only, memory, other.
    """

    kind: str
    message: str
    since: datetime
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The server itself. ``persistence`` is ``"aof"``, ``"rdb"``, both as ``"aof+rdb"``, or ``"none"``."""

    location: str
    name: str | None = None
    latency: float | None = None
    eviction_policy: str | None = None
    persistence: str | None = None
    role: str | None = None
    used_memory: int | None = None
    max_memory: int | None = None
    clock_skew: float | None = None
    """Seconds the server's clock is ahead of this machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """A service that shares the server: what it announced, and how many of its listeners are alive."""

    name: str
    channels: tuple[str, ...]
    listeners: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFacts:
    """A listener. One that has no heartbeat any more is listed for an hour, with ``is_alive`` False."""

    id: str
    is_alive: bool
    last_beat: datetime
    service: str | None = None
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    started: datetime | None = None
    channels: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    in_flight: int | None = None
    memory: int | None = None
    is_stopping: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFacts:
    """A channel that is announced, declared or received. ``rate`` is in events published a minute."""

    name: str
    transport: str
    is_pattern: bool = False
    has_outbox: bool = False
    announced_by: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    groups: int | None = None
    subscribers: int | None = None
    length: int | None = None
    rate: float | None = None
    lag: int | None = None
    """The most entries any group has not read."""
    last_event: datetime | None = None
    retention: float | None = None
    max_length: int | None = None
    problem: str | None = None
    """What the server answered when asked for it, where that was an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """A consumer group of one channel: how far behind it is, and since when."""

    channel: str
    name: str
    service: str
    lag: int | None
    """Entries not read yet."""
    behind_since: datetime | None
    """When the oldest entry that is not settled was published; None when all is settled, or unknown."""
    is_behind: bool | None
    pending: int | None
    oldest_idle: float | None = None
    """Seconds since the longest pending entry was last given to a consumer."""
    consumers: int | None = None
    consumers_alive: int | None = None
    last_id: str | None = None
    last_delivered: datetime | None = None
    rate: float | None = None
    """Deliveries settled a minute, over the last five."""
    eta: float | None = None
    """Seconds until it has caught up, at that rate; None where nobody serves it."""
    is_served: bool | None = None
    """Whether some listener that is alive serves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerFacts:
    """One consumer of a group."""

    name: str
    pending: int
    idle: float
    is_alive: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingFacts:
    """One entry that was given to a consumer and is not settled."""

    entry_id: str
    consumer: str
    idle: float
    deliveries: int
    published: datetime
    is_alive: bool | None
    """Whether the consumer has a heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverFacts:
    """A receiver of any service: as this process's code has it, as listeners announce it, or both.

    ``done``, ``retried`` and ``dead`` are runs in the last 24 hours; ``p50`` and ``p95`` seconds of a run, within 10 %.
    """

    name: str
    service: str
    channel: str
    types: tuple[str, ...] | None
    group: str
    is_here: bool
    """Whether the code of this process has it."""
    listeners: int | None
    """Listeners alive that have it."""
    place: str | None = None
    once: bool | None = None
    is_async: bool | None = None
    retry: str | None = None
    done: int | None = None
    retried: int | None = None
    dead: int | None = None
    p50: float | None = None
    p95: float | None = None
    last_run: datetime | None = None
    waiting: int | None = None
    """Held deliveries that run when they are due; those of another service stand in its own tables."""
    parked: int | None = None
    """Held deliveries that run when it is resumed."""
    paused_by: str | None = None
    paused_at: datetime | None = None

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFacts:
    """An event that stands in a stream, or was heard on pub/sub. ``problem`` says why it cannot be read as one."""

    channel: str
    entry_id: str
    """``""`` on pub/sub."""
    moment: datetime
    """When the server took it; on pub/sub when it was heard."""
    id: str = ""
    type: str = ""
    source: str = ""
    key: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    data: Any = None
    raw: bytes = b""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events, newest first, and how far the search has come."""

    events: Sequence[EventFacts]
    scanned: int
    """Entries looked at."""
    back_to: datetime | None
    """The oldest entry looked at."""
    next: str
    """What to hand in as ``before`` to go on; ``""`` when there is nothing older."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing known of an event: in the stream, in a group, in a held delivery, in the outbox, in the inbox.

    ``place``: outbox, stream, group, held, inbox. ``state``: written, sent, present, waiting, pending, settled, parked,
    dead, done, unknown.
    """

    place: str
    who: str
    state: str
    at: datetime | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Dead letters of one fingerprint."""

    fingerprint: str
    receiver: str
    exception: str
    reason: str
    """Of the latest."""
    channel: str
    count: int
    first: datetime
    last: datetime
    sample: int
    """Primary key of the latest."""
    using: str
    """The database they stand in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxFacts:
    """What one database's outbox has not sent. ``unsent`` is counted up to 100,000; then ``is_more``."""

    using: str
    unsent: int | None
    is_more: bool = False
    oldest: datetime | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What all services did in one minute. ``published`` counts streams whose listeners note it."""

    start: datetime
    published: int | None
    settled: int | None
    done: int | None
    retried: int | None
    dead: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Something that Redis or a table knows and the code does not, or the other way round."""

    kind: str
    """receiver-unserved, receiver-unknown, group-unserved, rows-unknown."""
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Whether it is healthy, in one look."""

    server: ServerFacts
    trouble: Trouble | None
    minutes: Sequence[Minute]
    channels: Sequence[ChannelFacts]
    groups: Sequence[GroupFacts]
    errors: Sequence[ErrorGroup]
    dead_letters: int | None
    waiting: int | None
    """Held deliveries that run when they are due."""
    parked: int | None
    """Held deliveries of receivers that are paused."""
    events: Sequence[EventFacts]
    listeners_alive: int | None
    outboxes: Sequence[OutboxFacts]
    drift: Sequence[Drift]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look at whether the server fits. ``level``: ok, warning, error, unknown."""

    id: str
    level: str
    title: str
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an act has done: how many, and how many were left alone, by the reason."""

    done: int
    left: Mapping[str, int]
