"""Healing: what Redis has lost of what this service's outbox sent is found within POLL and sent again.

What is there is known by three things. The *mark*: all rows sent up to this entry id were in the stream. The *marker*:
a group nobody reads, inside the stream at that very id; it is lost with the stream and goes back with it. The *floors*:
up to where each group has settled, so that nothing which is done with everywhere is sent again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.db import router, transaction
from django.db.models import Q

from . import announcements, floors, sent
from .conf import conf
from .events import ago
from .exceptions import Refused
from .floors import Id, parse
from .models import ChannelState, OutboxEvent
from .outbox import MOST, halves
from .presence import Stream, can_be_made, look, missing, text
from .transports.client import Command, ErrorReply, Wire, milliseconds, refused, seconds_of
from .transports.roads import is_error
from .transports.scripts import ADVANCE, TRIM
from .transports.trimming import CUT_MARK
from .wording import counted, one_line

logger = logging.getLogger("redis_events.relay")

LIST_EVERY = 10.0
"""Seconds between two looks at which channels there are."""
HEAL_FOR = 1.0
"""Seconds of sending again before the relay's other work has its turn."""
FLOOR = "~floor:"
"""How the rows of ChannelState begin that hold a group's floor as a relay saw it."""
NOTHING: Id = (0, 0)


class Loss(StrEnum):
    """What was found to be lost."""

    STREAM = "its stream was lost"
    TAIL = "its end was lost"
    ENTRY = "an entry was lost"
    MAYBE = "what was sent last was lost"
    """Nothing is known but that the connection is a new one."""


@dataclass(slots=True)
class Stored:
    """What the database says of a channel. ``mark`` is None where no relay has looked after it yet."""

    mark: Id | None
    floors: dict[str, Id]
    seen: dict[str, Any]

    @property
    def low(self) -> Id:
        """All groups that are known have settled everything up to here."""
        return min(self.floors.values(), default=NOTHING)


@dataclass(slots=True)
class Healing:
    """One loss being healed, over as many polls as it takes. ``floors`` are those from before the loss."""

    loss: Loss
    low: Id
    floors: dict[str, Id]
    is_new: bool = False
    """Whether no relay had looked after the channel before: then nothing is known to be lost."""
    in_flight: int | None = None
    """The greatest primary key that was unsent at the first scan; None before it."""
    until: Id = NOTHING
    """The greatest id that may have been lost: what is sent again gets a greater one, and is not scanned again."""
    is_scanned: bool = False
    at: sent.Place = (0, 0, -1)
    was_settled: bool = False
    """Whether every group was known to have settled all there was."""
    sent_again: int = 0
    again: Counter[str] = field(default_factory=Counter)
    """Events sent again that a group is not known to have settled."""

    @property
    def start(self) -> sent.Place:
        return (*max(self.low, min(self.floors.values(), default=NOTHING)), MOST)


