"""Redis Streams: one listener of each service, until done or dead; at least once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import ClassVar

from .. import announcements, heartbeat
from ..conf import conf
from ..exceptions import TransportError, Unreachable
from .base import Delivery, Outgoing, Subscription, Transport
from .claims import Claims, report_trimmed
from .client import Command, ErrorReply, Waiter, Wire, refused, server_name
from .groups import Groups
from .keeper import Keeper, Pair, Recorder
from .outlet import Outlet
from .pending import Again, listed
from .roads import GROUP_IS_GONE, Road, acknowledgement, delivery, is_error, parts
from .scripts import BURY

logger = logging.getLogger("redis_events.listen")

MOST_ROADS = 64
"""Connections a listener reads with; beyond that channels share them."""
_PAIR = attrgetter("channel", "group")
BROWSE = 5.0
"""Seconds a page of old events may take: 500 of them can be 125 MiB."""
QUICK = 0.02
"""Seconds a batch may take for the next to be read ahead: a slower one would keep it from an idle listener, for 1 %."""


class StreamTransport(Transport):
    """XADD on one side, XREADGROUP and XACK on the other.

    Receiving happens in one thread, which waits on all roads at once. ``keep`` runs in another with a connection of its
    own: leases, floors, trimming.
    """

    durable: ClassVar[bool] = True
    grouped: ClassVar[bool] = True

    def __init__(self, location: str, *, timeout: float | None = None) -> None:
        super().__init__(location)
        self.consumer = heartbeat.own_id()
        self._outlet = Outlet(location, timeout=timeout)
        self._browsing = Outlet(location, timeout=BROWSE)
        self._subscriptions: tuple[Subscription, ...] = ()
        self._waiter: Waiter | None = None
        self._care: Wire | None = None
        self._keeper: Keeper | None = None
        self._recorder: Recorder | None = None
        self._roads: list[Road] = []
        self._ready: deque[Road] = deque()
        self._is_quick = False
        self._handed_over = 0.0
        self._settled: dict[Pair, set[str]] = {}
        self._again = Again()
        self._claims = Claims(self.consumer)
        self._groups = Groups()
        self._next_look = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no subscription has turned out to be a stream so far."""
        return not self._roads

    # -------------------------------------------------------------- sending

    def send(self, batch: Sequence[Outgoing]) -> None:
        self._outlet.publish(batch, _addition)

    def add(self, batch: Sequence[Outgoing]) -> list[bytes | ErrorReply]:
        """What became of each event of a batch: its entry id, or the server's refusal. Raises Unreachable."""
        return self._outlet.exchange(batch, _addition)

    def lengths(self, channels: Sequence[str]) -> list[int | ErrorReply]:
        """How many entries each channel has. Raises Unreachable."""
        return self._outlet.call([("XLEN", conf.redis_name(channel)) for channel in channels])

    def ping(self) -> None:
        """Raise Unreachable when the server does not answer now."""
        self._outlet.call([("PING",)])

    def wake_relays(self) -> None:
        """Tell the relays of this service that something waits for them. Raises Unreachable."""
        self._outlet.call([("PUBLISH", conf.wake_channel, "")])

    # -------------------------------------------------------------- receiving

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        self._disconnect()
        self._subscriptions = tuple(subscriptions)
        self._waiter = self._waiter or Waiter()
        self._care = Wire(self.location, timeout=max(1.0, conf.PUBLISH_TIMEOUT))
        self._next_look = 0.0
        self._look_around()
        self.heard = time.monotonic()

    def receive(self, *, limit: int, timeout: float) -> list[Delivery]:
        self._is_quick = time.monotonic() - self._handed_over < QUICK
        found = self._receive_at_once(limit) if timeout <= 0 else self._await(limit, time.monotonic() + timeout)
        if self._is_quick:
            self._read_ahead(limit)
        self._handed_over = time.monotonic()
        return found

    def _await(self, limit: int, deadline: float) -> list[Delivery]:
        while True:
            self._look_around()
            self._ask(limit)  # first: what is settled is acknowledged with it, before more is run
            found = self._take_again(limit) or self._take_claimed()
            if found:
                return found
            found, is_woken = self._read_roads(0.0 if self._claims else min(deadline, self._next_look))
            if found or is_woken or time.monotonic() >= deadline:
                return found

    def _receive_at_once(self, limit: int) -> list[Delivery]:
        """What is there now: nothing only when every road has said so and nothing is left to take over."""
        self._look_around()
        self._ask(limit, blocks=False)
        found, is_woken = self._take_again(limit) or self._take_claimed(), False
        while not found and not is_woken and any(road.is_asked for road in self._roads):
            found, is_woken = self._read_roads(time.monotonic() + conf.POLL)
        if not found and self._claims.has_more:
            self._look_around()
        return found or self._take_claimed()

    def remainder(self) -> list[Delivery]:
        deadline = time.monotonic() + conf.PUBLISH_TIMEOUT
        found = self._take_again(conf.BATCH)
        is_expected = True
        while is_expected and not found:
            is_expected = any(road.is_ahead for road in self._roads) and time.monotonic() < deadline
            found, _ = self._read_roads(deadline if is_expected else 0.0)
        return found

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Remembered until the server has answered the XACK: what comes again meanwhile is not run again."""
        roads = self._roads_by_pair()
        for pair, part in groupby(deliveries, key=_PAIR):
            ids = [each.id for each in part]
            self._settled.setdefault(pair, set()).update(ids)
            road = roads.get(pair)
            if road and not road.is_blocked and not self._claims.holds(pair, ids):
                road.settled.setdefault(pair[0], []).extend(ids)
            else:
                self._settle_late({pair: ids})

    def _settle_late(self, late: dict[Pair, list[str]]) -> None:
        """On the second connection: what was claimed, and what has no road any more. A lost one is sent again later."""
        if not late or not self._care:
            return
        try:
            answers = self._care.call([acknowledgement(*pair, ids) for pair, ids in late.items()])
        except TransportError:
            self._next_look = 0.0  # receive() meets the same lost connection, and the caller subscribes again
            return
        for (pair, ids), answer in zip(late.items(), answers, strict=True):
            if is_error(answer):
                self._give_up(pair, answer)
            else:
                self._forget(pair, ids)

    def _forget(self, pair: Pair, ids: Sequence[str]) -> None:
        self._settled.get(pair, set()).difference_update(ids)
        self._claims.finish(pair, ids)

    def _take_again(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        trimmed: dict[Pair, list[str]] = {}
        while self._again and not found:
            assert self._care
            found, gone, refused = self._again.take(self._care, limit)
            for pair, ids in gone.items():
                trimmed.setdefault(pair, []).extend(ids)
            for pair, answer in refused.items():
                self._give_up(pair, answer)
        for pair, ids in trimmed.items():
            report_trimmed(pair, ids)
        self._settle_late(trimmed)
        return found

    def _take_claimed(self) -> list[Delivery]:
        assert self._care
        claimed = self._claims.take(self._care)
        if self._claims.has_more and not self._claims:
            self._next_look = 0.0
        return [each for each in claimed if not self._is_decided(each)]

    def _is_decided(self, claimed: Delivery) -> bool:
        """Whether we take back what another took over and we have decided all the same: that is settled, not run."""
        pair = claimed.channel, claimed.group
        if claimed.id not in self._settled.get(pair, ()):
            return False
        self._settle_late({pair: [claimed.id]})
        return True

    def _ask(self, limit: int, *, blocks: bool = True) -> None:
        for road in self._roads:
            road.ask(limit, blocks=blocks, ahead=self._is_quick and road.is_full)

    def _read_ahead(self, limit: int) -> None:
        for road in self._roads:
            if road.is_full and not road.is_asked:
                road.ask(limit, blocks=False, ahead=True)

    def _read_roads(self, until: float) -> tuple[list[Delivery], bool]:
        """The next road's deliveries, and whether somebody called ``wake``. Each road that is ready has its turn."""
        is_woken = False
        if not self._ready:
            is_woken = self._await_roads(until - time.monotonic())
        while self._ready:
            found = self._collect(self._ready.popleft())
            if found:
                return found, False
        return [], is_woken

    def _await_roads(self, timeout: float) -> bool:
        assert self._waiter
        buffered = [road for road in self._roads if road.is_answered or road.wire.has_buffered]
        wires, is_woken = self._waiter.wait(0.0 if buffered else timeout)
        self._ready.extend(road for road in self._roads if road.wire in wires or road in buffered)
        if any(road.is_dead and road not in self._ready for road in self._roads):
            raise Unreachable("no answer to a read")
        if self._ready:
            self.heard = time.monotonic()
        return is_woken

    def _collect(self, road: Road) -> list[Delivery]:
        collected = road.collect()
        if collected is None:
            return []
        acknowledged, answer = collected
        for channel, ids in acknowledged:
            self._forget((channel, road.group), ids)
        if is_error(answer):
            self._give_up((road.channels[0], road.group), answer)
            return []
        return self._groups.marked(road.deliveries(answer))

    def _give_up(self, pair: Pair, answer: ErrorReply) -> None:
        """Something was refused on the road of this channel: look at once which of the road's channels is to blame."""
        road = self._roads_by_pair().get(pair)
        if road is None:  # given up already: it is settled when the server lets us listen again
            return
        self._close_road(road)
        self._next_look = 0.0
        if answer.code not in GROUP_IS_GONE:
            for channel in road.channels:
                self._groups.put_aside(self.location, (channel, road.group), answer)

    # -------------------------------------------------------------- looking around

    def _look_around(self) -> None:
        """Once every POLL: new channels, refused ones whose time has come, work of listeners that are gone."""
        if time.monotonic() < self._next_look:
            return
        if self._care is None:
            raise Unreachable("not subscribed")
        self._next_look = time.monotonic() + conf.POLL
        known = set(self._pairs())
        wanted = self._groups.wanted(self._subscriptions, announcements.read(self._care))
        new = [pair for pair in wanted if pair not in known]
        self._open_roads([pair for pair in new if self._groups.open(self._care, pair) and self._recover(pair)])
        if not self._claims:
            self._claims.look(self._care, self._pairs())

    def _recover(self, pair: Pair) -> bool:
        """What is pending under our own name: decided outcomes are settled again, the rest is delivered again.

        False when the server refuses that: the channel is put aside, and nothing is read that could not be settled.
        """
        assert self._care
        pending = listed(self._care, pair, self.consumer)
        if isinstance(pending, ErrorReply):
            self._groups.put_aside(self.location, pair, pending)
            return False
        settled = self._settled.setdefault(pair, set())
        settled.intersection_update(pending)
        decided = frozenset(settled)
        if decided:
            answer = self._care.call([acknowledgement(*pair, sorted(decided))])[0]
            if is_error(answer):
                self._groups.put_aside(self.location, pair, answer)
                return False
            self._forget(pair, sorted(decided))
        self._again.put(pair, [id for id in pending if id not in decided])
        self._groups.note_open(pair)
        return True

    def _open_roads(self, pairs: Sequence[Pair]) -> None:
        assert self._waiter
        by_group: dict[str, list[str]] = {}
        for channel, group in pairs:
            by_group.setdefault(group, []).append(channel)
        for group, channels in by_group.items():
            channels += self._taken_from_a_road(group) if len(self._roads) >= MOST_ROADS else ()
            for part in parts(channels, MOST_ROADS - len(self._roads)):
                wire = Wire(self.location, timeout=max(1.0, conf.PUBLISH_TIMEOUT))
                self._waiter.add(wire)
                self._roads.append(Road(wire, group=group, channels=part, consumer=self.consumer))

    def _taken_from_a_road(self, group: str) -> tuple[str, ...]:
        """The channels of the group's emptiest road, which is given up for one that takes more."""
        roads = [road for road in self._roads if road.group == group]
        if not roads:
            return ()
        chosen = min(roads, key=lambda road: len(road.channels))
        self._close_road(chosen)
        for channel in chosen.channels:
            self._recover((channel, group))  # what it was about to bring
        return chosen.channels

    def _close_road(self, road: Road) -> None:
        assert self._waiter
        self._waiter.remove(road.wire)
        road.wire.close()
        self._roads.remove(road)
        self._ready = deque(each for each in self._ready if each is not road)
        for channel, ids in road.settled.items():
            self._settle_late({(channel, road.group): ids})

    # -------------------------------------------------------------- the rest

    def browse(self, channel: str, *, start: str = "-", end: str = "+", limit: int = 100) -> list[Delivery]:
        answer = self._browsing.call([("XRANGE", conf.redis_name(channel), start, end, "COUNT", limit)])[0]
        if is_error(answer):
            raise refused(self.location, str(answer))
        return [delivery(channel, "", entry_id, fields) for entry_id, fields in answer]

    def keep(self) -> None:
        self._keeper = self._keeper or Keeper(self.location, self.consumer)
        self._keeper.keep(self._pairs())

    def record(self) -> None:
        self._recorder = self._recorder or Recorder(self.location)
        self._recorder.record(list(self._groups.met))  # also when its roads are closed: the last look comes after that

    def _roads_by_pair(self) -> dict[Pair, Road]:
        return {(channel, road.group): road for road in tuple(self._roads) for channel in road.channels}

    def _pairs(self) -> list[Pair]:
        return list(self._roads_by_pair())

    def wake(self) -> None:
        waiter = self._waiter
        if waiter:
            waiter.wake()

    def close(self) -> None:
        self._leave()
        self._disconnect()
        self._outlet.close()
        self._browsing.close()
        if self._waiter:
            self._waiter.close()
        self._waiter = None

    def _leave(self) -> None:
        """Settle what is decided, give back what was claimed, and remove our consumer where nothing is pending."""
        pairs = self._pairs()
        self._close_roads()  # first: a blocked read would take one more
        self._settle_late({pair: sorted(ids) for pair, ids in self._settled.items() if ids})
        if not self._care:
            return
        try:
            self._claims.give_back(self._care)
            self._care.call([("EVAL", BURY, 1, conf.redis_name(each), group, self.consumer) for each, group in pairs])
        except TransportError:
            return  # it is away: the next listener finds what we leave

    def _close_roads(self) -> None:
        for road in self._roads:
            if self._waiter:
                self._waiter.remove(road.wire)
            road.wire.close()
        self._roads, self._ready = [], deque()

    def _disconnect(self) -> None:
        self._close_roads()
        if self._care:
            self._care.close()
        self._care = None
        self._again.forget()
        self._claims.forget()

    def describe(self) -> str:
        return server_name(self.location)


def _addition(outgoing: Outgoing) -> Command:
    return ("XADD", conf.redis_name(outgoing.channel), "*", "data" if outgoing.plain else "event", outgoing.body)
