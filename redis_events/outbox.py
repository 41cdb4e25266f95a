"""The outbox: events as rows of the transaction they tell of, and how rows become entries of a stream.

Written in SQL: one row through the ORM costs three times as much, in every save (docs/decisions/0007-outbox.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .codec import read_head
from .conf import conf
from .events import ago, now
from .signals import event_published
from .transports.base import Outgoing
from .transports.client import ONE_CHANNEL_ONLY, ErrorReply

if TYPE_CHECKING:  # publishing imports us, and can be imported before Django has its models
    from django.db.models import Field

    from .models import OutboxEvent
    from .transports.stream import StreamTransport

LIMIT = 500
"""Rows claimed at once."""
MOST_BYTES = 1_048_576
"""Bytes of events sent in one transaction: it must be over in a second."""
INSERTED_AT_ONCE = 100
"""Rows in one INSERT: SQLite may have a limit of 999 parameters."""
MOST = 2**63 - 1
"""What a column holds of half an entry id, which may be twice as large."""
HEAD_START = 2.0
"""Seconds in which a row is left to its own process where a database has one writer."""
COLUMNS = ("channel", "event_id", "type", "key", "body", "created_at", "discarded")
UNSENT = {
    "sqlite": "NOT discarded AND discarded = 0 AND sent_ms IS NULL",
    "": "NOT discarded AND sent_ms IS NULL",
}
"""In the very words of the partial index, which SQLite compares: Django 5.2 writes it one way, 6.1 the other."""

FULL = "it has MAX_LENGTH entries"
EXHAUSTED = "exhausted the last possible ID"
"""What Redis says of a stream in which somebody has used the greatest id there is: no other entry fits in."""

Row = tuple[int, str, bytes]
"""Id, channel, body."""


class Written(Outgoing, frozen=True, gc=False):
    """An event with its row's id, 0 where the database does not tell."""

    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one transaction's worth of sending came to. ``refused`` names channels and why they took nothing more."""

    sent: Sequence[Outgoing] = ()
    has_more: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------ writing


def write(batch: Sequence[Outgoing], *, using: str) -> list[Written]:
    """Add events to the outbox of a database, in its current transaction. Raises django.db.Error."""
    connection, moment = connections[using], now()
    parts = [batch[at : at + INSERTED_AT_ONCE] for at in range(0, len(batch), INSERTED_AT_ONCE)]
    return [written for part in parts for written in _insert(part, connection, moment)]


def _insert(batch: Sequence[Outgoing], connection: BaseDatabaseWrapper, moment: Any) -> list[Written]:
    tells = connection.features.can_return_rows_from_bulk_insert
    stamp = connection.ops.adapt_datetimefield_value(moment)
    with connection.cursor() as cursor:
        parameters = [value for each in batch for value in _values(each, connection, stamp)]
        cursor.execute(_insertion(connection.vendor, len(batch)), parameters)
        ids = [row[0] for row in cursor.fetchall()] if tells else [0] * len(batch)
    return [Written(each.channel, each.body, each.plain, id) for each, id in zip(batch, ids, strict=True)]


@cache
def _insertion(vendor: str, count: int) -> str:
    """Kept: making the text of one row takes as long as a tenth of the INSERT."""
    connection = next(connections[alias] for alias in connections if connections[alias].vendor == vendor)
    columns = ", ".join(map(connection.ops.quote_name, COLUMNS))
    rows = ", ".join([f"({', '.join(['%s'] * len(COLUMNS))})"] * count)
    tells = connection.features.can_return_rows_from_bulk_insert
    return f"INSERT INTO {_table()} ({columns}) VALUES {rows}{' RETURNING id' if tells else ''}"


def _values(outgoing: Outgoing, connection: BaseDatabaseWrapper, stamp: Any) -> tuple[Any, ...]:
    head = read_head(outgoing.body)
    body = _body().get_db_prep_value(outgoing.body, connection)
    return outgoing.channel, head.id, head.type, head.subject or "", body, stamp, False


@cache
def _body() -> Field[Any, Any]:
    return _model()._meta.get_field("body")


@cache
def _model() -> type[OutboxEvent]:
    return apps.get_model("redis_events", "OutboxEvent")


