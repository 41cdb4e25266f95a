"""The history of a trial: one JSON line for each thing that happened or was found, appended so that kills lose none.

`what` is order, sent, sending, ran, failed, effect, entry, held, left, cut, snapshot, recovered or crashed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class History:
    """One trial's file. A line is one write of one process: whole, or not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC)

    def note(self, what: str, **facts: Any) -> None:
        os.write(self._file, json.dumps({"what": what, "pid": os.getpid(), **facts}).encode() + b"\n")

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def close(self) -> None:
        os.close(self._file)


def of(lines: list[Line], what: str, **wanted: Any) -> Iterator[Line]:
    """The lines of one kind, with these facts."""
    for line in lines:
        if line["what"] == what and all(line.get(name) == value for name, value in wanted.items()):
            yield line
