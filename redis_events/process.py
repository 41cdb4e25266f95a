"""What one listen_events process runs, watches and stops."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

from django.db import Error, connections

from . import __version__, announcements, deadlines, heartbeat, held, readiness
from .announcements import Announcement, contradictions
from .cleaning import Cleaner
from .conf import conf, glob
from .console import Console
from .exceptions import TransportError, Unreachable
from .healing import Healer
from .keeping import BEAT, Keeper, Recorder
from .listening import Listener
from .registry import Receiver, all_receivers
from .relaying import Relay
from .retry import Outcome, backoff
from .retrying import Retrier
from .routing import create, is_memory, listening_plan
from .runner import log_abandoned, unfinished
from .stopping import StopRequests
from .tally import Tally
from .threads import Threads
from .transports.client import Waiter, Wire

logger = logging.getLogger("redis_events.listen")

PATIENCE = 5.0
"""Seconds a server may be unreachable at the start before the process gives up; later it never does."""


class Exit(IntEnum):
    """Exit codes of listen_events."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOTHING_TO_LISTEN_TO = 3
    UNREACHABLE = 4
    NOT_READY = 5
    ABANDONED = 6
    RECYCLE = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command was asked for. Times are in seconds."""

    channels: Sequence[str] = ()
    drain: bool = False
    max_events: int | None = None
    max_time: float | None = None
    dry_run: bool = False
    relay: bool = True


def run(options: Options, console: Console) -> Exit:
    """Listen until asked to stop; the code to exit with. Expected trouble becomes a line and a code."""
    receivers = chosen_receivers(options.channels)
    if not receivers:
        console.nothing_to_listen_to(options.channels, sorted({each.channel for each in all_receivers()}))
        return Exit.NOTHING_TO_LISTEN_TO
    return Process(receivers, options, console).run()


def run_relay(console: Console) -> Exit:
    """Relay until asked to stop; the code to exit with. Raises ConfigurationError."""
    if is_memory():
        console.nothing_to_relay()
        return Exit.NOTHING_TO_LISTEN_TO
    return Process((), Options(), console).run()


def chosen_receivers(channels: Sequence[str]) -> tuple[Receiver, ...]:
    """The receivers of the channels that match one of the globs; all of them without any."""
    if not channels:
        return all_receivers()
    return tuple(each for each in all_receivers() if any(glob(wanted, each.channel) for wanted in channels))


class Process:
    """One run of listen_events: connects, listens in threads, stops in order."""

    def __init__(self, receivers: Sequence[Receiver], options: Options, console: Console) -> None:
        self.receivers = receivers
        self.options = options
        self.console = console
        self.listeners: list[Listener] = []
        self._bell = Waiter()
        self._requests = StopRequests(self._bell.wake)
        self._threads = Threads()
        self._helpers = Threads()
        self._retrier: Retrier | None = None
        self._keeper: Keeper | None = None
        self._recorder: Recorder | None = None
        self._cleaner: Cleaner | None = None
        self._relay: Relay | None = None
        self._elsewhere: set[str] = set()
        """The receivers that other listeners of this service have."""
        self._tally: Tally | None = None
        self._began = time.monotonic()
        self._started = time.time()

    def run(self) -> Exit:
        with self._requests.signals_caught():
            try:
                if self.options.dry_run:
                    return self._show()
                announced = self._patiently(_announced)
                if self._contradicts(announced):
                    return Exit.NOT_READY
                self._plan(announced)
                if self._lacks_tables(announced):
                    return Exit.NOT_READY
                has_company = self._connect()
            except TransportError as error:
                if self._requests.are_there:
                    return Exit.OK
                self.console.cannot_connect(error)
                return Exit.UNREACHABLE
            if self._requests.are_there:
                return Exit.OK
            self._start(announced, has_company)
            code = self._watch()
            return self._stop(code)

    def _show(self) -> Exit:
        """The table, with what others announced where the server can be asked; it is not told anything."""
        try:
            announced = _announced(tells=False)
        except TransportError:
            announced = []
        self.console.table(self.receivers, announced)
        return Exit.NOT_READY if self._contradicts(announced) else Exit.OK

    def _patiently(self, work: Callable[[], Any]) -> Any:
        """The result of ``work``; an unreachable server has five seconds. Raises TransportError."""
        attempt = 0
        while True:
            try:
                return work()
            except Unreachable:
                attempt += 1
                left = self._began + PATIENCE - time.monotonic()
                if self._requests.are_there or left <= 0:
                    raise
                self._bell.wait(min(backoff(attempt), left))

    def _contradicts(self, announced: Sequence[Announcement]) -> bool:
        found = contradictions(announced)
        for own, other in found:
            here = f"{other.channel!r} is {own.TRANSPORT} in {conf.SERVICE}"
            by = f' (by "{own.name}")' if own.name != other.channel else ""
            self.console.contradiction(f"{here}{by} and {other.transport} in {other.service}")
        return bool(found)

    def _plan(self, announced: Sequence[Announcement]) -> None:
        plan = listening_plan(self.receivers, announced)
        self._tally = None if is_memory() else Tally()
        self.listeners = [Listener(create(name), each, tally=self._tally) for name, each in plan.items()]

    def _lacks_tables(self, announced: Sequence[Announcement]) -> bool:
        lacking = readiness.missing(self.receivers, announced)
        if lacking:
            self.console.not_ready(lacking)
        return bool(lacking)

    def _connect(self) -> bool:
        """Make and connect everything; whether other listeners of this service are alive. Raises TransportError."""
        self._relay = self._make_relay()
        for listener in self.listeners:
            self._patiently(listener.connect)
        if self._relay:
            self._patiently(self._relay.connect)
        self._retrier = self._make_retrier() if self.receivers else None
        self._keeper = self._make_keeper() if self.receivers else None
        return bool(self._keeper and not self._requests.are_there and self._patiently(self._keeper.begin))

    def _start(self, announced: Sequence[Announcement], has_company: bool) -> None:
        if has_company and not self.options.drain:
            # Other listeners of this service write rows for receivers only we have, once they have seen us.
            self._bell.wait(2 * max(conf.POLL, BEAT))
        self._say_ready(announced)
        self._start_relay()
        for listener in self.listeners:
            self._threads.start("listener", partial(listener.run, drain=self.options.drain), self._bell.wake)
        if self._retrier and not self.options.drain:
            self._threads.start("retrier", self._retrier.run, self._bell.wake)
        if self._keeper:
            self._helpers.start("keeper", self._keeper.run, self._bell.wake)
            self._recorder = self._make_recorder()
            self._helpers.start("recorder", self._recorder.run, self._bell.wake)
        if (self._retrier or self._relay) and not self.options.drain:
            outboxes = self._relay.aliases if self._relay else ()
            self._cleaner = Cleaner(self.receivers, alive=self._all_alive, outboxes=outboxes)
            self._helpers.start("cleaner", self._cleaner.run, self._bell.wake)

    def _say_ready(self, announced: Sequence[Announcement]) -> None:
        if self.receivers:
            self.console.listening(self.receivers, announced)
        elif self._relay:
            self.console.relaying(self._relay.aliases)

    def _make_relay(self) -> Relay | None:
        found = readiness.outboxes() if self.options.relay and not is_memory() else []
        healers = [Healer(alias) for alias in found] if conf.SERVICE else []
        return Relay(found, healers=healers) if found else None

    def _start_relay(self) -> None:
        if not self._relay:
            return
        if not self.options.drain:
            self._threads.start("relay", self._relay.run, self._bell.wake)
            return
        self._threads.start("relay", partial(self._drain_outbox, self._relay), self._bell.wake)
        while self._threads.are_alive and not self._requests.are_there:
            self._bell.wait(60.0)

    def _drain_outbox(self, relay: Relay) -> None:
        """In a thread of its own, so that a signal can end it."""
        try:
            relay.drain()
        except TransportError as error:
            self.console.warn(f"the outbox was not emptied: {error}")
        finally:
            relay.close()
            connections.close_all()

    def _make_keeper(self) -> Keeper | None:
        if is_memory():
            return None
        return Keeper(
            heartbeat.card(self.receivers, version=__version__, started=self._started),
            [listener.transport for listener in self.listeners],
            note=self._note,
            note_paused=self._note_paused,
            leave=self._requests.ask,
            in_flight=self._in_flight,
            tally=self._tally,
        )

    def _make_recorder(self) -> Recorder:
        renew = self._retrier.keep if self._retrier else (lambda: None)
        return Recorder([listener.transport for listener in self.listeners], renew=renew)

    def _all_alive(self) -> set[str]:
        return {receiver.name for receiver in self.receivers} | self._elsewhere

    def _note(self, announced: list[Receiver]) -> None:
        self._elsewhere = {receiver.name for receiver in announced}
        for listener in self.listeners:
            listener.note_announced(announced)

    def _note_paused(self, names: frozenset[str]) -> None:
        for listener in self.listeners:
            listener.note_paused(names)
        if self._retrier:
            self._retrier.note_paused(names)

    def _in_flight(self) -> int:
        retried = self._retrier.in_flight if self._retrier else 0
        return retried + sum(listener.in_flight for listener in self.listeners)

    def _counts(self) -> Counter[Outcome]:
        counted = [listener.counts for listener in self.listeners]
        return sum([*counted, self._retrier.counts] if self._retrier else counted, Counter())

    def _make_retrier(self) -> Retrier | None:
        receivers = [receiver for listener in self.listeners for receiver in listener.receivers]
        try:
            if held.has_table(using=held.default_alias()):
                return Retrier(receivers, tally=self._tally)
        except Error as error:
            self.console.warn(f"failures cannot be kept until the database is back: {held.complaint(error)}")
            return Retrier(receivers, tally=self._tally)
        self.console.warn("the tables of redis_events are missing: run `manage.py migrate`. Failures are only logged.")
        return None

    def _watch(self) -> Exit:
        """Wait for a reason to stop."""
        while True:
            if self._threads.crashed or self._helpers.crashed:
                return Exit.UNEXPECTED
            if self._requests.are_there:
                return Exit.OK
            if self.options.drain and not self._threads.are_alive and not self._runs_last_retries():
                return Exit.OK
            if self._is_recycling() or self._has_hung():
                return Exit.RECYCLE
            self._bell.wait(self._until_next_look())

    def _runs_last_retries(self) -> bool:
        """With ``--drain``, what is due is run once all else is done; whether that begins now."""
        if not self._retrier or "retrier" in self._threads.started:
            return False
        self._threads.start("retrier", self._retrier.drain, self._bell.wake)
        return True

    def _is_recycling(self) -> bool:
        settled = sum(listener.settled for listener in self.listeners)
        if self.options.max_events is not None and settled >= self.options.max_events:
            return True
        return self.options.max_time is not None and time.monotonic() - self._began >= self.options.max_time

    def _has_hung(self) -> bool:
        """Whether a receiver outran its ``timeout``; says where each of them is."""
        late = deadlines.overdue()
        for timed in late:
            text = "%s has outrun its timeout of %g s; this process ends with 75, to be started anew. It is here:\n%s"
            logger.error(text, timed.what, timed.timeout, timed.stack())
        return bool(late)

    def _until_next_look(self) -> float:
        if (self.options.max_events, self.options.max_time) != (None, None):
            return 0.05
        return 0.25 if any(receiver.timeout for receiver in self.receivers) else 60.0

    def _stop(self, code: Exit) -> Exit:
        """Let each thread finish what it has in hand, up to GRACE seconds; a second signal ends that.

        Nobody waits for a receiver that has outrun its timeout.
        """
        self._requests.take_up()
        self.console.stopping(self._in_flight(), signals_left=self._requests.signals_left)
        for listener in self.listeners:
            listener.stop()
        if self._retrier:
            self._retrier.stop()
        if self._relay:
            self._relay.stop()
        deadline = time.monotonic() + conf.GRACE
        while self._are_working() and not self._requests.are_urgent and time.monotonic() < deadline:
            self._bell.wait(min(0.05, deadline - time.monotonic()))
        abandoned = self._in_flight() if self._threads.are_alive else 0
        if abandoned:
            log_abandoned(unfinished())
        self._say_goodbye()
        self.console.stopped(self._counts(), abandoned, relayed=self._relay.relayed if self._relay else 0)
        if code is Exit.RECYCLE and deadlines.overdue():
            return code
        return Exit.ABANDONED if self._threads.are_alive else code

    def _are_working(self) -> bool:
        return self._threads.alive > deadlines.stuck_threads()

    def _say_goodbye(self) -> None:
        """The heartbeat goes last: until then nobody takes over what is in hand."""
        if self._keeper:
            self._keeper.stop()
        for helper in (self._recorder, self._cleaner):
            if helper:
                helper.stop()
        deadline = time.monotonic() + 1.0
        while self._helpers.are_alive and time.monotonic() < deadline:
            self._bell.wait(0.05)


def _announced(*, tells: bool = True) -> list[Announcement]:
    """What the publishing services announced; nothing for transports inside this process."""
    if is_memory():
        return []
    wire = Wire(conf.LOCATION, timeout=1.0)
    try:
        announced = announcements.read(wire)
        if not tells or contradictions(announced):  # saying so would keep the other service from starting too
            return announced
        wire.call([*announcements.commands(), *announcements.withdrawals(announced)])
        return announcements.read(wire)
    finally:
        wire.close()


def leave(code: Exit) -> None:
    """End the process without waiting for a receiver that hangs in a thread."""
    logging.shutdown()
    os._exit(code)
