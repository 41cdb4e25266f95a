"""Runs that may not last for ever: ``@receives(timeout=30)``."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from types import CoroutineType, FrameType

import msgspec

_CALLER = str(Path(__file__).with_name("runner.py"))


class Timed(msgspec.Struct, frozen=True, eq=False):
    """A run with a deadline (``time.monotonic``), and where it runs."""

    what: str
    timeout: float
    deadline: float
    thread: int
    task: asyncio.Task[object] | None

    def end(self) -> None:
        """It has ended in time, or late all the same."""
        _running.pop(id(self), None)

    def stack(self) -> str:
        """Where it is now, from the receiver on, as a traceback shows it: lines of code, no values."""
        frames = [_summary(frame) for frame in awaited(self.task)] if self.task else []
        blocked = sys._current_frames().get(self.thread)
        if blocked and (not self.task or asyncio.current_task(self.task.get_loop()) is self.task):
            frames = list(traceback.extract_stack(blocked))
        return "".join(traceback.format_list(_from_receiver(frames)))


_running: dict[int, Timed] = {}


def begin(what: str, timeout: float) -> Timed:
    """Note a run that begins here and now. ``timeout`` is in seconds; ``what`` names it in a log line."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop in this thread
        task = None
    timed = Timed(what, timeout, time.monotonic() + timeout, threading.get_ident(), task)
    _running[id(timed)] = timed
    return timed


def overdue() -> list[Timed]:
    """The runs that have outlasted their timeout."""
    now = time.monotonic()
    return [timed for timed in tuple(_running.values()) if timed.deadline < now]


def stuck_threads() -> int:
    """How many threads overdue runs keep from ending."""
    return len({timed.thread for timed in overdue()})


def awaited(task: asyncio.Task[object]) -> Iterator[FrameType]:
    """The frames a suspended task is in, from the outermost on."""
    waiting: object = task.get_coro()
    while isinstance(waiting, CoroutineType) and waiting.cr_frame:
        yield waiting.cr_frame
        waiting = waiting.cr_await


def _from_receiver(frames: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Those below the one that calls receivers."""
    below = takewhile(lambda frame: frame.filename != _CALLER, reversed(frames))
    return list(below)[::-1]


def _summary(frame: FrameType) -> traceback.FrameSummary:
    return traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
