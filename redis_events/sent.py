"""The sent rows of the outbox: what healing asks of them, in the producer's database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.db import connections
from django.db.models import F, Q, QuerySet

from .floors import Id
from .models import OutboxEvent
from .outbox import MOST

PAGE = 500
"""Rows looked at in one round trip."""
PURGED_AT_ONCE = 1_000
CHUNK_BYTES = 2**20
"""Bytes of events in one round trip: with a transaction around it, that stays under a second."""
Place = tuple[int, int, int]
"""Where a scan is: entry id and primary key, for two rows may have the same entry id when ids went back."""


def channels(*, using: str, since: float) -> list[str]:
    """The channels with rows sent since then (seconds since 1970), stepping through the index from one to the next."""
    found: list[str] = []
    name: str | None = ""
    while name is not None:
        sent = OutboxEvent.objects.using(using).filter(sent_ms__isnull=False, channel__gt=name)
        name = sent.order_by("channel").values_list("channel", flat=True).first()
        if name is not None and _sent(using, name).filter(sent_ms__gte=int(since * 1000)).exists():
            found.append(name)
    return found


def greatest(channel: str, *, using: str) -> Id:
    """The greatest entry id a row of the channel has, discarded ones too; ``(0, 0)`` where nothing was sent."""
    ids = _sent(using, channel).order_by("-sent_ms", "-sent_seq").values_list("sent_ms", "sent_seq")
    ms, seq = ids.first() or (0, 0)
    return ms or 0, seq or 0


def oldest_above(channel: str, low: Id, *, using: str) -> OutboxEvent | None:
    """The first row that was sent above ``low``."""
    return _live(using, channel).filter(_above((*low, MOST))).order_by("sent_ms", "sent_seq").first()


def page(channel: str, after: Place, *, until: Id, using: str) -> list[OutboxEvent]:
    """The next rows behind a place, up to an entry id, oldest first."""
    rows = _up_to(until, _live(using, channel).filter(_above(after)))
    return list(rows.order_by("sent_ms", "sent_seq", "pk")[:PAGE])


def place(row: OutboxEvent) -> Place:
    """Where a scan is when it has done this row."""
    return (*entry_id(row), row.pk)


def entry_id(row: OutboxEvent) -> Id:
    """Where Redis has it."""
    return row.sent_ms or 0, row.sent_seq or 0


def chunks(rows: Sequence[OutboxEvent]) -> Iterator[list[OutboxEvent]]:
    """Rows in order, at most CHUNK_BYTES at a time, or one."""
    chunk: list[OutboxEvent] = []
    size = 0
    for row in rows:
        if chunk and size + len(row.body) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += len(row.body)
    if chunk:
        yield chunk


def claim(rows: Sequence[OutboxEvent], *, using: str) -> list[OutboxEvent]:
    """Those of the rows that nobody else has in hand and whose entry is still the one seen, locked; in a transaction.

    Two relays that heal at once never send the same row: PostgreSQL locks rows, SQLite has one writer.
    """
    seen = {row.pk: entry_id(row) for row in rows}
    live = OutboxEvent.objects.using(using).filter(pk__in=seen, discarded=False)
    features = connections[using].features
    if features.has_select_for_update:
        live = live.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    else:
        live.update(discarded=F("discarded"))  # reading first would let two begin, and one fail after it has sent
    return [row for row in live.order_by("sent_ms", "sent_seq", "pk") if entry_id(row) == seen[row.pk]]


def save_ids(rows: Sequence[OutboxEvent], *, using: str) -> None:
    """Write down where rows were sent again. Row by row: ``bulk_update`` takes 30 times as long for a page of them."""
    quote = connections[using].ops.quote_name
    table, *columns = map(quote, (OutboxEvent._meta.db_table, "sent_ms", "sent_seq", "id"))
    ms, seq, pk = columns
    with connections[using].cursor() as cursor:
        places = [place(row) for row in rows]
        if places:
            cursor.executemany(f"UPDATE {table} SET {ms} = %s, {seq} = %s WHERE {pk} = %s", places)


def last_unsent(channel: str, *, using: str) -> int:
    """The greatest primary key of a row not marked as sent: whatever is being sent now is among those; 0 for none."""
    return _unsent(using, channel).order_by("-pk").values_list("pk", flat=True).first() or 0


def has_unsent(channel: str, until: int, *, using: str) -> bool:
    """Whether a row up to this primary key is not marked as sent."""
    return _unsent(using, channel).filter(pk__lte=until).exists()


def discard(channel: str, low: Id, until: Id, *, using: str) -> int:
    """Mark what was sent above ``low`` and up to ``until`` as removed on purpose; how many rows."""
    rows = _up_to(until, _live(using, channel).filter(_above((*low, MOST))))
    return rows.update(discarded=True)


def count_live(channel: str, *, using: str) -> int:
    """The rows of a channel that are not discarded, sent or not."""
    return OutboxEvent.objects.using(using).filter(channel=channel, discarded=False).count()


def discard_all(channel: str, *, using: str) -> int:
    """Mark every row the channel has now as removed on purpose, sent or not; how many.

    What a sender has in hand is waited for. In pieces, so that nobody else waits long.
    """
    rows = OutboxEvent.objects.using(using).filter(channel=channel, discarded=False).order_by("pk")
    last = rows.values_list("pk", flat=True).last() or 0
    done, behind = 0, 0
    while ids := list(rows.filter(pk__gt=behind, pk__lte=last).values_list("pk", flat=True)[:PURGED_AT_ONCE]):
        behind = ids[-1]
        done += OutboxEvent.objects.using(using).filter(pk__in=ids, discarded=False).update(discarded=True)
    return done


def _sent(using: str, channel: str) -> QuerySet[OutboxEvent]:
    return OutboxEvent.objects.using(using).filter(channel=channel, sent_ms__isnull=False)


def _live(using: str, channel: str) -> QuerySet[OutboxEvent]:
    return _sent(using, channel).filter(discarded=False)


def _unsent(using: str, channel: str) -> QuerySet[OutboxEvent]:
    return OutboxEvent.objects.using(using).filter(channel=channel, sent_ms=None, discarded=False)


def _above(place: Place) -> Q:
    """Behind a place; its first part is what the index is searched by."""
    ms, seq, pk = (min(number, MOST) for number in place)
    later = Q(sent_ms__gt=ms) | Q(sent_seq__gt=seq) | Q(sent_seq=seq, pk__gt=pk)
    return Q(sent_ms__gte=ms) & later


def _up_to(until: Id, rows: QuerySet[OutboxEvent]) -> QuerySet[OutboxEvent]:
    ms, seq = (min(number, MOST) for number in until)
    return rows.filter(Q(sent_ms__lt=ms) | Q(sent_ms=ms, sent_seq__lte=seq), sent_ms__lte=ms)
