"""Running held deliveries again when they are due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from django.db import DatabaseError, close_old_connections, connections

from . import held
from .codec import decode
from .conf import conf
from .events import now
from .models import HeldDelivery
from .registry import Receiver
from .runner import AsyncRunner, Result, Run, call, log_failure
from .signals import event_settled
from .transports.base import Delivery

logger = logging.getLogger("redis_events.listen")


class Retrier:
    """Polls the held deliveries of this process's receivers and runs those that are due."""

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._receivers = {receiver.name: receiver for receiver in receivers}
        self._aliases = {receiver.using or held.default_alias() for receiver in receivers}
        self._async = AsyncRunner()
        self._stopping = threading.Event()
        self._is_away = False
        self._running: tuple[int, int, str] | None = None

    def keep(self) -> None:
        """Keep the delivery that is being run; called by another thread. Raises DatabaseError."""
        running = self._running
        if running:
            held.renew(*running[:2], using=running[2])

    def run(self) -> None:
        """Run due deliveries until ``stop``."""
        try:
            while not self._stopping.wait(self._pause()):
                self.run_due()
        finally:
            self._async.close()
            connections.close_all()

    def stop(self) -> None:
        """End ``run`` after the delivery in hand."""
        self._stopping.set()

    def run_due(self) -> int:
        """Run everything that is due now; how many runs that were."""
        close_old_connections()
        try:
            count = sum(self._run_due(alias) for alias in self._aliases)
            self._is_away = False
        except DatabaseError as error:
            count = 0
            self._log_away(error)
        return count

    def _run_due(self, alias: str) -> int:
        rows = held.due_rows(tuple(self._receivers), using=alias, limit=conf.BATCH)
        return sum(self._run_row(row, alias) for row in rows if not self._stopping.is_set())

    def _run_row(self, row: HeldDelivery, alias: str) -> bool:
        if not held.claim(row, using=alias):
            return False
        self._running = row.pk, row.attempt, alias
        result = self._call(row)
        self._running = None
        held.finish(row, result.verdict, result.error, using=alias)
        if result.error:
            log_failure(result)
        event_settled.send_robust(Retrier, results=[result])
        return True

    def _call(self, row: HeldDelivery) -> Result:
        run = Run(
            receiver=self._receivers[row.receiver],
            document=decode(bytes(row.raw), channel=row.channel, id=row.event_id),
            delivery=Delivery(channel=row.channel, body=bytes(row.raw), group=row.group, id=row.entry_id),
            attempt=row.attempt,
        )
        durable = bool(row.entry_id)
        return self._async.call_all([run], durable=durable)[0] if run.receiver.is_async else call(run, durable=durable)

    def _pause(self) -> float:
        """Seconds until the earliest delivery is due, at most POLL."""
        try:
            earliest = [held.next_due(tuple(self._receivers), using=alias) for alias in self._aliases]
        except DatabaseError as error:
            self._log_away(error)
            return conf.POLL
        seconds = [(each - now()).total_seconds() for each in earliest if each]
        return max(0.0, min([conf.POLL, *seconds]))

    def _log_away(self, error: DatabaseError) -> None:
        if not self._is_away:
            logger.error("held deliveries cannot be read (is `migrate` done?): %s", error)
        self._is_away = True
