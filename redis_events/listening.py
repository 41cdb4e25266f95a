"""Running receivers for what a transport delivers. The main step reads as a list of sentences: ``Listener.process``."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import DatabaseError, close_old_connections, connections

from . import held
from .codec import decode
from .conf import conf
from .events import now
from .exceptions import DecodeError, TransportError
from .registry import Receiver, Table
from .retry import Outcome, backoff
from .runner import AsyncRunner, Result, Run, call, failure, group_name, log_failure, quarantine
from .signals import event_settled, gap_detected
from .transports.base import Delivery, Subscription, Transport
from .wording import counted, one_line

logger = logging.getLogger("redis_events.listen")

IDLE = 1.0
"""Seconds a quiet wait for deliveries lasts before the listener looks up."""
MOST_QUARANTINED = 1_000
"""Quarantine rows an hour and channel: anybody can write to pub/sub."""

Unreadable = tuple[Delivery, DecodeError]


class Listener:
    """Receives from one transport and runs this project's receivers for it, until stopped."""

    def __init__(self, transport: Transport, receivers: Sequence[Receiver]) -> None:
        self.transport = transport
        self.receivers = tuple(receivers)
        self.subscriptions = _subscriptions(transport, receivers)
        self.settled = 0
        """Deliveries settled since the start."""
        self.counts: Counter[Outcome] = Counter()
        """Runs by outcome since the start."""
        self.in_flight = 0
        self._tables = _tables(transport, receivers)
        self._async = AsyncRunner()
        self._quarantined: Counter[tuple[str, int]] = Counter()
        self._stopping = threading.Event()
        self._can_hold = True

    # -------------------------------------------------------------- the loop

    def connect(self) -> None:
        """Subscribe; returns when the server has confirmed everything. Raises TransportError."""
        self.transport.subscribe(self.subscriptions)

    def run(self, *, drain: bool = False) -> None:
        """Process deliveries until ``stop``, or with ``drain`` until nothing is left. Reconnects for ever."""
        try:
            while not self._stopping.is_set():
                deliveries = self._receive(0.0 if drain else IDLE)
                if deliveries:
                    self.process(deliveries)
                elif drain:
                    return
        finally:
            self._async.close()
            self.transport.close()
            connections.close_all()

    def stop(self) -> None:
        """End ``run`` after the batch in hand. Safe in any thread."""
        self._stopping.set()
        self.transport.wake()

    def _receive(self, timeout: float) -> list[Delivery]:
        try:
            return self.transport.receive(limit=conf.BATCH, timeout=timeout)
        except TransportError as error:
            self._reconnect(error)
            return []

    def _reconnect(self, error: TransportError) -> None:
        last_heard = self.transport.heard
        logger.error("connection lost, reconnecting: %s", error)
        attempt = 0
        while not self._is_back():
            attempt += 1
            if self._stopping.wait(backoff(attempt)):
                return
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
        close_old_connections()
        runs, unreadable = self._match(deliveries)
        results = self._run(runs)
        self._hold(results, unreadable)
        self.transport.settle(deliveries)
        self._report(results, deliveries)

    def _match(self, deliveries: Sequence[Delivery]) -> tuple[list[Run], list[Unreadable]]:
        runs, unreadable = [], []
        for delivery in deliveries:
            try:
                document = decode(delivery.body, channel=delivery.channel, is_document=delivery.is_document)
            except DecodeError as error:
                unreadable.append((delivery, error))
                continue
            for receiver in self._tables[delivery.group].match(delivery.channel, document.envelope.type):
                runs.append(Run(receiver=receiver, document=document, delivery=delivery))
        return runs, unreadable

    def _run(self, runs: Sequence[Run]) -> list[Result]:
        durable = self.transport.durable
        waiting = [run for run in runs if run.receiver.is_async]
        if not waiting:
            return [call(run, durable=durable) for run in runs]
        results = [call(run, durable=durable) for run in runs if not run.receiver.is_async]
        return results + self._async.call_all(waiting, durable=durable)

    def _hold(self, results: Sequence[Result], unreadable: Sequence[Unreadable]) -> None:
        failures = [failure(result) for result in results if result.error]
        unreadable = [each for each in unreadable if self._may_quarantine(each[0].channel)]
        _log_unreadable(unreadable)
        failures += [quarantine(*each) for each in unreadable]
        if not failures:
            return
        try:
            held.hold(failures)
            self._can_hold = True
        except DatabaseError as error:
            self._hold_failed(error, len(failures))

    def _hold_failed(self, error: DatabaseError, count: int) -> None:
        if self._can_hold:
            failures = counted(count, "failure")
            logger.error("%s could not be kept as held deliveries: %s", failures, held.complaint(error))
        self._can_hold = False

    def _may_quarantine(self, channel: str) -> bool:
        hour = int(time.time() // 3600)
        if self.transport.durable:
            return True
        self._quarantined[channel, hour] += 1
        if self._quarantined[channel, hour] == MOST_QUARANTINED + 1:
            text = "%s messages on %s were no events within an hour; further ones are not kept"
            logger.error(text, f"{MOST_QUARANTINED:,}", one_line(channel, limit=64))
        return self._quarantined[channel, hour] <= MOST_QUARANTINED

    def _report(self, results: Sequence[Result], deliveries: Sequence[Delivery]) -> None:
        """Tell who is watching. Nothing in here changes an outcome."""
        self.settled += len(deliveries)
        self.in_flight = 0
        failed = [result for result in results if result.error]
        self.counts[Outcome.DONE] += len(results) - len(failed)
        for result in failed:
            self.counts[result.verdict.outcome] += 1
            log_failure(result)
        if event_settled.receivers:
            event_settled.send_robust(Listener, results=results)


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


def _group(transport: Transport, receiver: Receiver) -> str:
    return group_name(receiver) if transport.grouped else ""
