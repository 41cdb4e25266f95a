"""What stands in tables: held deliveries, dead letters by their error, what the outbox has not sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from django.db import Error, connections
from django.db.models import Count, Max, Min, QuerySet

from .. import held, readiness
from ..held import State
from ..models import HeldDelivery, OutboxEvent
from ..registry import all_receivers
from ..wording import one_line
from .facts import ErrorGroup, OutboxFacts
from .server import Server

MOST_COUNTED = 100_000
"""Unsent rows counted: more is "100,000+", and counting a million would take a second."""
HEAVY = ("raw", "traceback")
"""Columns that can be large, left out of lists."""


def databases() -> list[str]:
    """Every database in which this service's held deliveries stand; the default one first."""
    default = held.default_alias()
    return [default, *sorted(held.aliases(all_receivers()) - {default})]


def held_deliveries(
    *, state: str = "", receiver: str = "", fingerprint: str = "", channel: str = "", using: str = "", limit: int = 100
) -> list[HeldDelivery]:
    """Held deliveries of this service, the latest first, without their bytes and tracebacks. Raises django.db.Error."""
    wanted = {"state": state, "receiver": receiver, "fingerprint": fingerprint, "channel": channel}
    filters = {name: value for name, value in wanted.items() if value}
    aliases = [using] if using else databases()
    rows = [row for alias in aliases for row in ours(alias).filter(**filters).defer(*HEAVY).order_by("-pk")[:limit]]
    return sorted(rows, key=lambda row: row.updated_at, reverse=True)[:limit]


def ours(alias: str) -> QuerySet[HeldDelivery]:
    """This service's held deliveries in one database."""
    return HeldDelivery.objects.using(alias).filter(held.ours())


def dead(alias: str) -> QuerySet[HeldDelivery]:
    """The dead ones among them."""
    return ours(alias).filter(state=State.DEAD)


def errors(*, receiver: str = "", fingerprint: str = "", limit: int = 50) -> list[ErrorGroup]:
    """The dead letters by fingerprint, what failed last first. Raises django.db.Error."""
    wanted = {"receiver": receiver, "fingerprint": fingerprint}
    filters = {name: value for name, value in wanted.items() if value}
    groups = [group for alias in databases() for group in _errors(alias, filters, limit)]
    return sorted(groups, key=lambda group: group.last, reverse=True)[:limit]


def _errors(alias: str, filters: Mapping[str, str], limit: int) -> Iterator[ErrorGroup]:
    found = (
        dead(alias)
        .filter(**filters)
        .order_by()
        .values("fingerprint")
        .annotate(count=Count("pk"), first=Min("created_at"), last=Max("updated_at"), sample=Max("pk"))
    )
    groups = list(found.order_by("-last")[:limit])
    samples = HeldDelivery.objects.using(alias).defer(*HEAVY).in_bulk([group["sample"] for group in groups])
    for group in groups:
        row = samples.get(group["sample"])
        if row:  # else it was replayed meanwhile
            yield ErrorGroup(
                receiver=row.receiver,
                exception=row.exception,
                reason=row.reason,
                channel=row.channel,
                using=alias,
                **group,
            )


def dead_count() -> int | None:
    """How many dead letters there are; None where a database does not say."""
    try:
        return sum(dead(alias).count() for alias in databases())
    except Error:
        return None


def kept(*, server: Server) -> Mapping[str, Counter[str]] | None:
    """By state, how many rows wait and how many are parked for each receiver; None where a database does not say.

    Asked once in each look.
    """
    if "kept" not in server.memo:
        server.memo["kept"] = _kept()
    found: Mapping[str, Counter[str]] | None = server.memo["kept"]
    return found


def _kept() -> Mapping[str, Counter[str]] | None:
    counts: dict[str, Counter[str]] = {State.WAITING: Counter(), State.PARKED: Counter()}
    try:
        for alias in databases():
            for state, by_receiver in counts.items():  # one by one: each has an index of its own
                rows = ours(alias).filter(state=state).order_by().values_list("receiver")
                by_receiver.update(dict(rows.annotate(Count("pk"))))
    except Error:
        return None
    return counts


# ------------------------------------------------------------------ outbox


def outboxes() -> list[OutboxFacts]:
    """What each database's outbox has not sent; a database without its table has none."""
    return [_outbox(alias) for alias in readiness.outboxes()]


def _outbox(alias: str) -> OutboxFacts:
    try:
        rows = unsent(alias)
        count = rows.values("pk")[: MOST_COUNTED + 1].count()
        oldest = rows.order_by("pk").values_list("created_at", flat=True).first()
    except Error as error:
        connections[alias].close_if_unusable_or_obsolete()
        return OutboxFacts(using=alias, unsent=None, problem=one_line(error))
    return OutboxFacts(using=alias, unsent=min(count, MOST_COUNTED), is_more=count > MOST_COUNTED, oldest=oldest)


def unsent(alias: str) -> QuerySet[OutboxEvent]:
    """The rows that wait for a relay, in the words of their partial index."""
    return OutboxEvent.objects.using(alias).filter(sent_ms=None, discarded=False)
