"""The connection events leave by, and the announcements that go with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import announcements
from ..conf import conf
from ..exceptions import Unreachable
from .base import Outgoing
from .client import Command, ErrorReply, Wire, raise_refusals

ANNOUNCE_EVERY = 10.0
"""Seconds after which an announcement goes along again: the server may have lost everything."""
MOST_REMEMBERED = 10_000
"""Channels whose announcement is remembered; then all are forgotten, and announced again."""


class Outlet:
    """One connection for sending, made when it is needed and dropped when it fails.

    ``timeout`` bounds each exchange, in seconds; without one, PUBLISH_TIMEOUT does.
    """

    def __init__(self, location: str, *, timeout: float | None = None) -> None:
        self.location = location
        self._timeout = timeout
        self._wire: Wire | None = None
        self._announced: dict[str, float] = {}

    def publish(self, batch: Sequence[Outgoing], command: Callable[[Outgoing], Command]) -> None:
        """Send a batch in one round trip. Raises Unreachable, or Refused with what was refused."""
        raise_refusals(self.location, batch, self.exchange(batch, command))

    def exchange(self, batch: Sequence[Outgoing], command: Callable[[Outgoing], Command]) -> list[Any]:
        """The reply to each event's command, all in one round trip; an error reply is returned, not raised.

        The first event of each channel, and now and then another, takes its announcement along. Raises Unreachable.
        """
        due = time.monotonic() - ANNOUNCE_EVERY
        new = {outgoing.channel for outgoing in batch if self._announced.get(outgoing.channel, -1.0) < due}
        told = announcements.commands(new) if new else []
        replies = self.call([*told, *map(command, batch)])
        if not any(isinstance(reply, ErrorReply) for reply in replies[: len(told)]):
            if len(self._announced) + len(new) > MOST_REMEMBERED:
                self._announced.clear()
            self._announced |= dict.fromkeys(new, time.monotonic())
        return replies[len(told) :]

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to each command; error replies are returned, not raised. Raises Unreachable."""
        began = time.monotonic()
        wire = self._ready_wire()
        try:
            return wire.call(commands, since=began)  # connecting counts
        except Unreachable:
            self.close()
            raise

    def _ready_wire(self) -> Wire:
        if self._wire and self._wire.is_readable:
            self.close()
        if not self._wire:
            # A little less, so that the caller's whole wait stays within it.
            self._wire = Wire(self.location, timeout=self._timeout or 0.9 * conf.PUBLISH_TIMEOUT)
        return self._wire

    def close(self) -> None:
        """Give the connection back; the next call makes a new one."""
        if self._wire:
            self._wire.close()
        self._wire = None
