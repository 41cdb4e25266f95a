"""Showing that this process is alive, and writing down how far it is, while its receivers run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from django.db import Error, close_old_connections, connections

from . import announcements, heartbeat
from .conf import conf
from .exceptions import Refused, TransportError
from .heartbeat import Announced, Card
from .registry import Receiver
from .transports.base import Transport
from .transports.client import Wire

logger = logging.getLogger("redis_events.listen")

BEAT = 1.0
"""Seconds between two heartbeats, at most."""
RECORD = 2.0
"""Seconds between two looks at how far everything is settled, at most."""
ANNOUNCE_EVERY = 10.0


class Keeper:
    """Beats, keeps what the transports have in hand, and learns what other listeners have. No database in here: one
    that hangs would make a dead listener of a living one.
    """

    def __init__(
        self,
        own: Card,
        transports: Sequence[Transport],
        *,
        note: Callable[[list[Receiver]], None],
    ) -> None:
        self.own = own
        self._transports = transports
        self._note = note
        self._wire: Wire | None = None
        self._stopping = threading.Event()
        self._next_announcement = 0.0
        self._refusal = ""

    def run(self) -> None:
        """Beat once a second until ``stop``; then say good-bye."""
        while not self._stopping.wait(min(BEAT, conf.CLAIM_AFTER / 3)):
            self.beat()
        self._retire()

    def stop(self) -> None:
        """End ``run``."""
        self._stopping.set()

    def beat(self) -> bool:
        """Once round; whether other listeners of our service are alive. The listener tells of trouble with Redis."""
        try:
            others = self._beat()
            for transport in self._transports:
                transport.keep()
        except Refused as error:
            self._note_refusal(str(error))
            self._drop_wire()
            return False
        except TransportError:
            self._drop_wire()
            return False
        return any(card.service == self.own.service for card in others)

    def _beat(self) -> list[Card]:
        self._wire = self._wire or Wire(conf.LOCATION, timeout=1.0)
        self._announce(self._wire)
        heartbeat.beat(self._wire, self.own)
        self._refusal = ""
        others = [card for card in heartbeat.cards(self._wire) if card.id != self.own.id]
        same = [card for card in others if card.service == self.own.service]
        self._note([_receiver(each) for card in same for each in card.receivers])
        return others

    def _announce(self, wire: Wire) -> None:
        """Again and again: the server may have lost everything."""
        if time.monotonic() >= self._next_announcement:
            self._next_announcement = time.monotonic() + ANNOUNCE_EVERY
            wire.call(announcements.commands())

    def _note_refusal(self, why: str) -> None:
        if not self._refusal:
            logger.error("no heartbeat, others will take over what this listener has in hand: %s", why)
        self._refusal = why

    def _retire(self) -> None:
        try:
            if self._wire:
                heartbeat.retire(self._wire, self.own)
        except TransportError:
            logger.debug("no good-bye: the server is away")
        self._drop_wire()

    def _drop_wire(self) -> None:
        if self._wire:
            self._wire.close()
        self._wire = None


class Recorder:
    """What is kept in databases while receivers run: the claims of retries, and how far everything is settled."""

    def __init__(self, transports: Sequence[Transport], *, renew: Callable[[], None]) -> None:
        self._transports = transports
        self._renew = renew
        self._next_renewal = time.monotonic() + conf.CLAIM_AFTER / 3
        self._stopping = threading.Event()

    def run(self) -> None:
        """One round every two seconds, more often where CLAIM_AFTER is short, until ``stop``; and one at the end."""
        try:
            while not self._stopping.wait(min(RECORD, conf.CLAIM_AFTER / 3)):
                self.record()
            self.record()
        finally:
            connections.close_all()

    def stop(self) -> None:
        """End ``run``."""
        self._stopping.set()

    def record(self) -> None:
        """Once round. The listener tells of trouble with Redis, the retrier of trouble with a database."""
        close_old_connections()
        if time.monotonic() >= self._next_renewal:
            self._next_renewal = time.monotonic() + conf.CLAIM_AFTER / 3
            with suppress(Error):
                self._renew()
        for transport in self._transports:
            with suppress(TransportError):
                transport.record()


def _receiver(announced: Announced) -> Receiver:
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
