"""The relay: moves what is unsent in the outboxes to Redis, for whoever wrote it and could not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from django.db import Error, close_old_connections, connections

from . import outbox
from .conf import conf
from .exceptions import Refused, TransportError, Unreachable
from .outbox import LIMIT, Round, is_of_channel
from .retry import backoff
from .transports.client import ErrorReply, Waiter, Wire, refused
from .transports.stream import StreamTransport
from .wording import one_line

logger = logging.getLogger("redis_events.relay")

TIMEOUT = 0.9
"""Seconds for one exchange with the server; the transaction around it is to be over in one."""
SELDOM = 10.0
"""Seconds between two looks where no channel has an OUTBOX: rows may be left from when one had."""


class Relay:
    """Empties the outboxes of some databases. Any number of relays may do so side by side.

    ``heal`` is called at each connect and then once every POLL; it may raise TransportError and django.db.Error.
    """

    def __init__(self, aliases: Sequence[str], *, heal: Callable[[], None] | None = None) -> None:
        self.aliases = aliases
        self.relayed = 0
        self._heal = heal
        self._transport = StreamTransport(conf.LOCATION, timeout=TIMEOUT)
        self._waiter = Waiter()
        self._wire: Wire | None = None
        self._stopping = False
        self._limit = LIMIT
        self._attempt = 0
        self._next_heal = 0.0
        self._away: set[str] = set()
        """The databases in trouble."""
        self._aside: dict[str, float] = {}
        """Refused channels, and when each is tried again."""

    def connect(self) -> None:
        """Be woken by commits from now on. Raises Unreachable or Refused."""
        self._disconnect()
        wire = Wire(conf.LOCATION, timeout=1.0)
        answer = wire.call([("SUBSCRIBE", conf.wake_channel)])[0]
        if isinstance(answer, ErrorReply):
            wire.close()
            raise refused(conf.LOCATION, str(answer))
        self._waiter.add(wire)
        self._wire, self._next_heal = wire, 0.0

    def run(self) -> None:
        """Send what is unsent, at each wake and every POLL, until ``stop``."""
        try:
            while not self._stopping:
                self._wait(self._round())
        finally:
            self.close()
            connections.close_all()

    def stop(self) -> None:
        """End ``run`` after the transaction in hand."""
        self._stopping = True
        self._waiter.wake()

    def drain(self) -> None:
        """Send what is unsent now. Raises TransportError; a database that is away keeps its rows."""
        for alias in self.aliases:
            self._empty(alias)

    def close(self) -> None:
        """Give the connections to Redis back."""
        self._disconnect()
        self._transport.close()

    # -------------------------------------------------------------- one round

    def _round(self) -> float:
        """Once round the databases; seconds until the next."""
        close_old_connections()
        try:
            if self._wire is None:
                self.connect()
            self._heal_if_due()
            self.drain()
        except TransportError as error:
            return self._note_trouble(error)
        self._note_success()
        return conf.POLL if any(entry.OUTBOX for entry in conf.CHANNELS.values()) else max(SELDOM, conf.POLL)

    def _heal_if_due(self) -> None:
        if self._heal and time.monotonic() >= self._next_heal:
            self._next_heal = time.monotonic() + conf.POLL
            try:
                self._heal()
            except Error as error:
                logger.debug("not looked after what the server may have lost: %s", error)

    def _empty(self, alias: str) -> None:
        try:
            while self._send_some(alias) and not self._stopping:
                pass
        except Error as error:
            if alias not in self._away:
                logger.error("cannot read the outbox of %r, trying again: %s", alias, one_line(error))
            self._away.add(alias)
            connections[alias].close_if_unusable_or_obsolete()
            return
        if alias in self._away:
            logger.warning("reading the outbox of %r again", alias)
        self._away.discard(alias)

    def _send_some(self, alias: str) -> bool:
        """One transaction; whether there is more to send. Half as much after each one that got no answer."""
        try:
            done = outbox.send_some(self._transport, using=alias, skip=self._put_aside(), limit=self._limit)
        except Unreachable:
            self._limit = max(1, self._limit // 2)
            raise
        self._limit = min(LIMIT, 2 * self._limit)
        self.relayed += len(done.sent)
        self._note_refusals(done)
        return done.has_more or bool(done.refused)

    # -------------------------------------------------------------- trouble

    def _put_aside(self) -> list[str]:
        return [channel for channel, until in self._aside.items() if time.monotonic() < until]

    def _note_refusals(self, done: Round) -> None:
        """One line per change of state; a refused channel is put aside for a while, so that the others go on."""
        for channel, answer in done.refused.items():
            if not is_of_channel(answer):
                raise Refused(answer)
            if channel not in self._aside:
                logger.error("events for %s wait in the outbox: %s", channel, one_line(answer))
            self._aside[channel] = time.monotonic() + max(conf.POLL, conf.RECONNECT_MAX)
        for channel in sorted({each.channel for each in done.sent} & self._aside.keys() - done.refused.keys()):
            logger.warning("events for %s leave the outbox again", channel)
            del self._aside[channel]

    def _note_trouble(self, error: TransportError) -> float:
        """One line per change of state; seconds until the next try."""
        if not self._attempt:
            logger.error("cannot relay, events wait in the outbox: %s", error)
        self._attempt += 1
        self._disconnect()
        return backoff(self._attempt)

    def _note_success(self) -> None:
        if self._attempt:
            logger.warning("relaying again")
        self._attempt = 0

    def _wait(self, seconds: float) -> None:
        """Until the next round is due or somebody calls: a commit through Redis, or ``stop``."""
        if self._stopping:
            return
        wires, _ = self._waiter.wait(seconds)
        try:
            for wire in wires:
                wire.read(1.0)
        except TransportError:
            self._disconnect()  # the next round connects again

    def _disconnect(self) -> None:
        if self._wire:
            self._waiter.remove(self._wire)
            self._wire.close()
        self._wire = None
