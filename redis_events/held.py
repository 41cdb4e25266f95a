"""Held deliveries: writing them down, claiming those that are due, finishing them."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.db import Error, connections, router, transaction
from django.db.models import Min, Q, QuerySet
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from .conf import conf
from .events import now
from .models import HeldDelivery
from .registry import Receiver
from .retry import Outcome, Verdict
from .wording import one_line, own_frames, text_of

MOST_BYTES = 262_144
"""Bytes kept of a message that is no event; what is longer is kept cut, with its length and digest in the reason."""
MOST_TEXT = 20_000

State = HeldDelivery.State
JUDGED = ("state", "due", "attempt", "updated_at", "reason", "exception", "traceback", "fingerprint")
"""The columns an outcome changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What there is to keep of a run that did not end well."""

    verdict: Verdict
    error: BaseException
    source: str
    event_id: str
    group: str
    receiver: str
    channel: str
    type: str
    key: str
    entry_id: str
    attempt: int
    raw: bytes
    using: str
    is_parked: bool = False
    """Whether it waits for its receiver to be resumed, whenever that is."""


def hold(failures: Iterable[Failure]) -> None:
    """Write failures down, committed, one INSERT for each database; what is held already stays as it is.

    Raises django.db.Error, once every other database has its part: then nothing may be settled.
    """
    by_alias: dict[str, list[HeldDelivery]] = {}
    for failure in failures:
        by_alias.setdefault(failure.using, []).append(_row(failure))
    errors = [error for alias, rows in by_alias.items() if (error := _insert(rows, alias))]
    if errors:
        raise errors[0]


def _insert(rows: list[HeldDelivery], alias: str) -> Error | None:
    """Sorted: two listeners that hold the same failures then wait for one another, and never in a circle."""
    rows.sort(key=lambda row: (row.source, row.event_id, row.group, row.receiver))
    try:
        HeldDelivery.objects.using(alias).bulk_create(rows, ignore_conflicts=True)
    except Error as error:
        return error
    return None


def _row(failure: Failure) -> HeldDelivery:
    moment = now()
    row = HeldDelivery(
        source=failure.source,
        event_id=failure.event_id,
        group=failure.group,
        receiver=failure.receiver,
        channel=_text(failure.channel)[:255],
        type=failure.type,
        key=failure.key,
        entry_id=failure.entry_id,
        raw=failure.raw if failure.receiver else failure.raw[:MOST_BYTES],
        created_at=moment,
    )
    _judged(row, failure.verdict, failure.error, attempt=failure.attempt, raw=failure.raw)
    if failure.is_parked:
        row.state, row.due = State.PARKED, None
    return row


def _judged(
    row: HeldDelivery, verdict: Verdict, error: BaseException, *, attempt: int, raw: bytes | None = None
) -> HeldDelivery:
    moment = now()
    is_dead = verdict.outcome is Outcome.DEAD
    row.state = State.DEAD if is_dead else State.WAITING
    row.due = None if is_dead else moment + timedelta(seconds=verdict.after)
    row.attempt = attempt
    row.updated_at = moment
    row.reason = reason(error, b"" if row.receiver else raw or b"")
    row.exception = _text(type(error).__qualname__)[:255]
    row.traceback = _text("".join(traceback.format_exception(error)))[-MOST_TEXT:]
    row.fingerprint = fingerprint(row.receiver, error)
    return row


def reason(error: BaseException, raw: bytes = b"") -> str:
    """What went wrong, in one text that any database stores."""
    said = _text(text_of(error))[:MOST_TEXT] or type(error).__qualname__
    if len(raw) > MOST_BYTES:
        return f"{said} (kept {MOST_BYTES:,} of {len(raw):,} bytes, sha256 {hashlib.sha256(raw).hexdigest()})"
    return said


def _text(value: str) -> str:
    """Without what PostgreSQL refuses in text: NUL and lone surrogates."""
    return value.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")


def fingerprint(receiver: str, error: BaseException) -> str:
    """What makes two failures the same one: receiver, exception, and the innermost frame of the project's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = own_frames(frames) or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].name}" if own else ""
    return hashlib.sha256(f"{receiver}\n{type(error).__qualname__}\n{place}".encode()).hexdigest()[:16]


def seen(identities: Iterable[tuple[str, str, str, str, str]]) -> set[tuple[str, str, str, str]]:
    """Those of (alias, source, event id, group, receiver) that have a row, of any state, without the alias."""
    by_alias: dict[str, set[str]] = {}
    for alias, _, event_id, _, _ in identities:
        by_alias.setdefault(alias, set()).add(event_id)
    found: set[tuple[str, str, str, str]] = set()
    for alias, event_ids in by_alias.items():
        rows = HeldDelivery.objects.using(alias).filter(event_id__in=event_ids)
        found.update(rows.values_list("source", "event_id", "group", "receiver"))
    return found


def is_away(alias: str) -> bool:
    """Whether a database cannot be reached now."""
    try:
        check([alias])
    except Error:
        return True
    return False


