"""Showing that this process is alive, and writing down how far it is, while its receivers run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import Error, close_old_connections, connections

from . import announcements, heartbeat, pauses
from .conf import conf
from .exceptions import Refused, TransportError
from .heartbeat import Card
from .pauses import Pause
from .registry import Receiver
from .tally import Tally
from .transports.base import Transport
from .transports.client import Wire
from .wording import one_line

logger = logging.getLogger("redis_events.listen")

BEAT = 1.0
"""Seconds between two heartbeats, at most."""
RECORD = 2.0
"""Seconds between two looks at how far everything is settled, at most."""
LOOK_EVERY = 10.0
"""Seconds between two looks at which streams are announced."""
NO_HEARTBEAT = "no heartbeat, others will take over what this listener has in hand"


class Keeper:
    """Beats, keeps what the transports have in hand, tells what was counted, and learns what other listeners have,
    what is paused and whether somebody wants this one to stop. No database in here: one that hangs would make a dead
    listener of a living one.
    """

    def __init__(
        self,
        own: Card,
        transports: Sequence[Transport],
        *,
        note: Callable[[list[Receiver]], None],
        note_paused: Callable[[frozenset[str]], None] = lambda names: None,
        leave: Callable[[], None] = lambda: None,
        in_flight: Callable[[], int] = lambda: 0,
        tally: Tally | None = None,
    ) -> None:
        self.own = own
        self._transports = transports
        self._note = note
        self._note_paused = note_paused
        self._leave = leave
        self._in_flight = in_flight
        self._tally = tally or Tally()
        self._wire: Wire | None = None
        self._stopping = threading.Event()
        self._next_look = 0.0
        self._paused: dict[str, Pause] = {}
        self._knows_paused = False
        """Whether the server has ever said what is paused."""
        self._is_asked = False
        """Whether it has passed on that somebody wants this listener to stop."""
        self._refusals: dict[str, str] = {}

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
            return self.begin()
        except TransportError:
            return False

    def begin(self) -> bool:
        """The first ``beat``. Raises TransportError: what is paused must be known before anything is run."""
        try:
            others = self._beat()
            for transport in self._transports:
                transport.keep()
        except Refused as error:
            self._complain(NO_HEARTBEAT, str(error))
            self._drop_wire()
            return False
        except TransportError:
            self._drop_wire()
            raise
        return any(card.service == self.own.service for card in others)

    def _beat(self) -> list[Card]:
        self._wire = self._wire or Wire(conf.LOCATION, timeout=1.0)
        self._look_for_streams(self._wire)
        own = heartbeat.as_it_is_now(self.own, in_flight=self._in_flight())
        # Again with each beat: the server may have lost everything.
        paused = [pauses.say_again(name, each, service=own.service) for name, each in self._paused.items()]
        said = [*announcements.commands(), *paused]
        also = [pauses.asked(), heartbeat.asked_to_stop(own.id), *said, *self._tally.commands()]
        heartbeat.beat(self._wire, own, also=also, hear=partial(self._hear, announced=len(said)))
        self._complain(NO_HEARTBEAT, "")
        others = [card for card in heartbeat.cards(self._wire) if card.id != self.own.id]
        same = [card for card in others if card.service == self.own.service]
        self._note([heartbeat.stand_in(each) for card in same for each in card.receivers])
        return others

    def _look_for_streams(self, wire: Wire) -> None:
        """Now and then, which there are to be counted."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_EVERY
            announced = announcements.read(wire)
            patterns = {each.channel for each in self.own.receivers}
            found = (announcements.stream_channels(pattern, announced) for pattern in patterns)
            self._tally.watch(sorted({channel for channels in found for channel in channels}))

    def _hear(self, answers: Sequence[Any], *, announced: int) -> None:
        """What came with the heartbeat; so many of the answers are to announcements."""
        paused, asked, *others = answers
        found = pauses.of_service(paused, self.own.service)
        if found is not None:
            self._learn_paused(found)
        self._complain("nobody can say what is paused", self._unknown(paused) if found is None else "")
        self._complain("statistics are not kept", self._tally.heard(others[announced:]))
        if isinstance(asked, bytes) and not self._is_asked:
            self._is_asked = True
            logger.warning("asked to stop by %s", one_line(asked.decode(errors="replace")))
            self._leave()

    def _unknown(self, answer: Any) -> str:
        """Why, and what comes of it. To wait for the right would hold up all receivers; nearly none is ever paused."""
        meanwhile = "what was paused stays so" if self._knows_paused else "every receiver runs, a paused one too"
        return f"{one_line(answer)} (until the server says, {meanwhile})"

    def _learn_paused(self, found: Mapping[str, Pause | None]) -> None:
        """A pause of which the server knows nothing any more stays: it was said once more with this very beat."""
        known = {**self._paused, **found}
        paused = {each.name: pause for each in self.own.receivers if (pause := known.get(each.name))}
        for name in sorted(paused.keys() - self._paused.keys()):
            who, parked = one_line(paused[name].by) or "somebody", "what comes by a stream is parked"
            logger.warning("%s was paused by %s: until it is resumed, %s", one_line(name), who, parked)
        for name in sorted(self._paused.keys() - found.keys()):
            logger.warning("the server has forgotten that %s is paused: it stays so", one_line(name))
        for name in sorted(self._paused.keys() - paused.keys()):
            logger.warning("%s was resumed", one_line(name))
        self._paused, self._knows_paused = paused, True
        self._note_paused(frozenset(paused))

    def _complain(self, what: str, why: str) -> None:
        """One line when it begins, and no other until it is over. ``why`` is empty when it is."""
        if why and not self._refusals.get(what):
            logger.error("%s: %s", what, why)
        self._refusals[what] = why

    def _retire(self) -> None:
        """Good-bye, and the last that was counted."""
        try:
            if self._wire:
                while not self._tally.is_told and not self._tally.heard(self._wire.call(self._tally.commands())):
                    pass  # a beat's worth at a time
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
