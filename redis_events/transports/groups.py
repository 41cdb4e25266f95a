"""Consumer groups: there when they are needed, made again where they were, put aside while the server refuses them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from django.db import Error, close_old_connections

from .. import floors
from ..announcements import Announcement, announced_transport, stream_channels
from ..conf import conf
from ..exceptions import Unreachable
from ..retry import backoff
from ..wording import one_line
from .base import Delivery, Subscription
from .client import ErrorReply, Wire, by_name, refused
from .keeper import Pair
from .roads import is_error

logger = logging.getLogger("redis_events.listen")


class Aside(msgspec.Struct, frozen=True):
    """A channel the server refuses for now, and when to try it again (``time.monotonic``)."""

    until: float
    attempt: int
    answer: str


class Groups:
    """The groups one listener reads for."""

    def __init__(self) -> None:
        self.met: set[Pair] = set()
        """All that have been open."""
        self._aside: dict[Pair, Aside] = {}
        self._repeated: dict[Pair, floors.Id] = {}

    def wanted(self, subscriptions: Sequence[Subscription], announced: list[Announcement]) -> list[Pair]:
        """The stream channels behind subscriptions: those named, and for patterns those that are announced."""
        found: dict[Pair, None] = {}
        for subscription in subscriptions:
            for name in stream_channels(subscription.channel, announced):
                found[name, subscription.group] = None
        # A server that lost everything has lost the announcements too.
        for name, group in self.met:
            if conf.channel(name) is None and announced_transport(name, announced) is None:
                found[name, group] = None
        return list(found)

    def open(self, wire: Wire, pair: Pair) -> bool:
        """Whether the group is there now, made if need be. A channel the server refuses is put aside.

        Raises Unreachable.
        """
        aside = self._aside.get(pair)
        if aside and time.monotonic() < aside.until:
            return False
        answer = wire.call([("XPENDING", conf.redis_name(pair[0]), pair[1])])[0]
        if is_error(answer):
            answer = self._make(wire, pair)
        if is_error(answer):
            self.put_aside(wire.location, pair, answer)
            return False
        self.met.add(pair)
        return True

    def note_open(self, pair: Pair) -> None:
        """Nothing is refused any more."""
        if self._aside.pop(pair, None):
            logger.warning("listening on %s again", pair[0])

    def _make(self, wire: Wire, pair: Pair) -> Any:
        """A group begins at 0; when only the group was lost, at the floor its service has written down."""
        channel, group = pair
        name = conf.redis_name(channel)
        last_id = _last_id(wire.call([("XINFO", "STREAM", name)])[0])
        try:
            start = floors.start(channel, group, last_id=last_id)
        except Error as error:
            close_old_connections()
            return ErrorReply(f"FLOOR unknown, the database is away: {one_line(error)}")
        answer = wire.call([("XGROUP", "CREATE", name, group, start, "MKSTREAM")])[0]
        if is_error(answer) and answer.code == "BUSYGROUP":
            return None
        if not is_error(answer) and (start != "0" or pair in self.met):
            self._repeated[pair] = floors.parse(last_id or "0")
            logger.warning("the group %s of %s was gone; made again at %s", group, channel, start)
        return answer

    def put_aside(self, location: str, pair: Pair, answer: ErrorReply) -> None:
        """Leave this one alone for a while; told once. Raises Unreachable where all of the server is to blame."""
        error = refused(location, str(answer))
        if isinstance(error, Unreachable):
            raise error
        before = self._aside.get(pair)
        if before is None or before.answer != answer.code:
            logger.error("cannot listen on %s: %s. The other channels go on.", pair[0], answer)
        attempt = before.attempt + 1 if before else 1
        self._aside[pair] = Aside(time.monotonic() + backoff(attempt), attempt, answer.code)

    def marked(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Below where a stream was when its group was made again, somebody may have done it before."""
        return [self._mark(each) for each in deliveries] if self._repeated else deliveries

    def _mark(self, delivery: Delivery) -> Delivery:
        until = self._repeated.get((delivery.channel, delivery.group), (0, 0))
        if floors.parse(delivery.id) > until:
            return delivery  # which may be repeated all the same: an entry that was lost and sent again says so
        return msgspec.structs.replace(delivery, is_repeated=True)


def _last_id(answer: Any) -> str | None:
    """The stream's last generated id; None when there is no stream."""
    if is_error(answer):
        return None
    return str(by_name(answer)[b"last-generated-id"].decode())
