"""Events that stand in streams: looking through them, newest first, and what is known of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..codec import decode
from ..conf import conf, glob
from ..exceptions import DecodeError
from ..floors import is_entry_id, parse
from ..transports.base import Delivery
from ..transports.roads import delivery
from ..wording import one_line
from .facts import EventFacts, EventPage
from .scene import covers, scene
from .server import Server, at
from .streams import moment

SCAN = 10_000
"""Entries one search looks at."""
CHUNK = 2_000
"""Entries asked for at once, of all channels together."""
CHUNK_BYTES = 4 * 2**20
FIRST_CHUNK = 100
"""Entries asked for before it is known how large they are."""
Place = tuple[int, int, str]
"""Where an entry stands among all: milliseconds, sequence, channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a search wants; what is empty wants everything. ``type`` is a glob, ``text`` is looked for in the bytes."""

    text: str = ""
    type: str = ""
    key: str = ""
    id: str = ""
    correlation_id: str = ""

    def wants_bytes(self, body: bytes) -> bool:
        """Whether the text is there. Case of ASCII is the same; other clients may have written the rest as escapes."""
        if not self.text:
            return True
        there = body.lower()
        ways = (self.text.encode(errors="replace"), self.text.encode("ascii", "backslashreplace"))
        return any(way.lower() in there for way in ways)

    def wants(self, event: EventFacts) -> bool:
        """Whether the rest fits."""
        return (
            (not self.type or glob(self.type, event.type))
            and (not self.key or self.key == event.key)
            and (not self.id or self.id in (event.id, event.entry_id))
            and (not self.correlation_id or self.correlation_id == event.correlation_id)
        )


def events(
    pattern: str = "*",
    *,
    text: str = "",
    type: str = "",
    key: str = "",
    id: str = "",
    correlation_id: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    before: str = "",
    limit: int = 50,
    scan: int = SCAN,
    server: Server | None = None,
) -> EventPage:
    """Events of the streams that ``pattern`` covers, newest first: at most ``limit``, of ``scan`` entries looked at.

    ``before`` is the ``next`` of an earlier page; ``since`` and ``until`` are included. A channel that nobody named is
    looked at too where ``pattern`` is its whole name.
    """
    wanted = Filter(text=text, type=type, key=key, id=id, correlation_id=correlation_id)
    with at(server) as asked:
        names = [name for name in scene(asked).stream_names() if covers(pattern, name)]
        names = names or ([] if "*" in pattern or not pattern else [pattern])
        log = Log(asked, names, since=since, until=until, before=before)
        return _page(log, wanted, before=before, limit=limit, scan=scan)


def _page(log: Log, wanted: Filter, *, before: str, limit: int, scan: int) -> EventPage:
    found: list[EventFacts] = []
    last: Place | None = None
    scanned = 0
    for place, entry in log.entries(at_least=min(limit, scan)):
        last, scanned = place, scanned + 1
        if wanted.wants_bytes(entry.body) and wanted.wants(event := as_facts(entry)):
            found.append(event)
        if len(found) == limit or scanned == scan:
            return EventPage(events=found, scanned=scanned, back_to=_moment(last), next=_cursor(last))
    rest = "" if log.is_whole else _cursor(last) or before
    return EventPage(events=found, scanned=scanned, back_to=_moment(last), next=rest)


def _moment(place: Place | None) -> datetime | None:
    return moment(f"{place[0]}-0") if place else None


def _cursor(place: Place | None) -> str:
    return f"{place[0]}-{place[1]} {place[2]}" if place else ""


def _place(cursor: str) -> Place | None:
    """The place a cursor means; None for what is none: it comes from a page's address."""
    id, _, channel = cursor.partition(" ")
    return (*parse(id), channel) if is_entry_id(id) else None


