"""Pub/sub inside one process (``LOCATION: "memory://"``), for tests and single-process tools."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from ..conf import conf, glob
from .base import Delivery, Outgoing, Subscription, Transport


class MemoryTransport(Transport):
    """What pub/sub is, without a server: whoever is subscribed gets a copy, now."""

    durable: ClassVar[bool] = False
    grouped: ClassVar[bool] = False

    _subscribed: ClassVar[dict[str, list[MemoryTransport]]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._prefix = ""
        self._wanted: tuple[str, ...] = ()
        self._inbox: deque[Delivery] = deque()
        self._arrived = threading.Event()

    def send(self, batch: Sequence[Outgoing]) -> None:
        with self._lock:
            for outgoing in batch:
                for transport in self._subscribed.get(self.location, ()):
                    transport._offer(outgoing)

    def _offer(self, outgoing: Outgoing) -> None:
        name = conf.redis_name(outgoing.channel)
        if any(glob(pattern, name) for pattern in self._wanted):
            self._inbox.append(Delivery(channel=name.removeprefix(self._prefix), body=outgoing.body))
            self._arrived.set()

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        self.close()
        self._prefix = conf.redis_name("")
        self._wanted = tuple(dict.fromkeys(conf.redis_name(subscription.channel) for subscription in subscriptions))
        with self._lock:
            self._subscribed.setdefault(self.location, []).append(self)

    def receive(self, *, limit: int, timeout: float) -> list[Delivery]:
        if not self._inbox:
            self._arrived.wait(timeout)
        self._arrived.clear()
        return self._taken(limit)

    def remainder(self) -> list[Delivery]:
        return self._taken(conf.BATCH)

    def _taken(self, limit: int) -> list[Delivery]:
        return [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]

    def wake(self) -> None:
        self._arrived.set()

    def close(self) -> None:
        with self._lock:
            others = [transport for transport in self._subscribed.get(self.location, ()) if transport is not self]
            self._subscribed[self.location] = others

    def describe(self) -> str:
        return "memory"
