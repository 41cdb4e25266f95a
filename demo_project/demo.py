"""The demo: a server, a web page, a listener for each service, customers; at the end, the count of what arrived."""

import fcntl
import os
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import redis

from redis_events.conf import mask

from .children import Child
from .report import SERVICES, Report, count_orders, make_report
from .server import find_server, forget, remove_keys, start_server

ROOT = Path(__file__).resolve().parent.parent
STARTS_WITHIN = 60
"""Seconds for each of the programs."""
STOPS_WITHIN = 35
"""Seconds; a listener takes up to GRACE (30) for what it has in hand."""
STUCK_AFTER = 15
"""Seconds without any news after which what is missing counts as lost: others take over from the dead within 10."""
VICTIM = "billing"
FORGETS_AFTER = 20
"""Orders, where their number is not known: about then Redis loses everything."""
USER = "admin"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class AlreadyRunning(Exception):
    """Raised when another demo uses the same folder."""


class Interrupted(Exception):
    """Raised when somebody asks to stop while it is starting, or a second time."""


@dataclass(kw_only=True)
class Demo:
    """One run. The databases in ``folder`` are made anew; they stay when it is over."""

    folder: Path
    say: Callable[[str, str], None]
    """Takes a service ("" for the demo itself) and a line about it. Called from several threads."""
    orders: int | None = None
    rate: float = 1.0
    """Orders a second; 0: as many as the page takes."""
    until_done: bool = False
    """End by itself when all orders are placed and all about them has arrived."""
    kill_every: float = 10.0
    """Seconds after which billing's listener is killed and started again; 0: never."""
    forgets: bool = True
    """Make Redis lose everything, once, in mid-traffic."""
    password: str = field(default_factory=lambda: secrets.token_hex(4))
    _children: list[Child] = field(default_factory=list)
    _news: threading.Event = field(default_factory=threading.Event)
    _is_open: bool = False
    _env: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> Report:
        """Start everything, wait, stop everything, count. Nothing runs any more when it returns or raises.

        Raises NoServer, AlreadyRunning, Interrupted, and ChildFailed when a program fails.
        """
        with alone_in(self.folder), self._stopped_by_signals():
            try:
                return self._run()
            finally:
                self._kill_the_rest()
                self._clean_up()

    def _run(self) -> Report:
        self.say("", f"Starting three services; their databases are in {self.folder}.")
        remove_databases(self.folder)
        env = self._env = self._environment()
        self._make_databases(env)
        account = self._make_account(env)
        page = self._start_services(env)
        account.wait_done(STARTS_WITHIN)
        self._introduce(page, env)
        self._be_open(self._start_customers(page))
        self._stop("customers", "web")
        self._settle()
        self._stop(*SERVICES)
        self._stop("redis")
        return make_report(self.folder)

    # ------------------------------------------------------------------ starting

    def _environment(self) -> dict[str, str]:
        """What all services are told: the server, a prefix of their own where it is not ours, and the folder."""
        quiet = {"DEMO_ACCESS_LOG": "WARNING", "DJANGO_RUNSERVER_HIDE_WARNING": "true"}
        env = {**os.environ, **quiet, "DEMO_DATA": str(self.folder), "PYTHONUNBUFFERED": "1"}
        if env.get("REDIS_URL"):
            env["DEMO_PREFIX"] = f"demo-{secrets.token_hex(4)}"
            self.say("", f"Using REDIS_URL ({mask(env['REDIS_URL'])}) under the prefix {env['DEMO_PREFIX']}.")
            return env
        server, env["REDIS_URL"] = start_server(self.folder)
        self._children.append(server)
        if find_server() is None:
            self.say("", "WARNING: no Redis or Valkey found; fakeredis imitates one. Good for a look, not for more.")
        return {**env, "DEMO_PREFIX": ""}

    def _make_databases(self, env: Mapping[str, str]) -> None:
        for child in [self._manage("migrate", service, env, "migrate", "-v0") for service in SERVICES]:
            child.wait_done(STARTS_WITHIN)

    def _make_account(self, env: Mapping[str, str]) -> Child:
        """Who may log in to the shop's admin."""
        secret = {"DJANGO_SUPERUSER_PASSWORD": self.password}
        account = ("--noinput", "--username", USER, "--email", "admin@example.org")
        return self._manage("createsuperuser", "shop", {**env, **secret}, "createsuperuser", *account)

    def _start_services(self, env: Mapping[str, str]) -> str:
        """The storefront's address, once every listener listens: pub/sub waits for nobody."""
        command = ("runserver", "--noreload", "127.0.0.1:0")
        address = r"Starting (?:WSGI )?development server at (http://\S+)\nQuit the server"
        web = self._manage("web", "shop", env, *command, ready=address, on_line=self._reporter("shop"))
        listeners = [self._start_listener(name) for name in SERVICES]
        for child in [web, *listeners]:
            child.wait_ready(STARTS_WITHIN)
        return web.wait_ready(STARTS_WITHIN)[1]

    def _start_listener(self, name: str) -> Child:
        report = self._reporter(name)
        return self._manage(name, name, self._env, "listen_events", ready="^Listening on ", on_line=report)

    def _start_customers(self, page: str) -> Child:
        amount = [] if self.orders is None else ["--orders", str(self.orders)]
        program = Path(__file__).with_name("traffic.py")
        return self._start("customers", [sys.executable, str(program), page, "--rate", str(self.rate), *amount])

    def _manage(self, name: str, service: str, env: Mapping[str, str], *command: str, **options: Any) -> Child:
        settings = {"DJANGO_SETTINGS_MODULE": f"demo_project.settings.{service}"}
        program = [sys.executable, str(ROOT / "manage.py"), *command]
        return self._start(name, program, env={**env, **settings}, **options)

    def _start(self, name: str, command: list[str], **options: Any) -> Child:
        child = Child(name, command, on_end=self._news.set, **options)
        self._children.append(child)
        return child

    def _reporter(self, service: str) -> Callable[[str], None]:
        return lambda line: self.say(service, line)

    def _introduce(self, page: str, env: Mapping[str, str]) -> None:
        names = ("REDIS_URL", "DEMO_PREFIX", "DEMO_DATA")
        join = " ".join(f"{name}={shlex.quote(env[name])}" for name in names if env[name] != os.environ.get(name, ""))
        self.say("", f"Storefront  {page}")
        self.say("", f"Admin       {page}admin/   user {USER}, password {self.password}")
        self.say("", f"Join in     export {join}")
        self.say("", "Ctrl-C stops the demo and counts what arrived.")

    # ------------------------------------------------------------------ open, and closing

    def _be_open(self, customers: Child) -> None:
        """Until asked to stop, or done. Raises ChildFailed when any program ends that should not."""
        self._is_open = True
        next_kill = time.monotonic() + self.kill_every if self.kill_every else float("inf")
        while self._is_open:
            self._news.wait(min(max(0.0, next_kill - time.monotonic()), 0.1 if self.forgets else threading.TIMEOUT_MAX))
            self._news.clear()
            if self.forgets and count_orders(self.folder) >= self._half():
                self._make_redis_forget()
            if time.monotonic() >= next_kill:
                self._kill_and_restart()
                next_kill = time.monotonic() + self.kill_every
            for child in self._named("redis", "web", *SERVICES):
                child.check_alive()
            if customers.has_ended:
                customers.wait_done(STARTS_WITHIN)
                self._is_open = self._is_open and not self.until_done
        self.say("", "Stopping …")

    def _half(self) -> int:
        return FORGETS_AFTER if self.orders is None else max(1, self.orders // 2)

    def _make_redis_forget(self) -> None:
        """What it forgets is in the outboxes of those who published it: it is sent again, and has its effect once."""
        self.forgets = False
        forget(self._env["REDIS_URL"], self._env["DEMO_PREFIX"])
        self.say("", "Redis has lost everything (FLUSHALL).")

    def _kill_and_restart(self) -> None:
        """What it had in hand is not lost: its successor takes it over once its heartbeat is gone."""
        (victim,) = self._named(VICTIM)
        self._children.remove(victim)
        victim.kill()
        self.say("", f"{VICTIM}'s listener was killed (kill -9). Starting another.")
        self._start_listener(VICTIM)

    def _settle(self) -> None:
        """Return once every event has arrived, or nothing new has for STUCK_AFTER seconds."""
        report, since = make_report(self.folder), time.monotonic()
        while report.lost and time.monotonic() - since < STUCK_AFTER:
            time.sleep(0.1)
            report, before = make_report(self.folder), report
            since = since if report == before else time.monotonic()

    def _stop(self, *names: str) -> None:
        """Ask all of these to stop, then wait for each."""
        children = self._named(*names)
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.join(STOPS_WITHIN)

    def _kill_the_rest(self) -> None:
        for child in self._children:
            child.kill()

    def _clean_up(self) -> None:
        """On a server that is not ours, nothing stays."""
        if self._env.get("DEMO_PREFIX"):
            with suppress(redis.RedisError):
                remove_keys(self._env["REDIS_URL"], self._env["DEMO_PREFIX"])

    def _named(self, *names: str) -> list[Child]:
        return [child for child in self._children if child.name in names]

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGHUP stop this run, in the main thread."""
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._is_open:
            raise Interrupted
        self._is_open = False
        self._news.set()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder and hold its lock. Raises AlreadyRunning."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Another demo is running in {folder}. Stop it, or give this one --data.") from None
        yield


def remove_databases(folder: Path) -> None:
    """Every run counts its own events only."""
    for service in SERVICES:
        for ending in ("", "-wal", "-shm"):
            (folder / f"{service}.sqlite3{ending}").unlink(missing_ok=True)