class Log:
    """The entries of several streams as one log, newest first, read in chunks as they are needed."""

    def __init__(
        self,
        server: Server,
        channels: Sequence[str],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        before: str = "",
    ) -> None:
        self.is_whole = True
        """Whether everything asked for came; not so when the server went away, or patience was over."""
        self._server = server
        self._since = f"{_milliseconds(since)}-0" if since else "-"
        end = f"{_milliseconds(until)}-{2**64 - 1}" if until else "+"
        self._ends = {channel: _end(channel, _place(before), end) for channel in channels}
        self._waiting: dict[str, list[Any]] = {}
        self._size = CHUNK_BYTES // FIRST_CHUNK

    def entries(self, *, at_least: int) -> Iterator[tuple[Place, Delivery]]:
        """Where each entry stands, and what it is. ``at_least`` so many will be wanted."""
        most = min(at_least, FIRST_CHUNK)
        while self._fill(most):
            newest = max(self._waiting, key=lambda channel: self._waiting[channel][-1][0])
            place, fields = self._waiting[newest].pop()
            if not self._waiting[newest]:
                del self._waiting[newest]
            most = CHUNK
            yield place, delivery(newest, "", f"{place[0]}-{place[1]}".encode(), fields)

    def _fill(self, most: int) -> bool:
        """Have the next entry of each channel that has one; whether there is any.

        When one has run empty, those that soon will are asked along with it: streams that are equally busy would
        otherwise cost a round trip each.
        """
        if self._ends.keys() <= self._waiting.keys():
            return bool(self._waiting)
        few = most // len(self._ends) // 2
        wanted = [channel for channel in self._ends if len(self._waiting.get(channel, ())) <= few]
        count = max(1, min(most, CHUNK // len(wanted), CHUNK_BYTES // self._size // len(wanted)))
        ask = [("XREVRANGE", conf.redis_name(each), self._ends[each], self._since, "COUNT", count) for each in wanted]
        for channel, answer in zip(wanted, self._server.ask(*ask), strict=True):
            self._take(channel, answer, count)
        return bool(self._waiting)

    def _take(self, channel: str, answer: Any, count: int) -> None:
        if answer is None:
            self.is_whole = self._server.trouble is None and self.is_whole
        if not answer:
            del self._ends[channel]
            return
        self._size = max(1, sum(len(value) for _, fields in answer for value in fields) // len(answer))
        older = [((*parse(id.decode()), channel), fields) for id, fields in reversed(answer)]
        self._waiting[channel] = older + self._waiting.get(channel, [])
        if len(answer) < count:
            del self._ends[channel]
        else:
            self._ends[channel] = f"({answer[-1][0].decode()}"


def _end(channel: str, before: Place | None, end: str) -> str:
    if before is None:
        return end
    id = f"{before[0]}-{before[1]}"
    return id if channel < before[2] else f"({id}"


def _milliseconds(at: datetime) -> int:
    return max(0, int(at.timestamp() * 1000))


# ------------------------------------------------------------------ one event


def event(channel: str, entry_id: str, *, server: Server | None = None) -> EventFacts | None:
    """One event by its place; None where there is none, or the server does not say."""
    if not is_entry_id(entry_id):
        return None
    with at(server) as asked:
        answer = asked.ask(("XRANGE", conf.redis_name(channel), entry_id, entry_id))[0]
    return read(channel, answer[0][0], answer[0][1]) if answer else None


def read(channel: str, entry_id: bytes, fields: list[bytes]) -> EventFacts:
    """An entry as an event, with the problem where it is none."""
    return as_facts(delivery(channel, "", entry_id, fields))


def as_facts(entry: Delivery) -> EventFacts:
    """A delivery as an event."""
    taken = moment(entry.id) or datetime.fromtimestamp(0, tz=UTC)
    return facts(entry.channel, entry.body, taken, entry_id=entry.id, is_document=entry.is_document)


def facts(channel: str, body: bytes, taken: datetime, *, entry_id: str = "", is_document: bool = False) -> EventFacts:
    """The bytes of a message as facts."""
    id = f"{channel}/{entry_id}" if entry_id else ""
    try:
        found = decode(body, channel=channel, id=id, is_document=is_document).read()
    except DecodeError as error:
        return EventFacts(channel=channel, entry_id=entry_id, moment=taken, id=id, raw=body, problem=one_line(error))
    return EventFacts(
        channel=channel,
        entry_id=entry_id,
        moment=taken,
        id=found.id,
        type=found.type,
        source=found.source,
        key=found.key,
        correlation_id=found.correlation_id,
        causation_id=found.causation_id,
        data=found.data,
        raw=body,
    )
