"""Where connections are made: timeouts on everything, no retries behind our back, no probes.

redis-py logs in (URL, TLS, AUTH, SELECT); from then on the socket is ours and hiredis reads it. Against the client's
own API that takes half the CPU for one PUBLISH and a twelfth for a message read from pub/sub (docs/decisions/0002).
"""

from __future__ import annotations

import os
import selectors
import socket
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, ConnectionPool
from redis.retry import Retry

from ..conf import mask
from ..exceptions import Refused, TransportError, Unreachable
from .base import Outgoing

Command = tuple[Any, ...]
CHUNK = 65_536
PARTIAL = object()
SOCKET = "_sock"
"""The one private name: redis-py has no other way to its socket."""
ONE_CHANNEL_ONLY = ("NOPERM", "WRONGTYPE", "NOGROUP")
"""Error codes that concern one channel and say nothing about the others."""
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)  # no descriptor of its own, unlike epoll


class ErrorReply(Exception):
    """An error the server answered with: its code and text."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


def by_name(answer: Sequence[Any]) -> dict[bytes, Any]:
    """A reply of names and values in turn, as RESP2 gives all that have names."""
    return dict(zip(answer[::2], answer[1::2], strict=True))


def seconds_of(answer: Any) -> float | None:
    """The server's clock, in seconds since 1970, by its reply to TIME; None where that may not be asked."""
    if answer is None or isinstance(answer, ErrorReply):
        return None
    return int(answer[0]) + int(answer[1]) / 1e6


def milliseconds(seconds: float) -> int:
    """Whole ones, as entry ids have them: half of all ends of a millisecond are a hair below it as a float."""
    return round(seconds * 1e6) // 1000