class Healer:
    """Looks after the streams of one database's outbox. For one thread; several relays may do so at once."""

    def __init__(self, using: str | None = None) -> None:
        self.using = using or router.db_for_write(OutboxEvent)
        # Each database has its own rows, and with them a mark of its own.
        self.marker = f"~relay:{conf.SERVICE}" + ("" if self.using == "default" else f":{self.using}")
        self._wire: Wire | None = None
        self._channels: list[str] = []
        self._next_list = 0.0
        self._last = ""
        """The channel looked at last."""
        self._known: set[str] = set()
        """The channels looked at since the connection stands. A server that restarted has cut it."""
        self._healings: dict[str, Healing] = {}
        self._refused: dict[str, str] = {}

    def poll(self) -> None:
        """Look after every channel once; after HEAL_FOR the rest has its turn at the next call, and comes first.

        Raises TransportError and django.db.Error; call it again then.
        """
        deadline = time.monotonic() + HEAL_FOR
        try:
            wire = self._ready_wire()
            for channel in self._listed():
                self._last = channel  # first, so that trouble with one keeps nobody from the others
                self._visit(wire, channel)
                if self._healings and time.monotonic() > deadline:
                    return
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back."""
        if self._wire:
            self._wire.close()
        self._wire = None

    def _ready_wire(self) -> Wire:
        """A connection that never reconnects by itself: no restart of the server goes unnoticed."""
        if self._wire and self._wire.is_readable:
            self.close()
        if not self._wire:
            self._known.clear()
            self._wire = Wire(conf.LOCATION, timeout=1.0)
        return self._wire

    def _listed(self) -> list[str]:
        if time.monotonic() >= self._next_list:
            retained = max([conf.RETENTION, *(each.RETENTION or 0.0 for each in conf.CHANNELS.values())])
            found = sent.channels(using=self.using, since=time.time() - retained)
            named = [name for name, entry in conf.CHANNELS.items() if entry.OUTBOX and "*" not in name]
            self._channels = sorted({*found, *named})
            self._next_list = time.monotonic() + LIST_EVERY
        behind = [channel for channel in self._channels if channel > self._last]
        return behind + self._channels[: len(self._channels) - len(behind)]

    # -------------------------------------------------------------- one channel

    def _visit(self, wire: Wire, channel: str) -> None:
        try:
            self._look_after(wire, channel)
        except Refused as error:
            self._note_refusal(channel, str(error))
        else:
            self._refused.pop(channel, None)

    def _look_after(self, wire: Wire, channel: str) -> None:
        stored = self._stored(channel)
        stream = look(wire, channel)
        self._note_loss(wire, channel, stored, stream)
        self._known.add(channel)
        if channel not in self._healings:
            self._advance(wire, channel, stored, stream)
        elif self._heal(wire, channel, self._healings[channel]):
            _tell(channel, self._healings.pop(channel))
            self._advance(wire, channel, stored, look(wire, channel))

    def _note_refusal(self, channel: str, why: str) -> None:
        if self._refused.get(channel) != why:
            logger.error("%s is not looked after: %s", channel, one_line(why))
        self._refused[channel] = why

    def _stored(self, channel: str) -> Stored:
        states = ChannelState.objects.using(self.using).filter(
            Q(group=self.marker) | Q(group__startswith=FLOOR), channel=channel
        )
        rows = {state.group: state for state in states}
        mark = rows.pop(self.marker, None)
        groups = {name.removeprefix(FLOOR): state for name, state in rows.items()}
        return Stored(
            mark=parse(mark.floor) if mark else None,
            floors={name: parse(state.floor) for name, state in groups.items()},
            seen={name: state.updated_at for name, state in groups.items()},
        )

    # -------------------------------------------------------------- what is lost

    def _note_loss(self, wire: Wire, channel: str, stored: Stored, stream: Stream | None) -> None:
        """Begin a healing, or begin it anew: with the floors from before the first loss, which still hold."""
        found = self._loss(wire, channel, stored, stream)
        if not found:
            return
        loss, low = found
        before = self._healings.get(channel)
        healing = Healing(loss, low, stored.floors, is_new=stored.mark is None)
        if before:
            healing.low, healing.floors = min(low, before.low), before.floors
            healing.sent_again, healing.again = before.sent_again, before.again
            healing.loss = before.loss if loss is Loss.TAIL else loss
        self._healings[channel] = healing

    def _loss(self, wire: Wire, channel: str, stored: Stored, stream: Stream | None) -> tuple[Loss, Id] | None:
        marker = stream.positions.get(self.marker) if stream else None
        if stream is None or marker is None:
            return Loss.STREAM, NOTHING
        if channel in self._healings and channel in self._known:
            return None  # its marker was put back for as long as it takes
        if stored.mark is None or marker < stored.mark:
            return Loss.TAIL, marker if stored.mark else NOTHING
        if channel not in self._known:
            return Loss.MAYBE, stored.mark
        if self._is_holed(wire, channel, stored, stream):
            return Loss.ENTRY, NOTHING
        return None

    def _is_holed(self, wire: Wire, channel: str, stored: Stored, stream: Stream) -> bool:
        """Whether the oldest row that some group has not settled is not in the stream: one look stands for all."""
        cut = stream.positions.get(CUT_MARK, NOTHING)
        if cut > stored.low:
            sent.discard(channel, stored.low, cut, using=self.using)
        oldest = sent.oldest_above(channel, stored.low, using=self.using)
        if oldest is None or not missing(wire, channel, [oldest]):
            return False
        again = look(wire, channel)  # MAX_LENGTH may have removed it this very moment
        return again is None or again.positions.get(CUT_MARK, NOTHING) <= cut

    # -------------------------------------------------------------- sending again

    def _heal(self, wire: Wire, channel: str, healing: Healing) -> bool:
        """Whether all that was lost is back.

        What was being sent when the loss was found may be lost too, and its row does not say so before its sender
        commits. It is among the rows that were unsent then; once none of those is unsent any more, whatever became of
        it can be seen, and a second scan sees it.
        """
        self._prepare(wire, channel, healing)
        if healing.in_flight is None:
            greatest = sent.greatest(channel, using=self.using)
            healing.until = max(_now(wire), greatest)
            healing.was_settled = NOTHING < greatest <= min(healing.floors.values(), default=NOTHING)
            healing.in_flight = sent.last_unsent(channel, using=self.using)
        if not healing.is_scanned:
            healing.is_scanned = self._scan(wire, channel, healing)
            healing.at = (0, 0, -1) if healing.is_scanned else healing.at
        if not healing.is_scanned or not healing.in_flight:
            return healing.is_scanned
        if sent.has_unsent(channel, healing.in_flight, using=self.using):
            return False
        return self._scan(wire, channel, healing)

    def _prepare(self, wire: Wire, channel: str, healing: Healing) -> None:
        """Put the marker back until all is healed, make lost groups again, and let no entry id go back."""
        name, greatest = conf.redis_name(channel), sent.greatest(channel, using=self.using)
        stream = look(wire, channel)
        positions, last = (stream.positions, stream.last) if stream else ({}, NOTHING)
        commands: list[Command] = []
        if self.marker not in positions:
            commands.append(("XGROUP", "CREATE", name, self.marker, text(healing.low), "MKSTREAM"))
            lost = {
                group: floor for group, floor in healing.floors.items() if group not in positions and can_be_made(group)
            }
            # Where ids went back, new entries stand below the floor: from 0 on nothing is skipped.
            starts = {group: floor if floor <= last else NOTHING for group, floor in lost.items()}
            commands += [("XGROUP", "CREATE", name, group, text(at)) for group, at in starts.items()]
        elif healing.in_flight is None and positions[self.marker] > healing.low:
            commands.append(("XGROUP", "SETID", name, self.marker, text(healing.low)))
        if last < greatest:
            commands.append(("XSETID", name, text(greatest)))
        for answer in wire.call(commands) if commands else ():
            if is_error(answer) and not _is_harmless(answer):
                raise refused(wire.location, str(answer))

    def _scan(self, wire: Wire, channel: str, healing: Healing) -> bool:
        """Whether every row from the start on was found in the stream or sent again; else it goes on from there."""
        deadline = time.monotonic() + HEAL_FOR
        healing.at = max(healing.at, healing.start)
        while rows := sent.page(channel, healing.at, until=healing.until, using=self.using):
            for chunk in sent.chunks(rows):
                if not self._send_again(wire, channel, healing, missing(wire, channel, chunk)):
                    return False
                healing.at = sent.place(chunk[-1])
                if time.monotonic() > deadline:
                    return False
        return True

    def _send_again(self, wire: Wire, channel: str, healing: Healing, rows: list[OutboxEvent]) -> bool:
        """Whether all of these were sent again: not those that another relay has in hand, or that have no room."""
        if not rows:
            return True
        room = self._room(wire, channel, healing, len(rows))
        with transaction.atomic(using=self.using):
            claimed = sent.claim(rows, using=self.using)[:room]
            before = [sent.entry_id(row) for row in claimed]
            answers = wire.call([_addition(row, healing.floors) for row in claimed])
            moved = [
                (row, old, answer)
                for row, old, answer in zip(claimed, before, answers, strict=True)
                if not is_error(answer)
            ]
            for row, _, answer in moved:
                row.sent_ms, row.sent_seq = halves(answer.decode())
            sent.save_ids([row for row, _, _ in moved], using=self.using)
        healing.sent_again += len(moved)
        healing.again.update(group for _, old, _ in moved for group, at in healing.floors.items() if at < old)
        return len(moved) == len(rows)

    def _room(self, wire: Wire, channel: str, healing: Healing, wanted: int) -> int:
        """How many may be added below MAX_LENGTH, at most ``wanted``. What all groups have settled makes room.

        Raises TransportError, also where the length may not be asked for.
        """
        most = announcements.max_length(channel, announcements.read(wire))
        if most is None:
            return wanted
        name = conf.redis_name(channel)
        length = wire.call([("XLEN", name)])[0]
        if is_error(length):
            raise refused(wire.location, str(length))
        room: int = most - length
        if room < wanted and healing.floors:  # without a group all of it would go
            freed = wire.call([("EVAL", TRIM, 1, name, text(_now(wire)))])[0]
            room += 0 if is_error(freed) else freed
        return max(0, min(wanted, room))

    # -------------------------------------------------------------- how far all is well

    def _advance(self, wire: Wire, channel: str, stored: Stored, stream: Stream | None) -> None:
        """Move the marker, then write down the mark and the floors: never before all that was lost is back."""
        if stream is None or self.marker not in stream.positions:
            return
        mark = max(stream.positions[self.marker], min(sent.greatest(channel, using=self.using), stream.last))
        seen = stream.positions[self.marker]
        arguments = (self.marker, text(seen), text(mark))
        if wire.call([("EVAL", ADVANCE, 1, conf.redis_name(channel), *arguments)])[0] != 1:
            return
        found = {group: _floor(stream, group, stored) for group in stream.floors}
        moved = {(channel, FLOOR + group): text(at) for group, at in found.items() if stored.floors.get(group) != at}
        if mark != stored.mark:
            moved[channel, self.marker] = text(mark)
        if moved:
            floors.save(moved, using=self.using)
        self._forget_groups(channel, stored, stream)

    def _forget_groups(self, channel: str, stored: Stored, stream: Stream) -> None:
        """A group that is gone while its stream is there was removed: its floor holds nothing up for ever."""
        own = conf.channel(channel)
        before = ago((own and own.RETENTION) or conf.RETENTION)
        gone = [FLOOR + group for group, at in stored.seen.items() if group not in stream.floors and at < before]
        if gone:
            ChannelState.objects.using(self.using).filter(channel=channel, group__in=gone).delete()


def _is_harmless(answer: ErrorReply) -> bool:
    """Another relay was faster, or a new event has got a greater id meanwhile."""
    return answer.code == "BUSYGROUP" or "smaller than" in str(answer)


def _addition(row: OutboxEvent, known: dict[str, Id]) -> Command:
    settled = " ".join(sorted(group for group, floor in known.items() if floor >= sent.entry_id(row)))
    return ("XADD", conf.redis_name(row.channel), "*", "event", bytes(row.body), "settled", settled)


def _floor(stream: Stream, group: str, stored: Stored) -> Id:
    """Up to where a group has settled all. One made again at 0 has settled what is no longer there: before the first
    entry, but not above the last mark, for what stood there may have been taken away just now.
    """
    first = parse(floors.before(text(stream.first))) if stream.first else stream.last
    return max(stream.floors[group], min(first, stored.mark or NOTHING))


def _now(wire: Wire) -> Id:
    """The greatest id an entry can have by the server's clock; by ours where it may not be asked."""
    seconds = seconds_of(wire.call([("TIME",)])[0]) or time.time()
    return milliseconds(seconds), MOST


def _tell(channel: str, healing: Healing) -> None:
    """One line for each healing; none where a new connection turned out to have lost nothing."""
    if not healing.sent_again and (healing.is_new or healing.loss is Loss.MAYBE):
        return
    logger.warning("healed %s: %s; %s", channel, healing.loss.value, _remedy(healing))


def _remedy(healing: Healing) -> str:
    if healing.was_settled and not healing.sent_again:
        return "every group had settled all of it, nothing to send again"
    again = ", ".join(f"{group} {count:,}" for group, count in sorted(healing.again.items())) or "none"
    sent_again = counted(healing.sent_again, "event")
    return f"{sent_again} sent again; plain receivers may run again, at most by group: {again}"
