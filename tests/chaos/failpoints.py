"""Failpoints: a dotted name is wrapped so that its n-th call does harm, before it begins or after it has ended.

Nothing of this is in the product. Random instants are calls and returns counted by the interpreter's profiler, which
makes them the same at each replay.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import Error, OperationalError

from .history import History

Harm = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where and how a process is harmed.

    `name` is a dotted name, or "" for the n-th call or return of anything; `how` is kill, freeze, raise (what a
    database says that is gone), terminate (PostgreSQL ends the session `delay` seconds later), or soon: killed `delay`
    seconds later, wherever it is then.
    """

    name: str = ""
    when: str = "before"
    nth: int = 1
    how: str = "kill"
    delay: float = 0.0

    def __str__(self) -> str:
        place = f"{self.when} {self.name.rpartition('redis_events.')[2]} #{self.nth}" if self.name else f"#{self.nth}"
        return f"{self.how} {place}"


def arm(cut: Cut, history: History, who: str) -> None:
    """Let this process meet its fate."""

    def harm(*arguments: Any) -> None:
        history.note("cut", who=who, at=str(cut))
        _harm(cut, *arguments)

    if cut.name:
        wrap(cut.name, **{cut.when: _nth(cut.nth, harm)})
    else:
        _count_calls(cut.nth, harm)


def _nth(nth: int, harm: Harm) -> Harm:
    calls = itertools.count(1)

    def meet(*arguments: Any) -> None:
        if next(calls) == nth:
            harm(*arguments)

    return meet


def _harm(cut: Cut, *arguments: Any) -> None:
    if cut.how == "raise":
        raise OperationalError("the harness says that the database is gone")
    if cut.how == "terminate":
        threading.Timer(cut.delay, _terminate, arguments[:1]).start()
        return
    if cut.how == "soon":
        signal.setitimer(signal.ITIMER_REAL, max(cut.delay, 1e-6))  # SIGALRM, unhandled, ends a process as SIGKILL does
        return
    os.kill(os.getpid(), signal.SIGSTOP if cut.how == "freeze" else signal.SIGKILL)


def _terminate(wrapper: Any) -> None:
    """Let PostgreSQL end the session of a connection, as when it is restarted."""
    with suppress(Error, AttributeError):
        other = wrapper.copy()
        other.cursor().execute("SELECT pg_terminate_backend(%s)", [wrapper.connection.info.backend_pid])
        other.close()


def wrap(name: str, *, before: Harm | None = None, after: Harm | None = None) -> None:
    """Call `before` or `after` with the arguments of each call of what the dotted name means."""
    owner, attribute = find(name)
    original = vars(owner)[attribute] if isinstance(owner, type) else getattr(owner, attribute)

    @functools.wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        if before:
            before(*args)
        result = original(*args, **options)
        if after:
            after(*args)
        return result

    setattr(owner, attribute, wrapped)


def find(name: str) -> tuple[Any, str]:
    """The module or class that has the last part of a dotted name. Raises AttributeError: the product has moved on."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:-1]:
            owner = getattr(owner, part)
        getattr(owner, parts[-1])
        return owner, parts[-1]
    raise AttributeError(name)


def _count_calls(nth: int, harm: Harm) -> None:
    calls = itertools.count(1)

    def look(*_: Any) -> None:
        if next(calls) == nth:
            sys.setprofile(None)
            harm()

    threading.setprofile(look)
    sys.setprofile(look)


def count_calls(work: Callable[[], None]) -> int:
    """How many calls and returns there are in some work, in all threads it starts."""
    calls = itertools.count(1)

    def look(*_: Any) -> None:
        next(calls)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return next(calls)
