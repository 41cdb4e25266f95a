"""Keeping streams short: what every group has settled goes after RETENTION; at MAX_LENGTH the rest, loudly."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import msgspec

from .. import announcements, heartbeat
from ..announcements import Announcement
from ..conf import conf
from ..heartbeat import Card
from ..wording import one_line
from .client import Wire, by_name
from .roads import is_error
from .scripts import CUT, TRIM

logger = logging.getLogger("redis_events.listen")

CUT_AT_ONCE = 500
"""Entries removed in one step above MAX_LENGTH: their ids are looked at."""
CUT_FOR = 1.0
"""Seconds of removing at a look; the heartbeat comes from the same thread and cannot wait for long."""


OURS = "~"
"""How groups begin that are nobody's."""
CUT_MARK = "~cut"
"""The group whose position says up to where MAX_LENGTH has removed what was not settled. It is lost with the stream."""


class Cap(msgspec.Struct):
    """What MAX_LENGTH has done to a channel since it was passed. ``lost``: entries some group had not settled."""

    removed: int = 0
    lost: int = 0


class Trimmer:
    """Trims streams and says, once per change, what keeps it from doing so or makes it do more."""

    def __init__(self) -> None:
        self._over: dict[str, Cap] = {}
        self._unserved: dict[tuple[str, str], int] = {}
        """Groups without a listener that have work waiting, and how many looks have found them so."""

    def trim(self, wire: Wire, channels: Iterable[str]) -> None:
        """Look after these channels. Raises TransportError."""
        announced, cards = announcements.read(wire), heartbeat.cards(wire)
        for channel in sorted(channels):
            oldest = time.time() - announcements.retention(channel, announced)
            wire.call([("EVAL", TRIM, 1, conf.redis_name(channel), f"{int(oldest * 1000)}-0")])
            self._keep_cap(wire, channel, announced)
            self._look_at_groups(wire, channel, cards)

    # -------------------------------------------------------------- MAX_LENGTH

    def _keep_cap(self, wire: Wire, channel: str, announced: list[Announcement]) -> None:
        """The first time it is only said; whoever reads that has until the next look."""
        most = announcements.max_length(channel, announced)
        length = wire.call([("XLEN", conf.redis_name(channel))])[0] if most else 0
        if most is None or is_error(length) or length <= most:
            self._within_cap(channel)
        elif channel in self._over:
            self._cut(wire, channel, most, self._over[channel])
        else:
            self._over[channel] = Cap()
            what = "the oldest will be removed, whether they are settled or not"
            logger.error("%s has %s, more than MAX_LENGTH (%s): %s", channel, _entries(length), f"{most:,}", what)

    def _cut(self, wire: Wire, channel: str, most: int, cap: Cap) -> None:
        lost_before, until = cap.lost, time.monotonic() + CUT_FOR
        while time.monotonic() < until:
            answer = wire.call([("EVAL", CUT, 1, conf.redis_name(channel), most, CUT_AT_ONCE, CUT_MARK)])[0]
            if is_error(answer) or not answer[0]:
                break
            cap.removed, cap.lost = cap.removed + answer[0], cap.lost + answer[1]
        if cap.lost > lost_before:
            lost = _entries(cap.lost - lost_before)
            logger.error("%s: MAX_LENGTH removed %s that not every group had settled", channel, lost)

    def _within_cap(self, channel: str) -> None:
        cap = self._over.pop(channel, None)
        if cap:
            what = f"{_entries(cap.removed)} were removed, {cap.lost:,} of them unsettled"
            logger.warning("%s is within MAX_LENGTH again: %s", channel, what)

    # -------------------------------------------------------------- groups nobody serves

    def _look_at_groups(self, wire: Wire, channel: str, cards: list[Card]) -> None:
        """A group whose listeners are all gone keeps what it has not read: seen twice, it is no mere restart."""
        name = conf.redis_name(channel)
        groups, stream = wire.call([("XINFO", "GROUPS", name), ("XINFO", "STREAM", name)])
        if is_error(groups) or is_error(stream):
            return
        last = by_name(stream)[b"last-generated-id"]
        served = {group for card in cards for group in card.groups(channel)}
        for facts in map(by_name, groups):
            group = facts[b"name"].decode(errors="backslashreplace")
            if not group.startswith(OURS):
                is_behind = facts[b"pending"] > 0 or facts[b"last-delivered-id"] != last
                self._note_group(channel, group, is_waiting=is_behind and group not in served)

    def _note_group(self, channel: str, group: str, *, is_waiting: bool) -> None:
        looks = self._unserved.pop((channel, group), 0)
        if is_waiting:
            self._unserved[channel, group] = looks + 1
            if looks == 1:
                logger.error(
                    "%s: no listener of %s is alive; what it has not read is kept for it", channel, one_line(group)
                )
        elif looks > 1:
            logger.warning("%s: %s is served again, or has nothing left to read", channel, one_line(group))


def _entries(number: int) -> str:
    return f"{number:,} entry" if number == 1 else f"{number:,} entries"