class Wire:
    """One connection that is logged in. For one thread at a time.

    ``timeout`` bounds, in seconds, the whole of connecting and logging in, and later each ``call``. Raises Unreachable
    or Refused.
    """

    def __init__(self, location: str, *, timeout: float) -> None:
        self.location = location
        self.timeout = timeout
        self._lost = ""
        """Why nothing can be asked any more."""
        with translated(location):
            self._connection = _connection(location, timeout, deadline=time.monotonic() + timeout)
            self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        self.socket: socket.socket = vars(self._connection)[SOCKET]
        self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=PARTIAL)
        self._readable = _Selector()
        self._readable.register(self.socket, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def is_readable(self) -> bool:
        """Whether something waits to be read; where nothing was asked, the server has closed the connection."""
        return bool(self._readable.select(0))

    def call(
        self, commands: Sequence[Command], *, since: float | None = None, timeout: float | None = None
    ) -> list[Any]:
        """The reply to each command, in one round trip. An error reply is returned as an ErrorReply, not raised.

        ``timeout`` (our own if none is given) runs from now, or from ``since`` (``time.monotonic``) for a caller that
        has waited already. After it nothing else can be asked here: replies that come late would be taken for others'.
        """
        deadline = (since or time.monotonic()) + (timeout or self.timeout)
        try:
            self.write(commands, timeout=deadline - time.monotonic())
            deadline = max(deadline, time.monotonic() + 0.001)  # a look at least, at what was asked for
            replies: list[Any] = []
            while len(replies) < len(commands):
                replies += self.read(deadline - time.monotonic())
            return replies
        except Unreachable as error:
            self._lost = str(error)
            raise

    # Not `with translated(…)` in these two: a generator's context costs 4 µs, a fifth of a whole PUBLISH.
    def write(self, commands: Sequence[Command], *, timeout: float | None = None) -> None:
        """Send commands without waiting for their replies, in ``timeout`` seconds if not our own."""
        if self._lost:
            raise Unreachable(self._lost)
        try:
            self.socket.settimeout(self.timeout if timeout is None else max(timeout, 0.001))
            self.socket.sendall(b"".join(map(hiredis.pack_command, commands)))
        except OSError as error:
            raise Unreachable(f"{mask(self.location)}: {_reason(error)}") from error

    def read(self, timeout: float) -> list[Any]:
        """At least the next bytes' worth of replies: those that are whole by now, perhaps none.

        With no time left it is too late, whatever is there: bytes that trickle in would never let a caller's wait end.
        """
        try:
            if timeout <= 0:
                raise TimeoutError
            self.socket.settimeout(timeout)
            data = self.socket.recv(CHUNK)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
            return list(iter(self._reader.gets, PARTIAL))
        except (OSError, hiredis.HiredisError) as error:
            raise Unreachable(f"{mask(self.location)}: {_reason(error)}") from error

    @property
    def has_buffered(self) -> bool:
        """Whether TLS holds decrypted bytes that ``select`` cannot see."""
        pending = getattr(self.socket, "pending", None)
        return bool(pending and pending())

    def close(self) -> None:
        self._connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped


class Waiter:
    """Waiting on wires, in a way another thread or a signal handler can end."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = pipe = os.pipe()
        # Closed when nobody can call ``wake`` any more: a late one must not write to whatever got the number next.
        weakref.finalize(self, _close_all, pipe).atexit = False
        os.set_blocking(self._wake_in, False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)

    def add(self, wire: Wire) -> None:
        self._selector.register(wire, selectors.EVENT_READ)

    def remove(self, wire: Wire) -> None:
        self._selector.unregister(wire)

    def wait(self, timeout: float) -> tuple[list[Wire], bool]:
        """The wires with something to read after at most ``timeout`` seconds, and whether somebody called ``wake``."""
        ready = [key.fileobj for key, _ in self._selector.select(max(0.0, timeout))]
        woken = self._wake_out in ready
        if woken:
            os.read(self._wake_out, 4096)
        return [wire for wire in ready if isinstance(wire, Wire)], woken

    def wake(self) -> None:
        with suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._wake_in, b"!")

    def close(self) -> None:
        """Stop waiting; ``wake`` does nothing from now on."""
        self._selector.close()


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Hurried:
    """A socket until ``deadline``: redis-py gives each read its whole timeout, and one that trickles never ends."""

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._plain = plain
        self._deadline = deadline

    def recv_into(self, *arguments: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._plain.settimeout(left)
        return self._plain.recv_into(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


def _log_in(connection: AbstractConnection, *, deadline: float) -> None:
    """As redis-py does, in what is left of the time."""
    names = vars(connection)
    plain = names[SOCKET]
    names[SOCKET] = _Hurried(plain, deadline)
    connection.on_connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    names[SOCKET] = plain


def _connection(location: str, timeout: float, *, deadline: float) -> AbstractConnection:
    pool: ConnectionPool = ConnectionPool.from_url(
        location,
        socket_timeout=timeout / 2,
        socket_connect_timeout=timeout / 2,
        redis_connect_func=partial(_log_in, deadline=deadline),
        retry=Retry(NoBackoff(), 0),
        **_without_probes(),
    )
    pool.connection_kwargs["protocol"] = 2  # whatever the URL says: RESP3 has another shape for every reply
    connection = pool.make_connection()
    assert isinstance(connection, AbstractConnection)
    return connection


def _without_probes() -> dict[str, Any]:
    """Arguments that keep a connection from asking what strict ACLs refuse: their names differ by redis-py release."""
    try:
        from redis.driver_info import DriverInfo
    except ImportError:  # redis-py 6
        return {"lib_name": None, "lib_version": None}
    return {"driver_info": DriverInfo(name="", lib_version="")}


@contextmanager
def translated(location: str) -> Iterator[None]:
    """Errors of sockets and of redis-py as ours, with the location and without its password."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise refused(location, str(error)) from error
    except (OSError, redis.ConnectionError, redis.TimeoutError, hiredis.HiredisError) as error:
        raise Unreachable(f"{mask(location)}: {_reason(error)}") from error
    except redis.RedisError as error:
        raise refused(location, str(error)) from error


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__ or error
    if isinstance(error, TimeoutError | redis.TimeoutError):
        return "no answer in time"
    if isinstance(error, hiredis.HiredisError):
        return f"what answers there is no Redis ({error})"
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return reason[:1].lower() + reason[1:]


def refused(location: str, answer: str) -> TransportError:
    """An error reply as ours: Unreachable where waiting helps (loading, failover), else Refused."""
    if answer.partition(" ")[0] in ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"):
        return Unreachable(f"{mask(location)}: {answer}")
    return Refused(f"{mask(location)}: {answer}")


def raise_refusals(location: str, batch: Sequence[Outgoing], replies: Sequence[Any]) -> None:
    """Raise when the server refused some of a batch, with those as ``lost``."""
    answers = [(each, reply) for each, reply in zip(batch, replies, strict=True) if isinstance(reply, ErrorReply)]
    if not answers:
        return
    error = refused(location, str(answers[0][1]))
    if all(reply.code in ONE_CHANNEL_ONLY for _, reply in answers):
        error.lost = [outgoing for outgoing, _ in answers]
    raise error


def server_name(location: str) -> str:
    """Name and version of the server: ``Valkey 9.1.2``; ``""`` when it will not say (INFO may be forbidden)."""
    wire = Wire(location, timeout=1.0)
    try:
        answer = wire.call([("INFO", "server")])[0]
    finally:
        wire.close()
    if isinstance(answer, ErrorReply):
        return ""
    facts = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
    # Valkey reports a redis_version too, that of the Redis it grew from.
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', '')}".strip()
