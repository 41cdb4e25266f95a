"""Services that really run, and what became of their events; everything the admin has to show."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import redis

from redis_events.heartbeat import ALIVE
from tests.browser.naughty import XSS
from tests.processes import Process, Project
from tests.servers import Server, free_port, wait_for

CHANNELS = {
    "shop.orders": {"TRANSPORT": "stream"},
    "shop.refunds": {"OUTBOX": True},
    "stock.*": {"TRANSPORT": "stream"},
    "trial.*": {"TRANSPORT": "stream"},
    "steady.work": {"TRANSPORT": "stream"},
    "hanging.work": {"TRANSPORT": "stream"},
    "guestbook": {"TRANSPORT": "stream"},
    "live.*": {"TRANSPORT": "pubsub"},
}
SERVED = ("shop.orders", "trial.*", "steady.work", "live.*")
DEAD = 12 + 4 + 2


class World:
    """A server, the service `shop` with its site, and two others; all of them end with `close()`."""

    def __init__(self, folder: Path, *, database: Path) -> None:
        self.server = Server()
        self.folder = folder
        self.database = database
        self.projects: list[Project] = []
        self.shop = self.service("shop")
        self.shop.settings["CHANNELS"] = CHANNELS
        self.shop.env["DJANGO_SETTINGS_MODULE"] = "tests.browser.settings"
        self.shop.env["TEST_STATIC_ROOT"] = str(folder / "static")
        self.sites: list[Process] = []
        self.address = ""
        self.paths: dict[str, str] = {}

    def service(self, name: str) -> Project:
        """A service of this world, migrated."""
        project = Project(self.folder / name, location=self.server.url, service=name)
        project.env["TEST_APPS"] = f"tests.browser.{name}"
        shutil.copy(self.database, project.folder / "db.sqlite3")
        self.projects.append(project)
        return project

    # ------------------------------------------------------------- what is in it

    def furnish(self) -> Self:
        """Let all of it happen: events, failures, a group left behind, a pause, rows that could not leave."""
        self.fill("people", "first")
        drained = self.service("search").manage("listen_events", "--drain", "--no-relay")
        assert drained.wait(30) == 0, drained.output
        for service in (self.shop, self.shop, self.service("billing")):
            self.listen(service)
        self.fill("failures", "texts", "channels")
        self.strangers()
        wait_for(lambda: self.held("dead") == DEAD and self.held("waiting"), timeout=30, what="dead letters")
        self.park("shop.receivers.index")
        self.fill("unsent", TEST_LOCATION="redis://127.0.0.1:1/0")
        return self

    def fill(self, *parts: str, **env: str) -> None:
        """Run parts of `shop/fill.py`."""
        process = self.shop.python("-m", "tests.browser.shop.fill", *parts, **env)
        assert process.wait(30) == 0, process.output

    def listen(self, project: Project, *channels: str) -> Process:
        """A listener, once it listens."""
        process = project.manage("listen_events", "--no-relay", "--channels", *(channels or SERVED))
        process.wait_for_line("Listening on ", timeout=30)
        return process

    def park(self, receiver: str) -> None:
        """Pause a receiver, and go on until runs of it are parked."""
        self.shop.shell(f"from redis_events import inspection\ninspection.pause({receiver!r}, who='ada')")
        wait_for(lambda: self.fill("last") or self.held("parked"), timeout=30, what="parked runs")

    def until_listeners_know(self) -> None:
        """Wait until each listener has had a heartbeat since this moment: it reads then what is paused."""
        began = time.monotonic()
        with self.server.client() as client:
            keys = list(client.scan_iter("redis-events:listeners:*"))
            wait_for(
                lambda: all(_has_beaten(client, key, since=began) for key in keys), timeout=10, what="their heartbeats"
            )

    def strangers(self) -> None:
        """Another client's group and consumer, of any bytes; and bytes that are no event."""
        with self.server.client() as client:
            client.xgroup_create("guestbook", XSS, id="0")
            client.xreadgroup(XSS, f"consumer {XSS}", {"guestbook": ">"}, count=3)
            client.xadd("guestbook", {"event": '{"specversion": "1.0"'})
            client.xadd("guestbook", {XSS: XSS, "colour": "red"})

    # ------------------------------------------------------------------- the site

    def open(self) -> Self:
        """Start the site that all tests share."""
        self.address = self.serve()
        return self

    def serve(self, *, threads: int = 4, **env: str) -> str:
        """Start a site on the shop, its settings changed by `env`; returns its address.

        Chromium opens connections in advance; a worker without threads, and no proxy before it, waits for each of them.
        """
        collected = self.shop.manage("collectstatic", "--no-input", "--verbosity", "0", **env)
        assert collected.wait(60) == 0, collected.output
        where = f"127.0.0.1:{free_port()}"
        size = ("-w", "2", "--threads", str(threads))
        site = self.shop.python("-m", "gunicorn", "-b", where, *size, "tests.browser.wsgi:application", **env)
        self.sites.append(site)
        site.wait_for_line("Listening at", timeout=30)
        return f"http://{where}"

    # ------------------------------------------------------------- what it came to

    def held(self, state: str, *, fingerprint: str = "%", type: str = "%") -> int:
        """Held deliveries of the shop, counted."""
        return int(
            self.sql(
                "SELECT count(*) FROM redis_events_helddelivery WHERE state = ? AND fingerprint LIKE ? AND type LIKE ?",
                state, fingerprint, type,
            )[0][0]
        )  # fmt: skip

    def sql(self, query: str, *parameters: Any) -> list[Any]:
        """Rows of the shop's database."""
        with closing(sqlite3.connect(self.shop.folder / "db.sqlite3", timeout=20)) as connection:
            return connection.execute(query, parameters).fetchall()

    def runs(self, type: str) -> list[str]:
        """The keys of the events of a type, once for each run of a receiver that notes them."""
        lines = (self.shop.folder / "ran").read_text().splitlines() if (self.shop.folder / "ran").exists() else []
        return [line.removeprefix(f"{type} ") for line in lines if line.startswith(f"{type} ")]

    def publish(self, channel: str, documents: list[Any], *, type: str) -> None:
        """Publish an event for each document, its key being the document's `id`."""
        self.shop.shell(
            "import json, redis_events\n"
            f"for data in json.loads({json.dumps(documents)!r}):\n"
            f"    redis_events.publish({channel!r}, data, type={type!r}, key=data['id'], strict=True)"
        )

    def close(self) -> None:
        for site in self.sites:  # asked, and not killed: gunicorn's workers would outlive it
            site.terminate()
        for site in self.sites:
            site.wait()
        for project in self.projects:
            project.close()
        self.server.close()


def _has_beaten(client: redis.Redis, key: bytes, *, since: float) -> bool:
    """Whether the last beat of a listener is younger than a moment, or it is gone."""
    left = int(client.pttl(key)) / 1000
    return left < 0 or ALIVE - left < time.monotonic() - since - 0.1
