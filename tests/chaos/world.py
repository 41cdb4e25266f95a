"""Where trials happen: a Valkey with an append-only file, a database, a prepared process that forks the actors."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from redis_events import routing
from redis_events.codec import decode, encode
from redis_events.conf import conf
from redis_events.events import Event, now
from redis_events.models import HeldDelivery, OutboxEvent
from tests.proxy import Proxy
from tests.servers import Postgres, Server, wait_for

from .history import History
from .shop import receivers
from .shop.models import Effect, Order

PATIENCE = 20.0
"""Seconds an actor may take before it counts as hung."""
CHANNEL = "orders"
GROUP = "shop"
TABLES = ("shop_order", "shop_effect", "redis_events_helddelivery", "redis_events_channelstate")
TABLES += ("redis_events_outboxevent", "redis_events_inboxentry")


class World:
    """One server, one database, one trial at a time; each trial has a prefix of its own and empty tables."""

    def __init__(self, server: Server, folder: Path, postgres: Postgres | None = None) -> None:
        self.server = server
        self.postgres = postgres
        self.folder = folder
        self.proxy = Proxy(server)
        self.history = History(folder / "history")
        self.number = 0
        self._settings = settings.REDIS_EVENTS
        self._fresh = folder / "fresh.sqlite3"
        call_command("migrate", run_syncdb=True, verbosity=0)
        connections.close_all()
        if self.is_sqlite:
            shutil.copy(self._file, self._fresh)

    @property
    def is_sqlite(self) -> bool:
        return connections["default"].vendor == "sqlite"

    @property
    def _file(self) -> str:
        return str(settings.DATABASES["default"]["NAME"])

    def begin(self) -> None:
        """A new trial."""
        self.number += 1
        self.history.close()
        self.history = receivers.history = History(self.folder / "history")
        self._empty_tables()
        self.go_through(self.server.url)
        with self.server.client() as client:
            client.flushall()

    def _empty_tables(self) -> None:
        connections.close_all()
        if self.is_sqlite:
            for suffix in ("-journal", "-wal", "-shm"):
                Path(self._file + suffix).unlink(missing_ok=True)
            shutil.copy(self._fresh, self._file)
            return
        operations = connections["default"].ops
        operations.execute_sql_flush([f"DELETE FROM {operations.quote_name(table)}" for table in TABLES])

    def go_through(self, location: str) -> None:
        """What is forked from now on reaches the server there."""
        settings.REDIS_EVENTS = {**self._settings, "LOCATION": location, "PREFIX": f"t{self.number}"}
        conf.clear()
        routing.reset()

    @property
    def stream(self) -> str:
        return conf.redis_name(CHANNEL)

    # -------------------------------------------------------------- actors

    def fork(self, work: Callable[[], object]) -> int:
        """Start an actor; its pid."""
        connections.close_all()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            self.history.note("crashed", error=traceback.format_exc(limit=-6))
        finally:
            os._exit(code)

    def wait(self, *pids: int) -> None:
        """Until these actors have ended, in whatever way; one that hangs is killed and noted."""
        deadline = time.monotonic() + PATIENCE
        for pid in pids:
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    self.history.note("crashed", error="an actor hangs")
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.001)

    def run(self, work: Callable[[], object]) -> None:
        self.wait(self.fork(work))

    def wait_until_stopped(self, pid: int) -> bool:
        """Until an actor has frozen itself; False when it came to its end before. One that does neither is killed."""
        deadline = time.monotonic() + PATIENCE
        while (ended := os.waitpid(pid, os.WUNTRACED | os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                self.history.note("crashed", error="an actor hangs")
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        return os.WIFSTOPPED(ended[1])

    def wait_a_moment(self, pid: int, seconds: float = 0.3) -> None:
        """Until an actor has ended, or does not get any further; it is waited for later in any case."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.001)

    def pass_time(self) -> None:
        """What the dead have claimed is free again: heartbeats and claims of retries would be, some seconds later."""
        HeldDelivery.objects.filter(due__gt=now()).update(due=now())
        connections.close_all()
        with self.server.client() as client:
            client.delete(*client.scan_iter(f"{conf.PREFIX}:redis-events:listeners:*"), "none")

    # -------------------------------------------------------------- faults

    def flush(self) -> None:
        with self.server.client() as client:
            client.flushall()

    def delete_stream(self) -> None:
        with self.server.client() as client:
            client.delete(self.stream)

    def cut_file(self, dice: random.Random) -> None:
        """A power cut that takes the end of the append-only file along."""
        self.server.kill()
        file = max(self.server.dir.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime)
        os.truncate(file, int(file.stat().st_size * dice.uniform(0.3, 1.0)))
        self.server.start()

    def restart_database(self) -> None:
        """kill -9; what its orphans still hold keeps a new one from starting for a moment."""
        assert self.postgres
        self.postgres.kill()
        wait_for(self._database_starts, timeout=15, what="PostgreSQL to start again")

    def _database_starts(self) -> bool:
        assert self.postgres
        with suppress(RuntimeError):
            self.postgres.start()
            return True
        return False

    def shorten_retention(self) -> None:
        """For what is forked from now on, RETENTION is over for all there is."""
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "RETENTION": 0.001}
        conf.clear()

    def add_twins(self) -> None:
        """Events of another service with the ids of ours."""
        with self.server.client() as client:
            for _, _, event, body in self.entries(client):
                order = json.loads(body)["data"]["id"] + 1_000
                twin = Event(data={"id": order, "kind": "good"}, type="billing.order.created", source="billing",
                             channel=CHANNEL, key=str(order), id=event)  # fmt: skip
                client.xadd(self.stream, {"event": encode(twin)})
                self.history.note("sent", order=order, kind="good")

    # -------------------------------------------------------------- looking

    def entries(self, client: redis.Redis) -> list[tuple[str, str, str, bytes]]:
        """The entry id, source, event id and bytes of all that is in the stream."""
        found = []
        for id, fields in client.xrange(self.stream):
            body = fields[b"event"]
            envelope = decode(body, channel=CHANNEL).envelope
            found.append((id.decode(), envelope.source, envelope.id, body))
        return found

    def note_snapshot(self) -> None:
        """What is settled at this moment, and what is committed."""
        with self.server.client() as client:
            settled = self._settled(client)
        done = [list(each) for each in Effect.objects.values_list("source", "event_id", "receiver")]
        held = HeldDelivery.objects.values_list("source", "event_id", "receiver")
        done += [[source, event, _short(receiver)] for source, event, receiver in held]
        connections.close_all()
        self.history.note("snapshot", settled=settled, done=done)

    def _settled(self, client: redis.Redis) -> list[list[str]]:
        group = self._group(client)
        if group is None:
            return []
        last = _key(group["last-delivered-id"].decode())
        pending = {each["message_id"].decode() for each in client.xpending_range(self.stream, GROUP, "-", "+", 10_000)}
        entries = self.entries(client)
        return [[source, event] for id, source, event, _ in entries if _key(id) <= last and id not in pending]

    def _group(self, client: redis.Redis) -> dict[str, Any] | None:
        if not self._is_there(client):
            return None
        groups = {each["name"]: each for each in client.xinfo_groups(self.stream)}
        return groups.get(GROUP.encode())

    def _is_there(self, client: redis.Redis) -> bool:
        return bool(client.type(self.stream) == b"stream")

    def note_end(self) -> None:
        """All there is to find when everything has come to rest."""
        for pk, kind in Order.objects.values_list("pk", "kind"):
            self.history.note("order", order=pk, kind=kind)
        for each in Effect.objects.all():
            facts = {"source": each.source, "event": each.event_id, "order": each.order, "receiver": each.receiver}
            self.history.note("effect", **facts)
        for row in HeldDelivery.objects.all():
            facts = {"state": row.state, "receiver": _short(row.receiver), "key": row.key or "0", "event": row.event_id}
            self.history.note("held", **facts, body=bytes(row.raw).decode())
        self._note_left()
        connections.close_all()

    def _note_left(self) -> None:
        with self.server.client() as client:
            for _, source, event, body in self.entries(client) if self._is_there(client) else ():
                self.history.note("entry", source=source, event=event, body=body.decode())
        for where, count in self.left().items():
            self.history.note("left", where=where, count=count)

    def note_unsent(self) -> None:
        """A relay has just looked, after all that was written was committed: then nothing is unsent."""
        count = self.left().get("outbox")
        connections.close_all()
        if count:
            self.history.note("left", where="the outbox, right after a relay has looked", count=count)

    def left(self) -> dict[str, int]:
        """What is not done yet, by place."""
        with self.server.client() as client:
            counts = self._unsettled(client)
        counts["outbox"] = OutboxEvent.objects.filter(sent_ms=None, discarded=False).count()
        counts["held"] = HeldDelivery.objects.filter(state=HeldDelivery.State.WAITING).count()
        return {where: count for where, count in counts.items() if count}

    def _unsettled(self, client: redis.Redis) -> dict[str, int]:
        if not self._is_there(client):
            return {}
        group = self._group(client)
        if group is None:
            return {"stream": client.xlen(self.stream)}
        after = client.xrange(self.stream, min=f"({group['last-delivered-id'].decode()}")
        return {"stream": len(after), "pending": int(group["pending"])}

    def close(self) -> None:
        connections.close_all()
        self.proxy.close()


def _short(receiver: str) -> str:
    return receiver.rpartition(".")[2]


def _key(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)