def _table() -> str:
    return _model()._meta.db_table


# ------------------------------------------------------------------ sending


def send_some(
    transport: StreamTransport,
    *,
    using: str,
    ids: Sequence[int] | None = None,
    skip: Collection[str] = (),
    limit: int = LIMIT,
) -> Round:
    """Claim unsent rows, send them, note their entry ids: one transaction, in which nobody else can claim them.

    ``ids``: only these, at most ``limit`` of them; without it, any but those of the channels in ``skip``, oldest
    first. What the server refuses stays unsent. Raises TransportError (then none of them is marked) and
    django.db.Error.
    """
    connection = connections[using]
    if ids is None and _has_one_writer(connection):
        # Nobody else can write from the claim on: so only when there is something, and the server answers.
        if not _claim(connection, ids, skip, limit=1):
            return Round()
        transport.ping()
    with transaction.atomic(using=using):
        _become_writer(connection)
        if ids is None:
            _walk_the_index(connection)
        claimed = _claim(connection, ids, skip, limit=limit)
        rows, full = _within_caps(transport, _first_bytes(claimed))
        taken, refused = _send(transport, rows)
        _mark(connection, taken)
    sent = [Outgoing(channel, body) for id, channel, body in rows if id in taken]
    if sent and event_published.receivers:
        event_published.send_robust(type(transport), batch=sent)
    return Round(sent=sent, has_more=len(claimed) == limit or len(rows) < len(claimed), refused=full | refused)


def _has_one_writer(connection: BaseDatabaseWrapper) -> bool:
    return not connection.features.has_select_for_update


def _become_writer(connection: BaseDatabaseWrapper) -> None:
    """Where rows cannot be locked, the whole database is, by a write that changes nothing."""
    if _has_one_writer(connection):
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {_table()} SET discarded = discarded WHERE id < 0")


def _walk_the_index(connection: BaseDatabaseWrapper) -> None:
    """Where PostgreSQL has not counted yet how much is unsent, it takes that for little, and sorts all of it for each
    claim: 6,000 events/s from 100,000 rows, against 42,000 in the order of the index.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_sort = off")


def _claim(
    connection: BaseDatabaseWrapper, ids: Sequence[int] | None, skip: Collection[str], *, limit: int
) -> list[Row]:
    conditions, parameters = [UNSENT.get(connection.vendor, UNSENT[""])], list[Any]()
    if ids is not None:
        conditions.append(f"id IN ({_marks(ids)})")
        parameters += ids
    elif _has_one_writer(connection):
        conditions.append("created_at < %s")
        parameters.append(connection.ops.adapt_datetimefield_value(ago(HEAD_START)))
    if skip:
        conditions.append(f"channel NOT IN ({_marks(skip)})")
        parameters += skip
    where = " AND ".join(conditions)
    # With statistics at hand SQLite would rather skip through the other index, and sort all that is unsent.
    index = " INDEXED BY redis_events_outbox_unsent" if ids is None and connection.vendor == "sqlite" else ""
    sql = (
        f"SELECT id, channel, body FROM {_table()}{index} WHERE {where} ORDER BY id LIMIT {limit:d}{_lock(connection)}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [(id, channel, bytes(body)) for id, channel, body in cursor.fetchall()]


def _marks(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _lock(connection: BaseDatabaseWrapper) -> str:
    if not connection.features.has_select_for_update or not connection.in_atomic_block:
        return ""
    return " FOR UPDATE SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else " FOR UPDATE"


def _first_bytes(rows: Sequence[Row]) -> list[Row]:
    """As many as make MOST_BYTES, and the first in any case."""
    total = 0
    first: list[Row] = []
    for row in rows:
        total += len(row[2])
        if first and total > MOST_BYTES:
            break
        first.append(row)
    return first


def _within_caps(transport: StreamTransport, rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows that fit below MAX_LENGTH, and the channels that are full."""
    caps = {channel: cap for channel in {row[1] for row in rows} if (cap := _cap(channel))}
    lengths = transport.lengths(list(caps)) if caps else []
    room = {channel: cap - _known(length) for (channel, cap), length in zip(caps.items(), lengths, strict=True)}
    fitting = []
    for row in rows:
        left = room.get(row[1], 1)
        if left > 0:
            fitting.append(row)
        if row[1] in room:
            room[row[1]] = left - 1
    return fitting, {channel: FULL for channel, left in room.items() if left < 0}


