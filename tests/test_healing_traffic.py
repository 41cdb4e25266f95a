"""Healing under traffic: senders, listeners and the relay go on while the server loses what it had.

LONG=1 runs the same with the numbers the promise is measured with.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import connections, transaction

from redis_events.conf import conf
from redis_events.events import now
from redis_events.exceptions import TransportError
from redis_events.floors import parse
from redis_events.healing import Healer
from redis_events.listening import Listener
from redis_events.models import OutboxEvent
from redis_events.transports.stream import StreamTransport
from tests.listeners import document, receiver
from tests.servers import Server, needs, wait_for
from tests.torn import Torn

LONG = bool(os.environ.get("LONG"))
CHANNEL = "orders"
GROUPS = ("", "search")
DISASTERS = {"flush": 20, "cut": 30, "promote": 5} if LONG else {"flush": 3, "cut": 5, "promote": 2}

pytestmark = pytest.mark.usefixtures("real_transactions")


@pytest.fixture(params=["", "redis7"], ids=["default", "redis7"])
def server_to_lose(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(aof=True, binary=needs(request.param) if request.param else "") as server:
        yield server


@pytest.fixture
def traffic(server_to_lose: Server, events_settings: dict[str, Any], settings: Any, postgres_alias: str) -> Any:
    settings.REDIS_EVENTS = {
        **events_settings,
        "LOCATION": server_to_lose.url,
        "CHANNELS": {CHANNEL: {"OUTBOX": True}},
        "POLL": 0.05,
        "RECONNECT_MAX": 0.2,
    }
    traffic = Traffic(server_to_lose, postgres_alias)
    yield traffic
    traffic.stop()


class Traffic:
    """Two senders that write and send, two groups that listen, a relay that heals: each in its thread."""

    def __init__(self, server: Server, using: str) -> None:
        self.server = server
        self.using = using
        self.written: set[int] = set()
        self.runs: dict[str, Counter[int]] = {group: Counter() for group in GROUPS}
        self.is_writing = True
        self.stopping = threading.Event()
        self.healer = Healer(using)
        self.listeners = [self._listener(group) for group in GROUPS]
        loops = [partial(self._repeat, self._send, pause=0.01)] * 2 + [partial(self._repeat, self._heal, pause=0.05)]
        self.threads = [threading.Thread(target=each) for each in [*loops, *(one.run for one in self.listeners)]]

    def start(self) -> None:
        for listener in self.listeners:
            listener.connect()
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for listener in self.listeners:
            listener.stop()
        for thread in self.threads:
            thread.join(10)
        self.healer.close()

    def _listener(self, group: str) -> Listener:
        def note(event: Any) -> None:
            self.runs[group][event.data] += 1

        return Listener(StreamTransport(conf.LOCATION), [receiver(note, CHANNEL, group=group)])

    def _repeat(self, work: Callable[[], None], *, pause: float) -> None:
        try:
            while not self.stopping.wait(pause):
                try:
                    work()
                except (TransportError, redis.RedisError, OSError):
                    continue
        finally:
            connections.close_all()

    def _heal(self) -> None:
        self.healer.poll()
        for listener in self.listeners:
            listener.transport.record()

    def _send(self) -> None:
        if self.is_writing:
            self._write(random.randrange(1, 10))
        with transaction.atomic(using=self.using), self.server.client() as client:
            unsent = OutboxEvent.objects.using(self.using).filter(sent_ms=None, discarded=False).order_by("pk")
            rows = list(unsent.select_for_update(skip_locked=True)[:50])
            for row in rows:
                row.sent_ms, row.sent_seq = parse(client.xadd(self.stream, {"event": bytes(row.body)}).decode())  # type: ignore[union-attr]
            time.sleep(random.random() / 50)  # the cut may come between the XADD and the COMMIT
            OutboxEvent.objects.using(self.using).bulk_update(rows, ["sent_ms", "sent_seq"])

    @property
    def stream(self) -> str:
        return conf.redis_name(CHANNEL)

    def _write(self, number: int) -> None:
        for _ in range(number):
            data = random.getrandbits(48)
            body = document(data)
            OutboxEvent.objects.using(self.using).create(
                channel=CHANNEL, event_id=str(data), type="t", key="", body=body, created_at=now()
            )
            self.written.add(data)

    def is_done(self) -> bool:
        if OutboxEvent.objects.using(self.using).filter(sent_ms=None).exists() or self.healer._healings:
            return False
        return all(self.written <= runs.keys() for runs in self.runs.values())


def test_no_event_is_lost_whatever_the_server_loses_while_everybody_works(traffic: Traffic, tmp_path: Path) -> None:
    torn, chance = Torn(traffic.server), random.Random(7)
    disasters = [name for name, times in DISASTERS.items() for _ in range(times)]
    chance.shuffle(disasters)
    traffic.start()
    for number, disaster in enumerate(disasters):
        size = torn.size()
        torn.copy(tmp_path / str(number))
        time.sleep(0.2 + chance.random() / 2)
        if disaster == "flush":
            traffic.server.client().flushall()
        elif disaster == "cut":
            torn.cut(chance.randrange(size, torn.size()))
        else:
            torn.promote(tmp_path / str(number))
    traffic.is_writing = False
    wait_for(traffic.is_done, timeout=60, what="every event in every group")
    again = {group or "shop": sum(runs.values()) - len(runs) for group, runs in traffic.runs.items()}
    print(f"{len(disasters)} losses, {len(traffic.written):,} events, 0 lost; runs again: {again}")
