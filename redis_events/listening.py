"""Running receivers for what a transport delivers. The main step reads as a list of sentences: ``Listener.process``."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from django.db import Error, close_old_connections, connections

from . import held, inbox
from .codec import Document, decode, plain
from .conf import conf
from .events import now
from .exceptions import DecodeError, TransportError
from .held import Failure
from .once import OnceRunner
from .registry import Receiver, Table
from .retry import Outcome, backoff
from .runner import (
    AsyncRunner,
    Result,
    Run,
    call_all,
    failure,
    group_name,
    identity,
    log_failure,
    parked,
    poisonous,
    postponed,
    quarantine,
    without_stranded,
)
from .signals import event_settled, gap_detected
from .tally import Tally
from .transports.base import Delivery, Subscription, Transport
from .wording import counted, one_line

logger = logging.getLogger("redis_events.listen")

IDLE = 1.0
"""Seconds a quiet wait for deliveries lasts before the listener looks up."""
FINISH = 1.0
"""Seconds a listener that was asked to stop has for what it has taken beforehand."""
CARE = 1.0
"""Seconds a stream's database connections are kept at most between two batches, where none of them failed."""
MOST_QUARANTINED = 1_000
"""Quarantine rows an hour and channel: anybody can write to pub/sub."""


_SOURCE = attrgetter("channel", "group")
Unreadable = tuple[Delivery, DecodeError]


class Interrupted(Exception):
    """Raised when asked to stop while the database is away: the batch in hand stays unsettled and comes again."""


