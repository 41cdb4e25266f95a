"""Management commands in processes of their own, as they run in production, watched line by line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.servers import wait_for

ROOT = Path(__file__).parent.parent
LEFT_OUT = ("REDIS_URL", "PYTHONWARNINGS")


def source_of(package: ModuleType) -> str:
    """All of its modules, one after the other."""
    (folder,) = package.__path__
    return "\n".join(path.read_text() for path in sorted(Path(folder).glob("*.py")))


def open_descriptors(pid: int | str = "self") -> int:
    """How many file descriptors a process of ours has open."""
    return len(os.listdir(f"/proc/{pid}/fd" if Path("/proc/self").exists() else "/dev/fd"))


class Process:
    """A running program: its output line by line, both streams together."""

    def __init__(self, command: list[str], *, cwd: Path, env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.poll()

    def wait_for_line(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """The first line so far or to come that `pattern` is found in; AssertionError with all output if none."""
        wait_for(
            lambda: self.find(pattern) or not self._reader.is_alive(), timeout=timeout, what=self._missing(pattern)
        )
        found = self.find(pattern)
        assert found, f"{self._missing(pattern)}; it ended with {self.returncode}:\n{self.output}"
        return found

    def find(self, pattern: str) -> re.Match[str] | None:
        return next((found for line in list(self.lines) if (found := re.search(pattern, line))), None)

    def _missing(self, pattern: str) -> str:
        return f"a line with {pattern!r}"

    def wait(self, timeout: float = 10.0) -> int:
        """Its exit code, once it has ended by itself and all its output is in `lines`."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop; returns at once."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.wait()


class Project:
    """A small Django project of one service: tests.settings, an app called `app` whose files a test writes, a database.

    Files and database stand in `folder`. Two projects with the same `location` and `prefix` hear one another.
    """

    def __init__(self, folder: Path, *, location: str, prefix: str = "", service: str = "shop") -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}
        self.processes: list[Process] = []
        self.env = {name: value for name, value in os.environ.items() if name not in LEFT_OUT} | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "PYTHONUNBUFFERED": "1",
            "TEST_APPS": "app",
            "TEST_LOCATION": location,
            "TEST_PREFIX": prefix,
            "TEST_SERVICE": service,
            "TEST_SQLITE": str(folder / "db.sqlite3"),
        }
        (folder / "app").mkdir(parents=True)
        self.write("__init__.py", "")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the app: `receivers.py`, `events.py`, …"""
        path = self.folder / "app" / name
        path.write_text(text)
        return path

    def database(self, settings: dict[str, Any]) -> None:
        """Use another default database than the SQLite file."""
        self.env["TEST_DATABASE"] = json.dumps(settings)

    def manage(self, *arguments: str, **env: str) -> Process:
        """Start `manage.py` with `arguments` in a process of its own; killed at the end of the test."""
        return self.python("-m", "django", *arguments, **env)

    def python(self, *arguments: str, **env: str) -> Process:
        """Start the interpreter with `arguments` in the project's folder and environment."""
        settings = {"TEST_SETTINGS": json.dumps(self.settings)}
        process = Process([sys.executable, *arguments], cwd=self.folder, env={**self.env, **settings, **env})
        self.processes.append(process)
        return process

    def shell(self, code: str, *, timeout: float = 20.0) -> str:
        """The output of `code` run in the project after django.setup(); AssertionError when it fails."""
        process = self.python("-c", f"import django; django.setup()\n{code}")
        assert process.wait(timeout) == 0, process.output
        return process.output

    def migrate(self) -> None:
        process = self.manage("migrate", "--run-syncdb", "--verbosity", "0")
        assert process.wait(timeout=60) == 0, process.output

    def close(self) -> None:
        for process in self.processes:
            process.kill()


def listening(project: Project) -> Process:
    """A listener of the project, once it listens."""
    process = project.manage("listen_events")
    process.wait_for_line("Listening on ", timeout=20)
    return process
