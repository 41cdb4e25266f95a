"""How lines of log and terminal speak: short, printable, one event or failure each."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from traceback import FrameSummary
from types import TracebackType

_LIBRARIES = (sys.base_prefix, str(Path(__file__).parent))


def one_line(said: object, limit: int = 200) -> str:
    """An exception's text, or a name from the wire, as part of a log line: one line, printable, not endless."""
    line = " ".join(text_of(said).split())[:limit]
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)


def text_of(said: object) -> str:
    """``str(said)``, also of an exception whose ``__str__`` fails."""
    try:
        return str(said)
    except Exception:
        return f"<{type(said).__qualname__} that cannot be shown>"


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short_id(id: str) -> str:
    """An event id for people: ``01a20575…bf00``."""
    return id if len(id) <= 13 else f"{id[:8]}…{id[-4:]}"


def where(error_traceback: TracebackType | None) -> str:
    """``file:line`` of the innermost frame of the project's own code; ``""`` when there is none."""
    own = own_frames(traceback.extract_tb(error_traceback))
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def own_frames(frames: list[FrameSummary]) -> list[FrameSummary]:
    """Those of the project's own code: not Python's, not a library's, not ours."""
    return [frame for frame in frames if not _is_library(frame.filename)]


def _is_library(filename: str) -> bool:
    return "site-packages" in filename or filename.startswith(_LIBRARIES)
