"""Looking after the tables: old dead letters and inbox entries go, rows that nobody will ever run are an alarm."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime

from django.db import Error, close_old_connections, connections
from django.db.models import Count, Q

from . import announcements, held, inbox, outbox
from .conf import conf
from .events import ago
from .exceptions import TransportError
from .held import State
from .models import ChannelState, HeldDelivery
from .registry import Receiver, all_receivers
from .wording import counted, one_line

logger = logging.getLogger("redis_events.listen")

EVERY = 60.0
"""Seconds between two rounds."""
CHUNK = 1_000
"""Rows deleted in one statement: a longer one would keep others waiting."""
PAUSE = 0.05
"""Seconds between two such statements on an outbox: 20,000 rows a second at most, and others come in between."""
PATIENCE = 60.0
"""Seconds a row may be overdue before somebody should know: releases of a service take turns."""


class Cleaner:
    """Makes its rounds in a thread of its own. ``alive`` names the receivers that some listener of this service has.

    ``outboxes`` are databases whose sent events are deleted after RETENTION.
    """

    def __init__(
        self, receivers: Collection[Receiver], *, alive: Callable[[], Collection[str]], outboxes: Collection[str] = ()
    ) -> None:
        self._aliases = held.aliases(receivers) | {held.default_alias()} if receivers else set()
        self._inboxes = held.aliases(each for each in receivers if each.once)
        self._receivers = receivers
        self._outboxes = outboxes
        self._alive = alive
        self._orphans: set[tuple[str, str]] = set()
        self._stopping = threading.Event()

    def run(self) -> None:
        """One round a minute until ``stop``."""
        try:
            while not self._stopping.wait(EVERY):
                self.clean()
        finally:
            connections.close_all()

    def stop(self) -> None:
        """End ``run`` after the statement in hand."""
        self._stopping.set()

    def clean(self) -> None:
        """One round. A database that is away is looked after in the next one; its retrier tells of it."""
        close_old_connections()
        for alias in sorted(self._aliases):
            try:
                self._delete_old(alias)
                self._look_for_orphans(alias)
            except Error as error:
                logger.debug("held deliveries in %r were not looked after: %s", alias, error)
        self._clean_inboxes()
        self._clean_outboxes()

    def _clean_inboxes(self) -> None:
        """Entries that no redelivery can ask for any more. How long that is must be asked anew: others announce it."""
        seconds = inbox.seconds_needed([*self._receivers, *all_receivers()]) if self._inboxes else None
        if seconds is None:
            return
        for alias in sorted(self._inboxes):
            try:
                inbox.delete_older(seconds, using=alias, is_stopping=self._stopping.is_set)
            except Error as error:
                logger.debug("the inbox in %r was not looked after: %s", alias, error)

    def _clean_outboxes(self) -> None:
        """Delete what was sent longer ago than anybody wants it kept: while Redis is away nobody knows."""
        if not self._outboxes:
            return
        try:
            announced = announcements.fetch(timeout=1.0)
        except TransportError:
            return
        for alias in self._outboxes:
            try:
                for channel in outbox.channels(using=alias):
                    self._delete_sent(channel, alias, announcements.retention(channel, announced))
            except Error as error:
                logger.debug("the outbox of %r was not looked after: %s", alias, error)

    def _delete_sent(self, channel: str, alias: str, kept: float) -> None:
        while outbox.delete_some(channel, using=alias, older_than=kept, limit=CHUNK) == CHUNK:
            if self._stopping.wait(PAUSE):
                return

    def _delete_old(self, alias: str) -> None:
        """Dead letters whose last run is longer ago than KEEP_DEAD, and what broken-off replays noted."""
        before = ago(conf.KEEP_DEAD)
        gone = 0
        while not self._stopping.is_set() and (deleted := _delete_some(alias, before)):
            gone += deleted
        if gone:
            logger.info("%s older than KEEP_DEAD deleted from %r", counted(gone, "dead letter"), alias)
        ChannelState.objects.using(alias).filter(group__startswith="~replay:", updated_at__lt=before).delete()

    def _look_for_orphans(self, alias: str) -> None:
        """Waiting and parked rows of receivers that no listener of this service has: kept, and told of once."""
        since, found = ago(PATIENCE), Counter[tuple[str, str]]()
        for late in (Q(state=State.WAITING, due__lt=since), Q(state=State.PARKED, updated_at__lt=since)):
            rows = HeldDelivery.objects.using(alias).filter(held.ours(), late)
            orphans = rows.exclude(receiver__in=list(self._alive())).order_by()
            found.update(
                {(alias, name): count for name, count in orphans.values_list("receiver").annotate(Count("pk"))}
            )
        known = {key for key in self._orphans if key[0] == alias}
        for _, name in sorted(found.keys() - known):
            who, count = one_line(name), counted(found[alias, name], "event")
            logger.error("%s waiting for the receiver %s, which no listener of this service has", count, who)
        for _, name in sorted(known - found.keys()):
            logger.warning("no event waits for the missing receiver %s any more", one_line(name))
        self._orphans = (self._orphans - known) | found.keys()


def _delete_some(alias: str, before: datetime) -> int:
    old = HeldDelivery.objects.using(alias).filter(state=State.DEAD, updated_at__lt=before)
    ids = list(old.values_list("pk", flat=True)[:CHUNK])
    return old.filter(pk__in=ids).delete()[0] if ids else 0
