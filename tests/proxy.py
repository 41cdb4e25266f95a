"""A TCP proxy between a client and a server: counts what the client writes, and does to it what networks do.

with Proxy(server, gather=0.02) as proxy:
    client = redis.Redis(port=proxy.port)
    ...
    assert proxy.writes == 1
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.resp import FrameSplitter
from tests.servers import Server, free_port, with_protocol

BURST = 65_536


class Proxy:
    """Listens on `port` of 127.0.0.1 and passes everything on to `server`'s socket, until `close()`.

    `gather` seconds of silence from a client end one write: bytes are held until then and passed on together, so that
    `writes` counts the times the client wrote and then waited. With 0 they pass at once, and each recv is a write.
    """

    def __init__(self, server: Server, *, gather: float = 0.0) -> None:
        self.server = server
        self.gather = gather
        self.delay = 0.0  # seconds added to each burst, both ways
        self.sliced = False  # pass on in packets of one byte
        self.payloads: list[bytes] = []
        self.port = free_port()
        self._open = threading.Event()
        self._open.set()
        self._links: list[Link] = []
        self._lock = threading.Lock()
        self._replies_left: int | None = None
        self._listener: socket.socket | None = None
        self.accept()

    @property
    def url(self) -> str:
        login = f":{self.server.password}@" if self.server.password else ""
        return with_protocol(f"redis://{login}127.0.0.1:{self.port}/0")

    @property
    def writes(self) -> int:
        """Writes by clients since the start or the last `reset()`."""
        return len(self.payloads)

    @property
    def bytes(self) -> int:
        """Bytes written by clients, likewise."""
        return sum(map(len, self.payloads))

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        with self._lock:
            self._links = [link for link in self._links if link.is_open]
            return len(self._links)

    def reset(self) -> None:
        """Begin to count again."""
        self.payloads.clear()

    def refuse(self) -> None:
        """New connections are refused; those that are open go on."""
        if self._listener is not None:
            # shutdown wakes the thread in accept(), which a mere close would leave there, holding the port
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._acceptor.join(timeout=5)
            self._listener = None

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._acceptor = threading.Thread(target=self._take, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def cut(self, *, reset: bool = False) -> None:
        """Close every open connection, both sides; with a TCP reset if told."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.close(reset=reset)

    def black_hole(self) -> None:
        """Connections stay and new ones are taken; every byte is held back until `heal()`."""
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    def drop_reply(self, number: int = 1) -> None:
        """The server runs the `number`-th command from now on, its reply is lost and the connection is cut."""
        with self._lock:
            self._replies_left = number

    @property
    def has_dropped(self) -> bool:
        """Whether the reply that was to be dropped came, and was."""
        with self._lock:
            return self._replies_left is None

    def close(self) -> None:
        self.refuse()
        self.heal()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _take(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                self._join(listener.accept()[0])

    def _join(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self.server.socket)
        except OSError:
            client.close()
            server.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self, client, server)
        with self._lock:
            self._links.append(link)
        link.start()

    def pass_on(self, data: bytes, target: socket.socket) -> None:
        """Send `data` as slowly, late or never as the network is at the moment."""
        if self.delay:
            time.sleep(self.delay)
        self._open.wait()
        if not self.sliced:
            target.sendall(data)
            return
        for byte in data:
            target.sendall(bytes((byte,)))

    def replies_to_deliver(self, replies: int) -> int | None:
        """How many of the next `replies` still reach the client; None for all of them."""
        with self._lock:
            if self._replies_left is None:
                return None
            if replies < self._replies_left:
                self._replies_left -= replies
                return None
            delivered, self._replies_left = self._replies_left - 1, None
            return delivered


class Link:
    """One client's connection and ours to the server, with a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.is_open = True
        self._lock = threading.Lock()

    def start(self) -> None:
        for pump in (self._requests, self._replies):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def _run(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):  # one of the two went away
            pump()
        self.close()

    def _requests(self) -> None:
        while data := self._read_write():
            self.proxy.payloads.append(data)
            self.proxy.pass_on(data, self.server)

    def _read_write(self) -> bytes:
        """What the client wrote: one burst, or all of it until it is silent for `gather` seconds."""
        parts = [self.client.recv(BURST)]
        while parts[-1] and self.proxy.gather and select.select([self.client], [], [], self.proxy.gather)[0]:
            parts.append(self.client.recv(BURST))
        return b"".join(parts)

    def _replies(self) -> None:
        splitter = FrameSplitter()
        while data := self.server.recv(BURST):
            frames = splitter.feed(data)
            delivered = self.proxy.replies_to_deliver(len(frames))
            if delivered is not None:
                self.proxy.pass_on(b"".join(frames[:delivered]), self.client)
                return
            self.proxy.pass_on(data, self.client)

    def close(self, *, reset: bool = False) -> None:
        with self._lock:
            if not self.is_open:
                return
            self.is_open = False
        if reset:
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Ending the reads first wakes the threads in recv(); as long as one is in there, close() closes nothing.
        for end, how in ((self.client, socket.SHUT_RD if reset else socket.SHUT_RDWR), (self.server, socket.SHUT_RDWR)):
            with suppress(OSError):
                end.shutdown(how)
        self.client.close()
        self.server.close()