class Listener:
    """Receives from one transport and runs this project's receivers for it, until stopped."""

    def __init__(self, transport: Transport, receivers: Sequence[Receiver], *, tally: Tally | None = None) -> None:
        self.transport = transport
        self.receivers = tuple(receivers)
        self.subscriptions = _subscriptions(transport, receivers)
        self.settled = 0
        """Deliveries settled since the start."""
        self.counts: Counter[Outcome] = Counter()
        """Runs by outcome since the start."""
        self.in_flight = 0
        self._tally = tally
        self._tables = _tables(transport, receivers)
        self._async = AsyncRunner()
        self._is_plain = not any(each.is_async or each.once for each in receivers)
        self._quarantined: Counter[str] = Counter()
        """Messages of the hour that were no events, by channel."""
        self._hour = 0
        self._stopping = threading.Event()
        self._once = OnceRunner(self._stopping)
        self._can_hold = True
        self._absent: dict[str, Table] = {}
        self._paused: frozenset[str] = frozenset()
        self._next_care = 0.0

    # -------------------------------------------------------------- the loop

    def connect(self) -> None:
        """Subscribe; returns when the server has confirmed everything. Raises TransportError."""
        self.transport.subscribe(self.subscriptions)

    def run(self, *, drain: bool = False) -> None:
        """Process deliveries until ``stop``, or with ``drain`` until nothing is left. Reconnects for ever."""
        took = 0.0
        try:
            while not self._stopping.is_set():
                deliveries = self._receive(0.0 if drain else IDLE)
                if deliveries:
                    took = self._timed(deliveries)
                elif drain and deliveries is not None:
                    break
                else:
                    close_old_connections()  # one may have grown too old while nothing came
            self._finish(took)
        finally:
            self._async.close()
            self.transport.close()
            connections.close_all()

    def _timed(self, deliveries: Sequence[Delivery]) -> float:
        """Process a batch; the seconds it took."""
        began = time.monotonic()
        self.process(deliveries)
        return time.monotonic() - began

    def _finish(self, took: float) -> None:
        """Process what has been taken beforehand, if batches take so long that FINISH is enough for another.

        Others would have to wait for it and take it over one by one, or never get it.
        """
        until = time.monotonic() + FINISH
        with suppress(TransportError):
            while self._can_hold and time.monotonic() + took < until and (remainder := self.transport.remainder()):
                took = self._timed(remainder)

    def note_announced(self, announced: Iterable[Receiver]) -> None:
        """Learn of receivers that other listeners of our groups have and we lack: a rolling deploy loses nothing."""
        own = set(map(_announcement, self.receivers))
        absent = {_announcement(each): each for each in announced if _announcement(each) not in own}.values()
        self._absent = _tables(self.transport, absent) if self.transport.grouped else {}

    def note_paused(self, names: Collection[str]) -> None:
        """Learn which receivers are paused: they are not run from the next batch on. Safe in any thread."""
        self._paused = frozenset(each.name for each in self.receivers if each.name in names)

    def stop(self) -> None:
        """End ``run`` after the batch in hand, and what a second more is enough for. Safe in any thread."""
        self._stopping.set()
        self.transport.wake()

    def _receive(self, timeout: float) -> list[Delivery] | None:
        """None when the connection was lost: that nothing came means nothing then."""
        try:
            return self.transport.receive(limit=conf.BATCH, timeout=timeout)
        except TransportError as error:
            self._reconnect(error)
            return None

    def _reconnect(self, error: TransportError) -> None:
        last_heard, is_idle = self.transport.heard, self.transport.is_idle
        if not is_idle:
            logger.error("connection lost, reconnecting: %s", error)
        attempt = 0
        while not self._is_back():
            attempt += 1
            if self._stopping.wait(backoff(attempt)):
                return
        if not is_idle:
            self._report_return(time.monotonic() - last_heard)

    def _is_back(self) -> bool:
        try:
            self.connect()
        except TransportError:
            return False
        return True

    def _report_return(self, seconds: float) -> None:
        if self.transport.durable:
            logger.warning("listening again after %.1f s; what was sent meanwhile is being delivered", seconds)
            return
        logger.warning("listening again; what was published in a gap of %.1f s was missed", seconds)
        channels = [subscription.channel for subscription in self.subscriptions]
        since = now() - timedelta(seconds=seconds)
        gap_detected.send_robust(Listener, channels=channels, since=since, seconds=seconds)

    # -------------------------------------------------------------- the main step

    def process(self, deliveries: Sequence[Delivery]) -> None:
        """Run every matching receiver for a batch, hold what did not end well, then settle the batch."""
        self.in_flight = len(deliveries)
        try:
            runs, failures = self._match(deliveries)
            results = self._run(runs)
            self._hold([*failures, *(failure(result) for result in results if result.error)])
        except Interrupted:
            return
        self.transport.settle(deliveries)
        self._report(results, failures, deliveries)
        self._care_for_connections(has_failed=bool(failures) or any(result.error for result in results))

    def _match(self, deliveries: Sequence[Delivery]) -> tuple[list[Run], list[Failure]]:
        """The runs there are to do, and what is held without a run: no event, no receiver of this release, poison."""
        runs: list[Run] = []
        failures: list[Failure] = []
        unreadable: list[Unreadable] = []
        for (channel, group), part in groupby(deliveries, key=_SOURCE):
            table, is_whole = self._tables[group], group not in self._absent
            with_data = table.has_one_untyped(channel)
            for delivery in part:
                if delivery.is_settled:
                    continue
                try:
                    document = _document(delivery, with_data)
                except DecodeError as error:
                    unreadable += [(delivery, error)] if self._may_quarantine(channel) else []
                    continue
                for receiver in table.match(channel, document.envelope.type):
                    runs.append(Run(receiver, document, delivery))
                if not is_whole:
                    failures += self._postponed(document, delivery)
        _log_unreadable(unreadable)
        failures += [quarantine(*each) for each in unreadable]
        if self._paused:
            runs, paused = self._without_paused(runs)
            failures += paused
        return self._sorted_out(runs, failures)

    def _postponed(self, document: Document, delivery: Delivery) -> list[Failure]:
        where = delivery.channel, document.envelope.type
        own = {receiver.name for receiver in self._tables[delivery.group].match(*where)}
        absent = [receiver for receiver in self._absent[delivery.group].match(*where) if receiver.name not in own]
        return [postponed(Run(receiver, document, delivery, attempt=0)) for receiver in absent]

    def _without_paused(self, runs: Sequence[Run]) -> tuple[list[Run], list[Failure]]:
        """Runs without those of paused receivers, and what is parked instead: nothing where it is now or never."""
        names = self._paused
        paused = [run for run in runs if run.receiver.name in names]
        going_on = [run for run in runs if run.receiver.name not in names]
        if not self.transport.durable:
            return going_on, []
        # A pause may outlast the inbox: what was done before it began must not be parked.
        return going_on, [parked(run) for run in self._await_database(lambda: _left_to_do(paused))]

    def _sorted_out(self, runs: list[Run], failures: list[Failure]) -> tuple[list[Run], list[Failure]]:
        """Of repeated deliveries, the receivers that have their held row are done with; poison is not run again."""
        repeated = [run for run in runs if run.delivery.is_repeated]
        if not repeated:
            return runs, failures
        seen = self._await_database(lambda: held.seen(map(identity, repeated)))
        runs = [run for run in runs if not run.delivery.is_repeated or identity(run)[1:] not in seen]
        poison = self._await_database(lambda: [run for run in runs if _is_poison(run) and not inbox.is_done(run)])
        return [run for run in runs if run not in poison], failures + [poisonous(run) for run in poison]

    def _run(self, runs: Sequence[Run]) -> list[Result]:
        """Run them all. A database that goes away meanwhile is no receiver's failure: those are run again."""
        results = self._call_all(runs)
        while self.transport.durable:
            results, stranded = without_stranded(results)
            if not stranded:
                break
            self._await_database(partial(held.check, {result.run.receiver.using for result in stranded}))
            results += self._call_all([result.run for result in stranded])
        return results

    def _call_all(self, runs: Sequence[Run]) -> list[Result]:
        durable = self.transport.durable
        if self._is_plain:
            return call_all(runs, durable=durable)
        awaited = [run for run in runs if run.receiver.is_async]
        once = [run for run in runs if run.receiver.has_inbox]
        results = call_all((run for run in runs if not (run.receiver.once or run.receiver.is_async)), durable=durable)
        results += self._once.call_all(once, durable=durable)
        return results + (self._async.call_all(awaited, durable=durable) if awaited else [])

    def _hold(self, failures: Sequence[Failure]) -> None:
        """Write failures down, committed. Where events are durable, nothing goes on before they are."""
        if not failures:
            return
        if self.transport.durable:
            self._await_database(partial(held.hold, failures))
            return
        try:
            held.hold(failures)
            self._can_hold = True
        except Error as error:
            self._note_away(f"{counted(len(failures), 'failure')} could not be kept as held deliveries", error)

    def _await_database(self, work: Callable[[], Any]) -> Any:
        """The result of ``work``, once the database lets it. Raises Interrupted when asked to stop before that."""
        attempt = 0
        while True:
            try:
                result = work()
                self._can_hold = True
                return result
            except Error as error:
                self._note_away("nothing is settled while the database is away", error)
                close_old_connections()
            attempt += 1
            if self._stopping.wait(backoff(attempt)):
                raise Interrupted

    def _note_away(self, what: str, error: Error) -> None:
        if self._can_hold:
            logger.error("%s: %s", what, held.complaint(error))
        self._can_hold = False

    def _may_quarantine(self, channel: str) -> bool:
        if self.transport.durable:
            return True
        hour = int(time.time() // 3600)
        if hour != self._hour:
            self._quarantined.clear()
            self._hour = hour
        self._quarantined[channel] += 1
        if self._quarantined[channel] == MOST_QUARANTINED + 1:
            text = "%s messages on %s were no events within an hour; further ones are not kept"
            logger.error(text, f"{MOST_QUARANTINED:,}", one_line(channel, limit=64))
        return self._quarantined[channel] <= MOST_QUARANTINED

    def _care_for_connections(self, *, has_failed: bool) -> None:
        """Close those that are broken or too old: after the batch, when nobody waits for them.

        With CONN_MAX_AGE = 0 each is too old at every look, and a new one takes PostgreSQL as long as fifty receivers
        with an INSERT. A stream's events outlive one that breaks between two looks: they are run again.
        """
        if has_failed or not self.transport.durable or time.monotonic() >= self._next_care:
            self._next_care = time.monotonic() + CARE
            close_old_connections()

    def _report(self, results: Sequence[Result], unrun: Sequence[Failure], deliveries: Sequence[Delivery]) -> None:
        """Tell who is watching. Nothing in here changes an outcome."""
        self.counts.update(Outcome.DEAD for each in unrun if each.verdict.outcome is Outcome.DEAD)
        self.settled += len(deliveries)
        self.in_flight = 0
        failed = [result for result in results if result.error]
        self.counts[Outcome.DONE] += len(results) - len(failed)
        for result in failed:
            self.counts[result.verdict.outcome] += 1
            log_failure(result)
        if self._tally:
            self._tally.note(results, failed=failed, settled=deliveries)
        if event_settled.receivers:
            event_settled.send_robust(Listener, results=results)


def _document(delivery: Delivery, with_data: bool) -> Document:
    channel = delivery.channel
    document = decode(delivery.body, channel=channel, is_document=delivery.is_document, with_data=with_data)
    if document.is_plain and delivery.id:
        return plain(delivery.body, channel=channel, id=f"{channel}/{delivery.id}")
    return document


def _is_poison(run: Run) -> bool:
    return run.delivery.starts >= conf.MAX_DELIVERIES


def _left_to_do(runs: Sequence[Run]) -> list[Run]:
    """Those that have not had their effect by an earlier delivery, as far as the inbox tells."""
    return [run for run in runs if not (run.delivery.is_repeated and inbox.is_done(run))]


def _log_unreadable(unreadable: Iterable[Unreadable]) -> None:
    """One line for each channel in a batch."""
    by_channel: dict[str, list[DecodeError]] = {}
    for delivery, error in unreadable:
        by_channel.setdefault(delivery.channel, []).append(error)
    for channel, errors in by_channel.items():
        name, why, count = one_line(channel, limit=64), one_line(errors[0]), counted(len(errors), "message")
        facts = {"outcome": str(Outcome.DEAD), "channel": name, "count": len(errors), "error": why}
        logger.error("dead   %s  not an event: %s (%s)", name, why, count, extra={"facts": facts})


def _subscriptions(transport: Transport, receivers: Iterable[Receiver]) -> tuple[Subscription, ...]:
    wanted = (Subscription(channel=each.channel, group=_group(transport, each)) for each in receivers)
    return tuple(dict.fromkeys(wanted))


def _tables(transport: Transport, receivers: Iterable[Receiver]) -> dict[str, Table]:
    """A table for each group, since each gets its own delivery; one for all where there are no groups."""
    by_group: dict[str, list[Receiver]] = {}
    for receiver in receivers:
        by_group.setdefault(_group(transport, receiver), []).append(receiver)
    return {group: Table(members) for group, members in by_group.items()}


def _announcement(receiver: Receiver) -> tuple[Any, ...]:
    """What other listeners of a group know of a receiver: a release may give an old name other types."""
    return receiver.name, receiver.channel, receiver.types, receiver.group


def _group(transport: Transport, receiver: Receiver) -> str:
    return group_name(receiver) if transport.grouped else ""
