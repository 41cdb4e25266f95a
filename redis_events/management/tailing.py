"""Following events as they come: one line each, also across lost connections."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from .. import inspection
from ..conf import RESERVED, conf
from ..events import Event, now
from ..exceptions import Unreachable
from ..inspection import EventFacts, Server
from ..subscribing import subscribe
from ..wording import one_line, short_id
from .tables import duration, moment, written

TURN = 1.0
"""Seconds of quiet after which it is noted that the connection was still there."""
UNNOTICED = 6.0
"""Seconds a connection can be dead before we see it: so much is read again after a gap."""
MOST_REMEMBERED = 10_000
PAGE = 1_000
MOST_CAUGHT_UP = 10_000
PATIENCE = 10.0
LONGEST = 4_000
"""Characters of a line that is cut to no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event, as it is shown."""

    time: datetime
    channel: str
    type: str
    key: str
    id: str
    source: str
    data: Any

    def text(self, *, width: int, with_data: bool = True) -> str:
        """Time, channel, type, key, id and data, cut to so many characters; what is empty is left out."""
        names = [one_line(each) for each in (self.channel, self.type, self.key, short_id(self.id))]
        parts = [_clock(self.time), *filter(None, names)]
        if with_data:
            parts.append(one_line(written(self.data), limit=width))
        whole = "  ".join(parts)
        return whole if len(whole) <= width else f"{whole[: width - 1]}…"

    def contains(self, text: str) -> bool:
        """Whether it has this text anywhere; upper and lower case are the same."""
        said = (self.channel, self.type, self.key, self.id, written(self.data))
        return any(text.lower() in each.lower() for each in said)


def _clock(time: datetime) -> str:
    local = timezone.localtime(time)
    day = "" if local.date() == timezone.localdate() else local.strftime("%Y-%m-%d ")
    return day + local.strftime("%H:%M:%S.%f")[:-3]


def _of_event(event: Event[Any]) -> Line:
    names = ("time", "channel", "type", "key", "source", "data")
    # A bare message on pub/sub has no id; the one it was given here means nothing to anybody else.
    is_named = event.type or event.id.startswith(f"{event.channel}/")
    return Line(id=event.id if is_named else "", **{name: getattr(event, name) for name in names})


def _of_facts(facts: EventFacts) -> Line:
    names = ("channel", "type", "key", "id", "source", "data")
    return Line(time=facts.moment, **{name: getattr(facts, name) for name in names})


@dataclass(slots=True, kw_only=True)
class Tail:
    """Shows what comes on some channels. ``show`` gets each event, ``tell`` a line about the connection.

    ``since`` is where to begin in streams, now by default; ``limit`` is after how many events to end, never by default.
    """

    channels: Sequence[str]
    show: Callable[[Line], None]
    tell: Callable[[str], None]
    since: datetime | None = None
    limit: int | None = None
    text: str = ""
    count: int = 0
    """Events shown."""
    _heard: datetime | None = None
    _gap_began: datetime | None = None
    _seen: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)

    def run(self) -> None:
        """Until ``limit`` is reached. Raises TransportError where it cannot begin, Refused also later."""
        began, since = now(), self.since
        while not self.is_full:
            try:
                self._follow(since)
            except Unreachable as error:
                if self._heard is None:
                    raise
                self._note_loss(error)
                since = max(began, self._heard - timedelta(seconds=UNNOTICED))

    @property
    def is_full(self) -> bool:
        return self.limit is not None and self.count >= self.limit

    def _follow(self, since: datetime | None) -> None:
        with subscribe(*self.channels, timeout=TURN) as events:
            self._note_return()
            if since:
                self._take(map(_of_facts, self._between(since)))
            while not self.is_full:
                self._take(map(_of_event, events))
                self._heard = now()

    def _take(self, lines: Iterator[Line]) -> None:
        for line in lines:
            self._heard = now()
            if self._is_new(line) and line.contains(self.text):
                self.count += 1
                self.show(line)
            if self.is_full:
                return

    def _is_new(self, line: Line) -> bool:
        """What is read from a stream again must not be shown again; messages of our own are nobody's events."""
        identity = (line.source, line.id)
        if line.channel.startswith(RESERVED) or (line.id and identity in self._seen):
            return False
        self._seen[identity] = None
        if len(self._seen) > MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return True

    # -------------------------------------------------------------- what is there already

    def _between(self, since: datetime) -> list[EventFacts]:
        """What streams took since then, oldest first."""
        with Server(patience=PATIENCE) as server:
            found = [event for channel in self.channels for event in reversed(self._read(channel, since, server))]
            if server.trouble:
                raise Unreachable(server.trouble.message)
        return sorted(found, key=lambda event: event.moment)  # of one moment they stay as they were

    def _read(self, channel: str, since: datetime, server: Server) -> list[EventFacts]:
        """Newest first."""
        found: list[EventFacts] = []
        before = ""
        while len(found) < MOST_CAUGHT_UP:
            page = inspection.events(channel, since=since, before=before, limit=PAGE, server=server)
            found += [event for event in page.events if not event.problem]
            before = page.next
            if not before:
                return found
        self.tell(_("%(channel)s: shown from %(time)s on, there were more") % _from(channel, found))
        return found

    # -------------------------------------------------------------- the connection

    def _note_loss(self, error: Unreachable) -> None:
        if self._gap_began is None:
            self._gap_began = self._heard
            self.tell(_("connection lost, trying again: %s") % one_line(error))
        time.sleep(min(TURN, conf.RECONNECT_MAX))

    def _note_return(self) -> None:
        if self._gap_began:
            gap = duration((now() - self._gap_began).total_seconds())
            self.tell(_("connected again after %s; what was published on pub/sub meanwhile is not shown") % gap)
        self._gap_began, self._heard = None, now()


def _from(channel: str, found: Sequence[EventFacts]) -> dict[str, str]:
    return {"channel": channel, "time": moment(found[-1].moment)}
