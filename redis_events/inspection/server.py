"""Asking the server for a page: one connection, a little patience, and what went wrong in words."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from django.utils.translation import gettext as _

from ..conf import conf, mask
from ..events import now
from ..exceptions import TransportError
from ..routing import is_memory
from ..transports.client import Command, ErrorReply, Wire
from .effective import origin
from .facts import Trouble

PATIENCE = 0.6
"""Seconds all questions of one look may take together: a page is there within 1.2."""
BREATH = 1.0
"""Seconds during which a server that gave no answer is not asked again: many pages may be open."""


class _Memory:
    """What this process remembers of a server in trouble, by its location."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[Trouble, float]] = {}

    def note(self, trouble: Trouble) -> None:
        self.known = {conf.LOCATION: (trouble, time.monotonic() + BREATH)}

    def since(self) -> datetime:
        known = self.known.get(conf.LOCATION)
        return known[0].since if known else now()

    def recent(self) -> Trouble | None:
        trouble, until = self.known.get(conf.LOCATION, (None, 0.0))
        return trouble if time.monotonic() < until else None

    def forget(self) -> None:
        self.known = {}


_memory = _Memory()


class Server:
    """One look at the server. A question it cannot answer is answered ``None``; ``trouble`` and ``refusals`` say why.

    ``patience`` is in seconds, for all questions together. Nothing is raised: a page shows what there is.
    """

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self.trouble: Trouble | None = _in_memory() if is_memory() else _memory.recent()
        self.refusals: dict[str, str] = {}
        """What the server answered to commands it refused, by the command's name."""
        self.round_trips = 0
        self.memo: dict[str, Any] = {}
        """What was asked already in this look."""
        self._until = time.monotonic() + patience
        self._wire: Wire | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        if self._wire:
            self._wire.close()
        self._wire = None

    def ask(self, *commands: Command, quietly: bool = False) -> list[Any]:
        """The reply to each command, all in one round trip; None for each that was not answered or refused.

        ``quietly``: a refusal is nothing to tell of.
        """
        answers = self.try_all(*commands, quietly=quietly)
        return [None if isinstance(answer, ErrorReply) else answer for answer in answers]

    def try_all(self, *commands: Command, quietly: bool = False) -> list[Any]:
        """``ask``, with error replies as they came: for whoever looks at one key that may be anything."""
        if self.trouble or not commands:
            return [None] * len(commands)
        try:
            answers = self._call(commands)
        except TransportError as error:
            self._fail(str(error))
            return [None] * len(commands)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, ErrorReply):
                self._note_refusal(command, answer, quietly=quietly)
        return answers if not self.trouble else [None] * len(commands)

    def _call(self, commands: Sequence[Command]) -> list[Any]:
        left = max(0.02, self._until - time.monotonic())
        self._wire = self._wire or Wire(conf.LOCATION, timeout=left)
        self._wire.timeout = max(0.02, self._until - time.monotonic())
        self.round_trips += 1
        answers = self._wire.call(commands)
        _memory.forget()
        return answers

    def _note_refusal(self, command: Command, answer: ErrorReply, *, quietly: bool) -> None:
        """What concerns all of the server is trouble; what concerns one command or key is noted."""
        if answer.code in ("LOADING", "MASTERDOWN", "NOAUTH", "BUSY", "CLUSTERDOWN"):
            self._fail(f"{mask(conf.LOCATION)}: {answer}")
        elif answer.code == "NOPERM" and not quietly:
            self.refusals[" ".join(map(str, command[:2])) if command[0] == "XINFO" else str(command[0])] = str(answer)

    def _fail(self, message: str) -> None:
        """The server may end its sentence; whoever shows it does."""
        self.close()
        message = message.removesuffix(".")
        kind = _kind(message)
        self.trouble = Trouble(kind=kind, message=message, since=_memory.since(), advice=advice(kind))
        _memory.note(self.trouble)


@contextmanager
def at(server: Server | None) -> Iterator[Server]:
    """The server handed in, or one of our own for this question."""
    if server:
        yield server
        return
    with Server() as own:
        yield own


KINDS = {
    "WRONGPASS": "password",
    "NOAUTH": "password",
    "invalid username-password": "password",
    "Authentication required": "password",
    "NOPERM": "forbidden",
    "no permissions": "forbidden",
    "LOADING": "loading",
    "no answer in time": "silent",
    "connection refused": "refused",
    "no such file": "refused",
    "name or service not known": "host",
    "nodename nor servname": "host",
    "name does not resolve": "host",
    "no address associated": "host",
    "in name resolution": "host",
    "DB index is out of range": "database",
    "invalid DB index": "database",
    "OOM": "memory-full",
    "READONLY": "read-only",
    "MISCONF": "read-only",
}


def _kind(message: str) -> str:
    return next((kind for part, kind in KINDS.items() if part.lower() in message.lower()), "other")


def advice(kind: str) -> str:
    """What an operator can do about it."""
    place = "REDIS_URL" if origin("LOCATION") == "REDIS_URL" else "LOCATION"
    known = {
        "refused": _("Nothing listens there: start the server, or correct %s.") % place,
        "host": _("There is no such host, or names are not resolved here: correct the host in %s.") % place,
        "database": _("The server has fewer databases: choose a lower number in %s.") % place,
        "silent": _("The server takes connections and does not answer: is it frozen, or busy with a slow command?"),
        "password": _("Correct the user and password in %s.") % place,
        "forbidden": _("The Redis user lacks rights; `manage.py check_events` says which."),
        "loading": _("It is reading its data from disk; wait."),
        "memory-full": _("The server is out of memory: raise maxmemory, or trim what is large."),
        "read-only": _("The server takes no writes: it is a replica, or its disk is full."),
        "memory": _("%s is memory://: events stay inside the process that publishes them.") % place,
    }
    return known.get(kind, _("The server's log says more."))


def _in_memory() -> Trouble:
    return Trouble(kind="memory", message=mask(conf.LOCATION), since=now(), advice=advice("memory"))