def _cap(channel: str) -> int | None:
    entry = conf.channel(channel)
    return (entry.MAX_LENGTH if entry else None) or conf.MAX_LENGTH


def _known(length: int | ErrorReply) -> int:
    return 0 if isinstance(length, ErrorReply) else length


def _send(transport: StreamTransport, rows: Sequence[Row]) -> tuple[dict[int, tuple[int, int]], dict[str, str]]:
    """The two halves of the entry id for each row id that was sent; channels with a refusal."""
    answers = transport.add([Outgoing(channel, body) for _, channel, body in rows]) if rows else []
    sent: dict[int, tuple[int, int]] = {}
    refused: dict[str, str] = {}
    for (id, channel, _), answer in zip(rows, answers, strict=True):
        if isinstance(answer, ErrorReply):
            refused[channel] = str(answer)
            continue
        sent[id] = halves(answer.decode())
    return sent, refused


def halves(entry_id: str) -> tuple[int, int]:
    """An entry id as rows have it, cut off at MOST: behind an id of another client's making all are as large."""
    ms, _, seq = entry_id.partition("-")
    return min(int(ms), MOST), min(int(seq), MOST)


def _mark(connection: BaseDatabaseWrapper, sent: Mapping[int, tuple[int, int]]) -> None:
    if not sent:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # 500 single updates would be 500 answers to wait for
            ids = "unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS sent (id, ms, seq)"
            what = f"UPDATE {_table()} AS rows SET sent_ms = sent.ms, sent_seq = sent.seq FROM {ids}"
            halves = [list(half) for half in zip(*sent.values(), strict=True)]
            cursor.execute(f"{what} WHERE rows.id = sent.id", [list(sent), *halves])
            return
        sql = f"UPDATE {_table()} SET sent_ms = %s, sent_seq = %s WHERE id = %s"
        cursor.executemany(sql, [(*entry, id) for id, entry in sent.items()])


def is_of_channel(answer: str) -> bool:
    """Whether a refusal concerns its channel alone."""
    return answer == FULL or EXHAUSTED in answer or answer.partition(" ")[0] in ONE_CHANNEL_ONLY


# ------------------------------------------------------------------ keeping


def aliases() -> list[str]:
    """The databases that may have an outbox: all in which the routers allow its table, but no replicas.

    A replica is told by Django's own mark for it, ``TEST: {"MIRROR": …}``: nothing can be claimed there.
    """
    allowed = (alias for alias in connections if router.allow_migrate_model(alias, _model()))
    return [alias for alias in allowed if not connections[alias].settings_dict["TEST"].get("MIRROR")]


def has_table(*, using: str) -> bool:
    """Whether ``migrate`` has been run there. Raises django.db.Error when the database is away."""
    connection = connections[using]
    with connection.cursor() as cursor:
        return _table() in connection.introspection.table_names(cursor)


def channels(*, using: str) -> Iterator[str]:
    """Every channel that has rows, found by one step in the index each."""
    rows = _model().objects.using(using).order_by("channel").values_list("channel", flat=True)
    last = rows.first()
    while last is not None:
        yield last
        last = rows.filter(channel__gt=last).first()


def delete_some(channel: str, *, using: str, older_than: float, limit: int) -> int:
    """Delete up to ``limit`` of a channel's rows that were sent, or discarded, more than so many seconds ago."""
    before = ago(older_than)
    rows = _model().objects.using(using).filter(channel=channel)
    sent = rows.filter(sent_ms__lt=int(before.timestamp() * 1000)).order_by("sent_ms", "sent_seq")
    discarded = rows.filter(sent_ms=None, discarded=True, created_at__lt=before)
    ids = list(sent.values_list("pk", flat=True)[:limit])
    ids += discarded.values_list("pk", flat=True)[: limit - len(ids)]
    return _model().objects.using(using).filter(pk__in=ids).delete()[0] if ids else 0
