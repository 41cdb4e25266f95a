"""What one run of the benchmarks owns: a server, databases, and the processes that are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.servers import Postgres, Server

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 60.0
# A subscriber that is slower than the blast must be waited for, not thrown out.
UNLIMITED = ("--client-output-buffer-limit", "pubsub", "0", "0", "0")

RAW_STREAM_LISTENER = ("-m", "benchmarks.sides.raw_stream_listener")
RAW_LISTENER = ("-m", "benchmarks.sides.raw_listener")
OUR_LISTENER = ("-m", "django", "listen_events")


class SideError(Exception):
    """Raised when a measured process ended, or was ended at the deadline, before it printed what was asked of it."""


class Side:
    """One measured process; its standard output is the protocol, its standard error is kept for the error."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        log: Path,
        python: str | Path = sys.executable,
        deadline: float = DEADLINE,
    ) -> None:
        self.arguments = arguments
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(python), *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.alarm = threading.Timer(deadline, self.process.kill)
        self.alarm.start()

    def wait_for_line(self, start: str) -> str:
        """The next line that begins with `start`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        self.process.wait()
        raise SideError(f"{self.arguments} printed no {start!r}:\n{self.log.read_text()[-3000:]}")

    def result(self) -> dict[str, Any]:
        """The next line of JSON."""
        return json.loads(self.wait_for_line("{"))

    def resident_mib(self) -> float:
        """The memory it has in RAM now, in MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def descriptors(self) -> int:
        """How many files and sockets it has open now."""
        return psutil.Process(self.process.pid).num_fds()

    def wait_until_old(self, seconds: float) -> None:
        """Returns when it has lived that long."""
        time.sleep(max(0.0, psutil.Process(self.process.pid).create_time() + seconds - time.time()))

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 5 s."""
        self.alarm.cancel()
        self.process.terminate()
        try:
            self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


class Stage:
    """A context: servers are started on entering and gone after it, with everything they wrote."""

    def __init__(self, *, is_quick: bool = False) -> None:
        self.is_quick = is_quick
        self.numbers = count(1)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-events-bench-")))
            self.server = stack.enter_context(Server(extra=UNLIMITED))
            self._create: dict[str, Callable[[str], dict[str, Any]]] = {"sqlite": partial(_sqlite, self.folder)}
            with suppress(pytest.skip.Exception):  # how tests.servers says that PostgreSQL is not installed
                self._create["postgres"] = stack.enter_context(Postgres()).create
            self.databases = {name: create("bench") for name, create in self._create.items()}
            for name in self.databases:
                self._migrate(name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def long(self, events: int) -> int:
        """How many events a long run has: a tenth of what it should have where it has to be quick."""
        return events // 10 if self.is_quick else events

    def clear(self) -> None:
        """Leave nothing on the server, and nothing in the databases that remembers a stream on it."""
        self.server.client().flushall()
        for name in self.databases:
            self.run("forget", database=name)

    def empty_database(self, kind: str) -> dict[str, Any]:
        """A new one beside `databases[kind]`, without any table: its entry for Django's DATABASES."""
        return self._create[kind](f"bench{next(self.numbers)}")

    def run(self, side: str, **options: Any) -> dict[str, Any]:
        """Run `benchmarks.sides.<side>` to its end and return the JSON it printed; `options` are those of `start`."""
        with self.start(("-m", f"benchmarks.sides.{side}"), **options) as process:
            return process.result()

    @contextmanager
    def start(
        self,
        arguments: Sequence[str],
        *,
        database: str | dict[str, Any] = "sqlite",
        without_us: bool = False,
        python: str | Path = sys.executable,
        deadline: float = DEADLINE,
        **options: int,
    ) -> Iterator[Side]:
        """A process of the bench project, stopped on leaving and killed after `deadline` seconds.

        `database` is the name of one of ours, or the entry of another. `options` become BENCH_… variables.
        """
        environment = self._environment(database, without_us=without_us)
        environment |= {f"BENCH_{name.upper()}": str(value) for name, value in options.items()}
        log = self.folder / f"stderr-{next(self.numbers)}.log"
        side = Side(arguments, environment=environment, log=log, python=python, deadline=deadline)
        try:
            yield side
        finally:
            side.stop()

    @contextmanager
    def listening(self, arguments: Sequence[str], *, warm: int, events: int, **options: Any) -> Iterator[Side]:
        """A listener of either kind that has said that it listens, its meter set; `options` are those of `start`."""
        with self.start(arguments, warm=warm, events=events, **options) as side:
            side.wait_for_line("Listening on")
            yield side

    def _migrate(self, database: str) -> None:
        with self.start(("-m", "django", "migrate", "--run-syncdb"), database=database) as process:
            process.wait_for_line("Running migrations")
            process.process.communicate()

    def _environment(self, database: str | dict[str, Any], *, without_us: bool) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "benchmarks.project.settings",
            "BENCH_REDIS_URL": self.server.url,
            "BENCH_DATABASE": json.dumps(self.databases[database] if isinstance(database, str) else database),
            "BENCH_APPS": "" if without_us else "redis_events",
        }


def _sqlite(folder: Path, name: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / f"{name}.sqlite3"),
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"},
    }
