"""Watching channels from a script or a web process: in no group, settling nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from . import announcements
from .announcements import STREAM, Announcement
from .codec import decode
from .conf import conf
from .events import Event
from .exceptions import DecodeError
from .routing import create, is_memory, transport_name
from .transports.base import Delivery, Subscription, Transport
from .transports.watching import StreamWatch
from .wording import one_line

logger = logging.getLogger("redis_events.listen")

T = TypeVar("T")

LOOK_UP = 0.5
"""Seconds between two looks at the clock while nothing arrives."""
TURN = 0.05
"""Seconds one transport is waited for when there are several."""

Watch = Transport | StreamWatch


class subscribe:  # reads as the verb it is: `with subscribe("channel") as events:`
    """Watch channels: ``with subscribe("channel", "live.*") as events: for event in events: …``, or ``async for``.

    When the block begins, the server has confirmed the subscription; of a stream what is added from then on is seen.
    ``timeout`` is in seconds: iteration ends when nothing came for that long; without it, never. Messages that are no
    events are logged and left out. Raises Unreachable or Refused at the start, and from the loop when the connection
    is lost.
    """

    def __init__(self, *channels: str, timeout: float | None = None) -> None:
        if not channels:
            raise TypeError("subscribe() needs at least one channel")
        self.timeout = timeout
        self._channels = channels
        self._watches: list[Watch] = []
        self._is_over = False
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        self._is_over = False
        try:
            for name, channels in _plan(self._channels).items():
                self._watches.append(StreamWatch(conf.LOCATION) if name == STREAM else create(name))
                self._watches[-1].subscribe([Subscription(channel=channel) for channel in channels])
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        for watch in self._watches:
            watch.close()
        self._watches = []

    async def __aenter__(self) -> Self:
        # A thread of our own: a few idle watchers would hold every thread of the event loop's pool.
        self._executor = ThreadPoolExecutor(1, "redis_events-subscribe")
        try:
            return await self._in_thread(self.__enter__)
        except BaseException:
            self._executor.shutdown(wait=False)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._executor
        self._is_over = True
        for watch in self._watches:
            watch.wake()
        try:
            await self._in_thread(self._close)
        finally:
            self._executor.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def __iter__(self) -> Iterator[Event[Any]]:
        while batch := self._next_batch():
            yield from batch

    async def __aiter__(self) -> AsyncIterator[Event[Any]]:
        while batch := await self._in_thread(self._next_batch):
            for event in batch:
                yield event

    def _next_batch(self) -> list[Event[Any]]:
        """The next events, at least one; none when ``timeout`` is over."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        while not self._is_over and (deadline is None or time.monotonic() < deadline):
            pause = LOOK_UP if deadline is None else min(LOOK_UP, deadline - time.monotonic())
            events = [event for event in map(_read, self._receive(pause)) if event]
            if events:
                return events
        return []

    def _receive(self, timeout: float) -> list[Delivery]:
        """From the one transport there is, or from each in turn."""
        if len(self._watches) == 1:
            return self._watches[0].receive(limit=conf.BATCH, timeout=timeout)
        turn = min(timeout, TURN)
        return [each for watch in self._watches for each in watch.receive(limit=conf.BATCH, timeout=turn)]


def _plan(channels: Sequence[str]) -> dict[str, list[str]]:
    """The channels to watch on each transport. Raises TransportError when it takes asking and nobody answers."""
    is_known = is_memory() or all(channel in conf.CHANNELS for channel in channels)
    announced = [] if is_known else announcements.fetch(timeout=1.0)
    plan: dict[str, list[str]] = {}
    for channel in channels:
        for name in _transports(channel, announced):
            plan.setdefault(name, []).append(channel)
    return plan


def _transports(channel: str, announced: Sequence[Announcement]) -> list[str]:
    """What carries a channel; a pattern covers channels of both kinds where there are streams at all."""
    name = transport_name(channel, announced)
    if "*" not in channel or name not in ("pubsub", STREAM):
        return [name]
    said = [each.TRANSPORT for each in conf.CHANNELS.values()] + [each.transport for each in announced]
    return ["pubsub", STREAM] if STREAM in said else ["pubsub"]


def _read(delivery: Delivery) -> Event[Any] | None:
    id = f"{delivery.channel}/{delivery.id}" if delivery.id else ""
    try:
        return decode(delivery.body, channel=delivery.channel, id=id, is_document=delivery.is_document).read()
    except DecodeError as error:
        logger.warning("not an event, left out: %s", one_line(error))
        return None
