"""Watching streams from now on: in no group, settling nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .. import announcements
from ..conf import conf
from ..exceptions import Unreachable
from .base import Delivery, Subscription
from .client import Command, Waiter, Wire, by_name, milliseconds, refused, seconds_of
from .roads import BLOCK, MARGIN, delivery, is_error

TIMEOUT = 1.0


class StreamWatch:
    """XREAD over one connection. What is announced later and matches a pattern is watched from within POLL on."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._subscriptions: tuple[Subscription, ...] = ()
        self._waiter: Waiter | None = None
        self._wire: Wire | None = None
        self._care: Wire | None = None
        self._last: dict[str, str] = {}
        """The entry id each channel was read up to."""
        self._began = "0-0"
        self._asked_at: float | None = None
        self._next_look = 0.0

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Watch from now on. Raises Unreachable or Refused."""
        self._disconnect()
        self._subscriptions = tuple(subscriptions)
        self._wire, self._care = Wire(self.location, timeout=TIMEOUT), Wire(self.location, timeout=TIMEOUT)
        self._waiter = self._waiter or Waiter()
        self._waiter.add(self._wire)
        self._began = _before_now(self._call([("TIME",)])[0])
        self._last = {channel: self._end_of(channel) for channel in self._channels()}
        self._next_look = time.monotonic() + conf.POLL

    def receive(self, *, limit: int, timeout: float) -> list[Delivery]:
        """What was added since, as soon as there is some; empty after ``timeout`` seconds or ``wake``."""
        assert self._waiter
        deadline = time.monotonic() + timeout
        while True:
            self._look_for_new()
            self._ask(limit)
            wires, is_woken = self._waiter.wait(min(deadline, self._next_look) - time.monotonic())
            found = self._collect() if wires else []
            if found or is_woken or time.monotonic() >= deadline:
                return found
            self._refuse_silence()

    def wake(self) -> None:
        """Make a ``receive`` in another thread, or the next one, return at once."""
        waiter = self._waiter
        if waiter:
            waiter.wake()

    def close(self) -> None:
        """Give the connections back. It can be subscribed again."""
        self._disconnect()
        if self._waiter:
            self._waiter.close()
        self._waiter = None

    # -------------------------------------------------------------- channels

    def _channels(self) -> list[str]:
        assert self._care
        announced = announcements.read(self._care)
        names = (announcements.stream_channels(each.channel, announced) for each in self._subscriptions)
        return sorted({name for found in names for name in found})

    def _look_for_new(self) -> None:
        if time.monotonic() < self._next_look or self._asked_at is not None:
            return
        self._next_look = time.monotonic() + conf.POLL
        for channel in self._channels():
            self._last.setdefault(channel, self._began)

    def _end_of(self, channel: str) -> str:
        answer = self._call([("XINFO", "STREAM", conf.redis_name(channel))])[0]
        if is_error(answer):
            return "0-0"  # it begins later
        return str(by_name(answer)[b"last-generated-id"].decode())

    def _call(self, commands: list[Command]) -> list[Any]:
        assert self._care
        return self._care.call(commands)

    # -------------------------------------------------------------- reading

    def _ask(self, limit: int) -> None:
        if self._asked_at is not None or not self._last or not self._wire:
            return
        names = [conf.redis_name(channel) for channel in self._last]
        block = int(min(BLOCK, conf.POLL) * 1000)  # then is the time to look for new channels
        count = max(1, limit // len(names))
        self._wire.write([("XREAD", "COUNT", count, "BLOCK", block, "STREAMS", *names, *self._last.values())])
        self._asked_at = time.monotonic()

    def _collect(self) -> list[Delivery]:
        assert self._wire
        replies = self._wire.read(self._wire.timeout)
        if not replies:
            return []
        self._asked_at = None
        if is_error(replies[0]):
            raise refused(self.location, str(replies[0]))
        return self._deliveries(replies[0] or ())

    def _deliveries(self, answer: Any) -> list[Delivery]:
        names = {conf.redis_name(channel).encode(): channel for channel in self._last}
        found = [
            delivery(names[name], "", entry_id, fields) for name, entries in answer for entry_id, fields in entries
        ]
        self._last |= {each.channel: each.id for each in found}
        return found

    def _refuse_silence(self) -> None:
        if self._asked_at is not None and time.monotonic() - self._asked_at > BLOCK + MARGIN:
            raise Unreachable("no answer to a read")

    def _disconnect(self) -> None:
        if self._wire and self._waiter:
            self._waiter.remove(self._wire)
        for wire in filter(None, (self._wire, self._care)):
            wire.close()
        self._wire = self._care = None
        self._asked_at = None


def _before_now(answer: Any) -> str:
    """The last entry id before this millisecond of the server's clock, of ours where it may not be asked.

    What a new channel has of this very millisecond may have come after us.
    """
    return f"{milliseconds(seconds_of(answer) or time.time()) - 1}-{2**64 - 1}"
