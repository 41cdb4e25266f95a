"""The append-only file of a server, to be torn or put back while it is down."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.servers import Server


class Torn:
    """A server with ``aof``; it keeps its port through all of this."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def folder(self) -> Path:
        return self.server.dir / "appendonlydir"

    @property
    def file(self) -> Path:
        return max(self.folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))

    def size(self) -> int:
        return self.file.stat().st_size

    def cut(self, size: int) -> None:
        """A power cut that leaves this many bytes."""
        self.server.kill()
        with self.file.open("r+b") as file:
            file.truncate(size)
        self.server.start()

    def copy(self, target: Path) -> None:
        """What a copy that lags behind would hold."""
        shutil.copytree(self.folder, target)

    def promote(self, copy: Path) -> None:
        """The server is gone, the copy takes its place."""
        self.server.kill()
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)
        self.server.start()
