"""What is pending under our own name, after a connection was lost: listed, then fetched a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..conf import conf
from .base import Delivery
from .client import ErrorReply, Wire
from .keeper import Pair
from .roads import delivery, is_error

MOST_LISTED = 1_000
"""Ids asked for in one command."""
FETCHED_AT_ONCE = 10
PATIENCE = 5.0
"""Seconds ten entries may take: they can be large, and the line slow."""


def listed(wire: Wire, pair: Pair, consumer: str) -> list[str] | ErrorReply:
    """The ids of all that is pending under this name, or why it cannot be listed or fetched. Raises Unreachable."""
    name = conf.redis_name(pair[0])
    found: list[str] = []
    start = "-"
    while True:
        # The second brings nothing, and tells whether `Again` will be allowed to fetch.
        page, refusal = wire.call(
            [("XPENDING", name, pair[1], start, "+", MOST_LISTED, consumer), ("XRANGE", name, "+", "-")]
        )
        for answer in (page, refusal):
            if is_error(answer):
                return ErrorReply(str(answer))
        found += [entry[0].decode() for entry in page]
        if len(page) < MOST_LISTED:
            return found
        start = f"({found[-1]}"


class Again:
    """Deliveries that come again, for they were not decided when the connection was lost."""

    def __init__(self) -> None:
        self._ids: deque[tuple[Pair, str]] = deque()

    def __bool__(self) -> bool:
        return bool(self._ids)

    def put(self, pair: Pair, ids: Sequence[str]) -> None:
        """These, in place of what was known of this stream and group."""
        others = [each for each in self._ids if each[0] != pair]
        self._ids = deque(others + [(pair, id) for id in ids])

    def forget(self) -> None:
        self._ids.clear()

    def take(self, wire: Wire, limit: int) -> tuple[list[Delivery], dict[Pair, list[str]], dict[Pair, ErrorReply]]:
        """The next few, ``limit`` at most; the ids of those that were trimmed meanwhile; refusals. Raises Unreachable.

        By XRANGE: to read them for the group would count as a delivery.
        """
        asked = [self._ids.popleft() for _ in range(min(limit, FETCHED_AT_ONCE, len(self._ids)))]
        commands = [("XRANGE", conf.redis_name(channel), id, id) for (channel, _), id in asked]
        found: list[Delivery] = []
        trimmed: dict[Pair, list[str]] = {}
        refused: dict[Pair, ErrorReply] = {}
        for (pair, id), answer in zip(asked, wire.call(commands, timeout=PATIENCE), strict=True):
            if is_error(answer):
                refused[pair] = answer
            elif answer:
                entry_id, fields = answer[0]
                found.append(delivery(*pair, entry_id, fields, is_repeated=True))
            else:
                trimmed.setdefault(pair, []).append(id)
        return found, trimmed, refused
