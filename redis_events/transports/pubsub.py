"""Redis pub/sub: every listener that is there, now; at most once."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from ..conf import conf, glob
from ..exceptions import Refused, TransportError, Unreachable
from .base import Delivery, Outgoing, Subscription, Transport
from .client import Command, ErrorReply, Waiter, Wire, refused, server_name
from .outlet import Outlet

QUIET = 2.0
"""Seconds without a byte after which the server is asked for a PONG, and given as long again for it."""
MOST_PATTERNS = 256
"""Patterns a listener may subscribe to: each makes every PUBLISH on the server dearer, for everybody.

10,000 of them cost each PUBLISH 160 to 460 µs; 10,000 exact channels nothing.
"""
MOST_REMEMBERED = 10_000


class PubSubTransport(Transport):
    """PUBLISH on one side, SUBSCRIBE and PSUBSCRIBE on the other."""

    durable: ClassVar[bool] = False
    grouped: ClassVar[bool] = False

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._outlet = Outlet(location)
        self._wire: Wire | None = None
        self._waiter: Waiter | None = None
        self._subscriptions: tuple[str, ...] = ()
        self._wanted: dict[tuple[bytes, bytes], str | None] = {}
        self._arrived: list[Delivery] = []
        self._asked: float | None = None

    # -------------------------------------------------------------- sending

    def send(self, batch: Sequence[Outgoing]) -> None:
        self._outlet.publish(batch, _publication)

    # -------------------------------------------------------------- receiving

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """SUBSCRIBE and PSUBSCRIBE, on a new connection. Raises Refused for more than 256 patterns."""
        self._disconnect()
        names = dict.fromkeys(subscription.channel for subscription in subscriptions)
        exact = [name for name in names if "*" not in name]
        patterns = [name for name in names if "*" in name]
        if len(patterns) > MOST_PATTERNS:
            raise Refused(f"{len(patterns)} patterns; a listener may subscribe to {MOST_PATTERNS}. Name the channels.")
        self._subscriptions = (*exact, *patterns)
        self._wanted.clear()
        self._wire = Wire(self.location, timeout=max(1.0, conf.PUBLISH_TIMEOUT))
        self._waiter = self._waiter or Waiter()
        self._waiter.add(self._wire)
        self._confirm(_in_chunks("SUBSCRIBE", exact) + _in_chunks("PSUBSCRIBE", [_escaped(name) for name in patterns]))
        self.heard, self._asked = time.monotonic(), None

    def _confirm(self, commands: list[Command]) -> None:
        """Wait for the confirmation of each name. What is published meanwhile is kept for ``receive``."""
        assert self._wire
        expected = sum(len(command) - 1 for command in commands)
        deadline = time.monotonic() + self._wire.timeout
        self._wire.write(commands)
        while expected > 0:
            replies = self._wire.read(deadline - time.monotonic())
            expected -= sum(map(self._is_confirmation, replies))
            self._arrived += self._deliveries(replies)

    def _is_confirmation(self, reply: Any) -> bool:
        if isinstance(reply, ErrorReply):
            raise refused(self.location, str(reply)) from reply
        return reply[0] in (b"subscribe", b"psubscribe")

    def receive(self, *, limit: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        while not self._arrived and self._await_bytes(deadline):
            assert self._wire
            self._arrived = self._deliveries(self._wire.read(self._wire.timeout))
            self.heard, self._asked = time.monotonic(), None
        if 0 < len(self._arrived) < limit and self._wire and self._wire.is_readable:
            self._top_up()
        deliveries, self._arrived = self._arrived[:limit], self._arrived[limit:]
        return deliveries

    def remainder(self) -> list[Delivery]:
        arrived, self._arrived = self._arrived[: conf.BATCH], self._arrived[conf.BATCH :]
        return arrived

    def _top_up(self) -> None:
        """Take what is there besides: a read brings a batch and a bit, and a bit costs what a batch does."""
        assert self._wire
        with suppress(TransportError):  # the next call meets it again; what has arrived comes first
            self._arrived += self._deliveries(self._wire.read(self._wire.timeout))

    def _await_bytes(self, deadline: float) -> bool:
        """Wait until there is something to read; False at the deadline or when woken. Keeps asking for a PONG."""
        if self._wire is None or self._waiter is None:
            raise Unreachable("not subscribed")
        while not self._wire.has_buffered:
            ready, woken = self._waiter.wait(min(deadline, self._next_care()) - time.monotonic())
            if ready or woken:
                return bool(ready)
            if time.monotonic() >= deadline:
                return False
            self._take_care()
        return True

    def _next_care(self) -> float:
        return (self.heard if self._asked is None else self._asked) + QUIET

    def _take_care(self) -> None:
        """A half-open connection is silent for ever: ask, and give up when nothing comes back."""
        if time.monotonic() < self._next_care():
            return
        assert self._wire
        if self._asked is not None:
            raise Unreachable(f"no PONG within {QUIET:g} s")
        self._wire.write([("PING",)])
        self._asked = time.monotonic()

    def _deliveries(self, replies: list[Any]) -> list[Delivery]:
        found = []
        for reply in replies:
            if isinstance(reply, ErrorReply):  # a server that forbids PING is alive all the same
                continue
            if reply[0] == b"message":
                key, body = (b"", reply[1]), reply[2]
            elif reply[0] == b"pmessage":
                key, body = (reply[1], reply[2]), reply[3]
            else:
                continue
            try:
                channel = self._wanted[key]
            except KeyError:
                channel = self._decide(*key)
            if channel is not None:
                found.append(Delivery(channel=channel, body=body))
        return found

    def _decide(self, pattern: bytes, name: bytes) -> str | None:
        """The channel a message came by, None when an earlier one of our subscriptions brings it too."""
        if len(self._wanted) >= MOST_REMEMBERED:
            self._wanted.clear()
        prefix = conf.redis_name("")
        channel = name.decode(errors="backslashreplace")[len(prefix) :]
        first = next((own for own in self._subscriptions if glob(own, channel)), None)
        is_first = first is not None and (not pattern or conf.redis_name(_escaped(first)).encode() == pattern)
        self._wanted[pattern, name] = channel if is_first else None
        return self._wanted[pattern, name]

    def wake(self) -> None:
        waiter = self._waiter
        if waiter:
            waiter.wake()

    def close(self) -> None:
        self._disconnect()
        self._outlet.close()
        if self._waiter:
            self._waiter.close()
        self._waiter = None

    def _disconnect(self) -> None:
        if self._wire and self._waiter:
            self._waiter.remove(self._wire)
        if self._wire:
            self._wire.close()
        self._wire = None
        self._arrived = []

    def describe(self) -> str:
        return server_name(self.location)


def _publication(outgoing: Outgoing) -> Command:
    return ("PUBLISH", conf.redis_name(outgoing.channel), outgoing.body)


def _in_chunks(command: str, names: list[str], size: int = 500) -> list[Command]:
    """One command for each 500 names, so that no single one keeps the server busy for long."""
    return [(command, *map(conf.redis_name, names[at : at + size])) for at in range(0, len(names), size)]


def _escaped(pattern: str) -> str:
    """A pattern in which only ``*`` is special, as Redis wants it written: its glob knows more."""
    return re.sub(r"([\[\]?\\^])", r"\\\1", pattern)
