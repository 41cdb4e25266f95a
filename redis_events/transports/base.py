"""The transport contract: all a transport has to be.

A transport carries bytes. It knows channels, groups and deliveries; it knows nothing of receivers, retries or dead
letters (those are rows in the receiving service's database). ``redis_events.testing.TransportContract`` is its test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One encoded event on its way out. ``plain`` says that the body is a bare text or JSON, not a document."""

    channel: str
    body: bytes
    plain: bool = False


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """Wanting a channel, or a pattern, for a consumer group (``""`` where the transport has no groups).

    ``conf.glob`` says what a pattern covers: ``*`` is any characters, also none, dots too; nothing else is special.
    """

    channel: str
    group: str = ""

    @property
    def is_pattern(self) -> bool:
        return "*" in self.channel


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One event handed to one group (``""``: to one listener), to be settled."""

    channel: str
    body: bytes
    group: str = ""
    id: str = ""
    """The transport's own, the same at every delivery; ``""`` where there is none."""
    is_document: bool = False
    """Whether the body was sent as a CloudEvents document: then anything else in it is broken."""
    starts: int = 0
    """How many processes began this one alone and died over it; never more for having been in their batch."""
    is_repeated: bool = False
    """Whether it may have been processed before, in part or whole."""
    is_settled: bool = False
    """Whether this group had settled the event before it was lost and sent again: nothing is run for it."""


class Transport(ABC):
    """One way to carry events. Channel names are without PREFIX on this side of it.

    On the medium each name carries the PREFIX (``conf.redis_name`` puts it in front), so that two environments on one
    server do not hear each other. An event that several subscriptions of one group cover is one delivery.

    An instance is used for sending by any thread, one at a time, or for receiving by one thread; never for both.
    Every method may raise ``Unreachable`` or ``Refused`` (``TransportError``), with a message that can be shown.
    """

    durable: ClassVar[bool]
    """Whether an event waits for listeners that are away. Where it does not, a lost connection is a gap."""
    grouped: ClassVar[bool]
    """Whether each group gets an event once; else every listener does, and groups mean nothing."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.heard = 0.0
        """When the server last gave a sign of life to this subscriber (``time.monotonic``): a gap begins there."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is received through it for now, so that a lost connection concerns nobody."""
        return False

    @abstractmethod
    def send(self, batch: Sequence[Outgoing]) -> None:
        """Hand over a batch in order, in one round trip, within ``PUBLISH_TIMEOUT``; never retried in here."""

    @abstractmethod
    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Start receiving. Returns when the server has confirmed every subscription; call again to reconnect."""

    @abstractmethod
    def receive(self, *, limit: int, timeout: float) -> list[Delivery]:
        """At most ``limit`` deliveries, as soon as there is one; empty after ``timeout`` seconds or ``wake``.

        The rest waits for the next call.
        """

    def remainder(self) -> list[Delivery]:
        """What has been taken from the server and not been received yet: the next of it, empty when that is all.

        For one that is about to close: nothing more is asked for.
        """
        return []

    def settle(self, deliveries: Sequence[Delivery]) -> None:  # noqa: B027  # most transports have nothing to do
        """Forget these deliveries: each receiver is done or has its held row. Nothing to do where not ``durable``."""

    def browse(self, channel: str, *, start: str = "-", end: str = "+", limit: int = 100) -> list[Delivery]:
        """Old events of a channel between two delivery ids, changing nothing. Empty where not ``durable``."""
        return []

    def keep(self) -> None:  # noqa: B027  # most transports have nothing to do
        """Hold on to the deliveries in hand. Called about every second by another thread, while they are processed."""

    def record(self) -> None:  # noqa: B027  # most transports have nothing to do
        """Write down in the database how far all is settled. Called about every two seconds, and never by the thread
        that calls ``keep``: a database may hang, and what is in hand must be held on to meanwhile.
        """

    @abstractmethod
    def wake(self) -> None:
        """Make a ``receive`` in another thread, or the next one, return at once. Safe in a signal handler."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections. The transport can be subscribed again."""

    def describe(self) -> str:
        """The server, for people: ``Valkey 9.1.2``; ``""`` when it will not say."""
        return ""
