"""Watching channels from a script or a web process: in no group, settling nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from .codec import decode
from .conf import conf
from .events import Event
from .exceptions import ConfigurationError, DecodeError
from .routing import create, transport_name
from .transports.base import Subscription
from .wording import one_line

logger = logging.getLogger("redis_events.listen")

T = TypeVar("T")

LOOK_UP = 0.5
"""Seconds between two looks at the clock while nothing arrives."""


class subscribe:  # reads as the verb it is: `with subscribe("channel") as events:`
    """Watch channels: ``with subscribe("channel", "live.*") as events: for event in events: …``, or ``async for``.

    When the block begins, the server has confirmed the subscription. ``timeout`` is in seconds: iteration ends when
    nothing came for that long; without it, never. Messages that are no events are logged and left out. Raises
    ConfigurationError for channels of several transports, Unreachable or Refused at the start, and from the loop when
    the connection is lost.
    """

    def __init__(self, *channels: str, timeout: float | None = None) -> None:
        if not channels:
            raise TypeError("subscribe() needs at least one channel")
        self.timeout = timeout
        self._subscriptions = [Subscription(channel=channel) for channel in channels]
        self._transport = create(_common_transport(channels))
        self._is_over = False
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        self._is_over = False
        try:
            self._transport.subscribe(self._subscriptions)
        except BaseException:
            self._transport.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._transport.close()

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
        self._transport.wake()
        try:
            await self._in_thread(self._transport.close)
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
            events = [event for event in map(_read, self._transport.receive(limit=conf.BATCH, timeout=pause)) if event]
            if events:
                return events
        return []


def _common_transport(channels: Sequence[str]) -> str:
    names = {channel: transport_name(channel) for channel in channels}
    if len(set(names.values())) > 1:
        carried = ", ".join(f"{channel} by {name}" for channel, name in names.items())
        raise ConfigurationError(f"subscribe() watches one transport at a time: {carried}. Use one each.")
    return names[channels[0]]


def _read(delivery: Any) -> Event[Any] | None:
    try:
        return decode(delivery.body, channel=delivery.channel).read()
    except DecodeError as error:
        logger.warning("not an event, left out: %s", one_line(error))
        return None