def check(aliases: Iterable[str | None]) -> None:
    """Raise Error unless these databases answer."""
    for alias in {alias or default_alias() for alias in aliases}:
        connection = connections[alias]
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


# ------------------------------------------------------------------ trying again


def ours() -> Q:
    """The rows of this service's groups: services may share a database, and an app with receivers.

    To the letter: the LIKE of ``startswith`` ignores case on SQLite, and takes the groups of ``Shop`` for those of
    ``shop``.
    """
    named = f"{conf.SERVICE}:"
    return Q(group=conf.SERVICE) | Q(Exact(Left("group", len(named)), named))


def due_rows(receivers: Sequence[str], *, using: str, limit: int) -> list[HeldDelivery]:
    """This service's waiting rows whose time has come, of receivers this process has; oldest first."""
    return list(_waiting(receivers, using=using).filter(due__lte=now()).order_by("due")[:limit])


def _waiting(receivers: Sequence[str], *, using: str) -> QuerySet[HeldDelivery]:
    return HeldDelivery.objects.using(using).filter(ours(), state=State.WAITING, receiver__in=receivers)


def claim(row: HeldDelivery, *, using: str) -> bool:
    """Take a due row for one run: count the run, move its time CLAIM_AFTER ahead. False when somebody else did.

    Counting before running lets a run that kills its process come to an end too.
    """
    later = now() + timedelta(seconds=conf.CLAIM_AFTER)
    same = HeldDelivery.objects.using(using).filter(pk=row.pk, state=State.WAITING, due=row.due)
    claimed = same.update(due=later, attempt=row.attempt + 1) == 1
    row.due, row.attempt = later, row.attempt + 1
    return claimed


def renew(row: HeldDelivery, *, using: str) -> None:
    """Keep a claimed row ours while its receiver is still running."""
    later = now() + timedelta(seconds=conf.CLAIM_AFTER)
    same = HeldDelivery.objects.using(using).filter(pk=row.pk, state=State.WAITING, due=row.due)
    if same.update(due=later):
        row.due = later


def release(row: HeldDelivery, *, using: str) -> None:
    """Give a claimed row back as if its run had not begun: due now, the run not counted."""
    same = HeldDelivery.objects.using(using).filter(pk=row.pk, state=State.WAITING, due=row.due)
    same.update(due=now(), attempt=row.attempt - 1)


def finish(row: HeldDelivery, verdict: Verdict, error: BaseException | None, *, using: str) -> None:
    """Make the outcome of a claimed row's run true."""
    if error is None:
        HeldDelivery.objects.using(using).filter(pk=row.pk).delete()
        return
    # Compare and set: whoever outran CLAIM_AFTER may find the row taken by another, replayed, discarded or done.
    still_ours = HeldDelivery.objects.using(using).filter(pk=row.pk, state=State.WAITING, due=row.due)
    _judged(row, verdict, error, attempt=row.attempt)
    still_ours.update(**{name: getattr(row, name) for name in JUDGED})


def unpark(receivers: Sequence[str], *, using: str, limit: int) -> int:
    """Make so many parked rows of these receivers of this service due now; how many that were.

    What another listener is about to do is left to it: two updates of the same rows may wait for each other.
    """
    rows = HeldDelivery.objects.using(using).filter(ours(), state=State.PARKED)
    parked = rows.filter(receiver__in=receivers)
    if not connections[using].features.has_select_for_update_skip_locked:  # SQLite: one writes at a time
        return _unpark(rows, parked[:limit])
    with transaction.atomic(using=using):
        return _unpark(rows, parked.select_for_update(skip_locked=True)[:limit])


def _unpark(rows: QuerySet[HeldDelivery], chosen: QuerySet[HeldDelivery]) -> int:
    ids = list(chosen.values_list("pk", flat=True))
    return rows.filter(pk__in=ids).update(state=State.WAITING, due=now()) if ids else 0


def next_due(receivers: Sequence[str], *, using: str) -> datetime | None:
    """When the next waiting row of these receivers of this service is due; None when none is waiting."""
    earliest: datetime | None = _waiting(receivers, using=using).aggregate(earliest=Min("due"))["earliest"]
    return earliest


def default_alias() -> str:
    """The database where held deliveries stand when a receiver names none."""
    return router.db_for_write(HeldDelivery)


def aliases(receivers: Iterable[Receiver]) -> set[str]:
    """The databases in which these receivers' held deliveries stand."""
    return {receiver.using or default_alias() for receiver in receivers}


def complaint(error: Error) -> str:
    """What a database says, as part of a log line; and what to do when it is our table that it misses."""
    advice = " (run `manage.py migrate`)" if HeldDelivery._meta.db_table in str(error) else ""
    return f"{one_line(error)}{advice}"


def has_table(*, using: str) -> bool:
    """Whether ``migrate`` has been run. Raises django.db.Error when the database is away."""
    connection = connections[using]
    with connection.cursor() as cursor:
        return HeldDelivery._meta.db_table in connection.introspection.table_names(cursor)
