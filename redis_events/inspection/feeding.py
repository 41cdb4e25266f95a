"""What is happening now: what streams took since the last look, and what was heard on pub/sub meanwhile."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..conf import RESERVED, conf
from ..exceptions import TransportError
from ..routing import create
from ..transports import scripts
from ..transports.base import Delivery, Subscription, Transport
from ..transports.client import Wire, by_name
from .facts import EventFacts
from .log import facts, read
from .scene import covers, scene
from .server import Server, at
from .streams import moment

logger = logging.getLogger("redis_events.inspection")

MOST = 200
"""Events of one channel in one look."""
MOST_AT_ONCE = 5_000
"""Entries of one channel in one millisecond: a server takes about a thousand."""
LISTENS = 15
"""Seconds after the last look until nobody listens to pub/sub for the feed any more."""
TURN_LASTS = 5
"""Seconds after which another process may write down what is heard, when the one that did is gone."""
KEPT = 1_000
"""Messages of pub/sub that are kept for the pages that watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Events since a cursor, oldest first, and the cursor to ask with next. ``skipped``: there were more."""

    events: Sequence[EventFacts]
    cursor: str
    skipped: bool


def feed(pattern: str = "*", *, after: str = "", server: Server | None = None) -> Feed:
    """What came since ``after``, the cursor of the last look; without one only where to begin.

    Nothing is left out between two looks: an entry is shown once its millisecond is over, so that none can still come
    before it. Where more came than one look takes, the next one goes on there.
    """
    with at(server) as asked:
        _want_pubsub(asked)
        names = [name for name in scene(asked).stream_names() if covers(pattern, name)]
        if not (after.isdecimal() and len(after) < 16):
            over = _over(asked)
            return Feed(events=(), cursor="" if over is None else str(over), skipped=False)
        looks = _look(asked, names, int(after), limit=MOST)
        if looks and looks.over <= int(after):  # asked within the same millisecond, or the server's clock went back
            return Feed(events=(), cursor=str(looks.over), skipped=False)
        if looks and looks.until <= int(after):  # more within a millisecond than one look takes
            looks = _look(asked, names, int(after), limit=MOST_AT_ONCE)
    if looks is None:
        return Feed(events=(), cursor=after, skipped=False)
    is_stuck = looks.until <= int(after)
    until = looks.over if is_stuck else looks.until
    found = [
        (_order(entry), event)
        for name, entry in looks.entries
        if _milliseconds(entry) <= until and (event := _event(name, entry)) and covers(pattern, event.channel)
    ]
    return Feed(events=[event for _, event in sorted(found, key=_first)], cursor=str(until), skipped=is_stuck)


@dataclass(frozen=True, slots=True)
class _Look:
    """What was read: up to which millisecond everything is there, and which one was over."""

    entries: list[tuple[str, Any]]
    until: int
    over: int


def _look(server: Server, names: Sequence[str], after: int, *, limit: int) -> _Look | None:
    keys = {conf.redis_name(name): name for name in names} | {_recent(): ""}
    start = f"{after + 1}-0"
    answers = server.ask(*(("XRANGE", key, start, "+", "COUNT", limit) for key in keys))
    over = _over(server)
    if server.trouble or over is None:
        return None
    cut = [_milliseconds(answer[-1]) - 1 for answer in answers if answer and len(answer) == limit]
    entries = [(name, entry) for name, answer in zip(keys.values(), answers, strict=True) for entry in answer or ()]
    return _Look(entries, min([over, *cut]), over)


def _over(server: Server) -> int | None:
    """The last millisecond that was over when it was asked which streams there are; None where the server did not say.

    Not a later one: a stream that was announced since then would lose its first entries.
    """
    here = scene(server)
    return None if here.skew is None else int(here.moment.timestamp() * 1000) - 1


def _first(pair: tuple[tuple[int, int], EventFacts]) -> tuple[int, int]:
    return pair[0]


def _milliseconds(entry: Any) -> int:
    return int(entry[0].partition(b"-")[0])


def _order(entry: Any) -> tuple[int, int]:
    ms, _, seq = entry[0].partition(b"-")
    return int(ms), int(seq)


def _event(name: str, entry: Any) -> EventFacts | None:
    id, fields = entry
    if name:
        return read(name, id, fields)
    heard = by_name(fields)
    taken = moment(id.decode())
    if taken is None or heard.keys() != {b"channel", b"body"}:
        return None
    return facts(heard[b"channel"].decode(errors="replace"), heard[b"body"], taken)


# ------------------------------------------------------------------ hearing pub/sub for the pages that watch


def _recent() -> str:
    return conf.redis_name(f"{RESERVED}recent")


def _wanted() -> str:
    return conf.redis_name(f"{RESERVED}recent:wanted")


def _writer() -> str:
    return conf.redis_name(f"{RESERVED}recent:writer")


def _want_pubsub(server: Server) -> None:
    """Somebody watches: one process of all writes down what it hears on pub/sub, as long as that is so."""
    name = secrets.token_hex(8)
    answers = server.ask(("SET", _wanted(), "1", "EX", LISTENS), ("SET", _writer(), name, "EX", TURN_LASTS, "NX"))
    if answers[1]:
        threading.Thread(target=_record, args=[name], name="redis_events-recorder", daemon=True).start()


def _record(name: str) -> None:
    """Listen until nobody has looked for a while."""
    try:
        transport = create("pubsub")
        try:
            transport.subscribe([Subscription(channel="*")])
            _write_down(transport, name)
        finally:
            transport.close()
    except TransportError as error:
        logger.debug("pub/sub is not heard for the live feed: %s", error)


def _write_down(transport: Transport, name: str) -> None:
    wire = Wire(conf.LOCATION, timeout=1.0)
    try:
        while _is_our_turn(wire, name):
            heard = transport.receive(limit=conf.BATCH, timeout=1.0)
            if heard:
                wire.call([_addition(each) for each in heard])
    finally:
        wire.close()


def _is_our_turn(wire: Wire, name: str) -> bool:
    """Whether somebody still watches, and no other has taken over: then all would be written down twice."""
    turn = ("EVAL", scripts.TURN, 1, _writer(), name, TURN_LASTS)
    return wire.call([("EXISTS", _wanted()), turn, ("EXPIRE", _recent(), LISTENS)])[:2] == [1, 1]


def _addition(heard: Delivery) -> tuple[Any, ...]:
    body = heard.body[: conf.MAX_EVENT_BYTES + 1]
    return ("XADD", _recent(), "MAXLEN", "~", KEPT, "*", "channel", heard.channel, "body", body)
