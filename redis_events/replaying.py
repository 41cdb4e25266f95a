"""Handing dead letters and old events to a receiver again, on purpose: each becomes one waiting row, due now."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from . import announcements, floors, held, inbox
from .codec import Document, decode
from .conf import glob
from .events import now
from .exceptions import DecodeError, ReplayError
from .held import State
from .models import ChannelState, HeldDelivery
from .registry import Receiver, Table, all_receivers
from .routing import create, is_memory
from .runner import group_name
from .transports.base import Delivery, Transport

NO_EVENT, NO_RECEIVER = gettext_noop("no event"), gettext_noop("no receiver of that name here")
NOT_DEAD = gettext_noop("not dead any more")
DONE_ALREADY = gettext_noop("done already, and once")
PAGE = 500
"""Rows written in one transaction."""

Identity = tuple[str, str]
"""An event's source and id."""


@dataclass(frozen=True, slots=True)
class Request:
    """The old events somebody asked for: to whom, between which entry ids, of which types (globs; none: all)."""

    to: Receiver
    start: str
    end: str
    types: tuple[str, ...]

    @property
    def alias(self) -> str:
        return self.to.using or held.default_alias()

    @property
    def task(self) -> str:
        """The name under which it is noted how far a replay is: the same for the same request."""
        said = "\n".join([group_name(self.to), self.to.name, self.start, self.end, *sorted(self.types)])
        return f"~replay:{hashlib.sha256(said.encode()).hexdigest()[:32]}"

    def progress(self) -> QuerySet[ChannelState]:
        return ChannelState.objects.using(self.alias).filter(group=self.task)

    def wants(self, document: Document) -> bool:
        return not self.types or any(glob(type, document.envelope.type) for type in self.types)


class Replay:
    """One replay, and what it has done so far. ``rate`` is in events a second; ``dry_run`` counts and writes nothing.

    Nothing is run here: the listeners of this service do that, as they run any retry. A row is never made twice, and
    one that waits already stays as it is.
    """

    def __init__(self, *, rate: int | None = None, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self.replayed: Counter[tuple[str, str, str]] = Counter()
        """Rows made due, by receiver, channel and type."""
        self.waiting = 0
        """Events whose row was waiting already."""
        self.left: Counter[str] = Counter()
        """What could not be replayed, by the reason."""
        self._rate = rate
        self._page = min(PAGE, rate or PAGE)
        self._due = now()

    def left_in_words(self) -> dict[str, int]:
        """``left`` in the language that is active: its own keys are the same in all."""
        return {in_words(reason): count for reason, count in sorted(self.left.items())}

    # -------------------------------------------------------------- dead letters

    def dead_letters(
        self,
        *,
        ids: Sequence[str] = (),
        fingerprint: str = "",
        receiver: str = "",
        using: str = "",
        until: datetime | None = None,
    ) -> None:
        """Replay the dead letters with these ids (of the row or the event), this fingerprint, of this receiver.

        ``using`` is the one database they stand in; ``until`` leaves out what died later. Raises ReplayError
        when nothing is named, or an id means rows in two databases; django.db.Error.
        """
        if not (ids or fingerprint or receiver):
            raise ReplayError(_("name dead letters by id, fingerprint or receiver"))
        known = {each.name: each for each in all_receivers()}
        wanted = {known[name].name for name in known if _is_called(known[name], receiver)} | {receiver}
        aliases = [using] if using else _aliases()
        found = {alias: _dead(alias, ids, fingerprint, wanted if receiver else None) for alias in aliases}
        _refuse_ambiguous(ids, found)
        for alias, rows in found.items():
            self._revive_all(rows if until is None else rows.filter(updated_at__lte=until), known, alias)

    def _revive_all(self, rows: QuerySet[HeldDelivery], known: dict[str, Receiver], alias: str) -> None:
        last = 0
        while page := list(rows.filter(pk__gt=last).order_by("pk")[: self._page]):
            last = page[-1].pk
            self._count(self._revive([row for row in page if self._can_run(row, known)], alias))

    def _can_run(self, row: HeldDelivery, known: dict[str, Receiver]) -> bool:
        why = obstacle(row.receiver, known)
        if why:
            self.left[why] += 1
        return not why

    def _revive(self, rows: Sequence[HeldDelivery], alias: str) -> Sequence[HeldDelivery]:
        """Those that were dead still. Their history stays until the next run; that run is their first again."""
        due = self._next_due(len(rows))
        if self.dry_run or not rows:
            return rows
        revived = _revived(rows, alias, due=due)
        if len(revived) < len(rows):  # somebody discarded or replayed them meanwhile
            self.left[NOT_DEAD] += len(rows) - len(revived)
        return revived

    # -------------------------------------------------------------- old events

    def old_events(self, receiver: str, *, since: datetime, until: datetime, types: Sequence[str] = ()) -> None:
        """Replay to one receiver what was sent between two moments, both included, of these types (globs).

        The group stays where it is. Broken off, it goes on where it was when asked for the same again. Raises
        ReplayError for a receiver that is not here or on no stream; TransportError; django.db.Error.
        """
        transport, asked = (
            create(announcements.STREAM),
            Request(_receiver(receiver), *_between(since, until), tuple(types)),
        )
        try:
            for channel in _channels_of(asked.to):
                self._replay_channel(transport, channel, asked)
        finally:
            transport.close()
        if not self.dry_run:
            asked.progress().delete()

    def _replay_channel(self, transport: Transport, channel: str, asked: Request) -> None:
        done = None if self.dry_run else asked.progress().filter(channel=channel).first()
        start = floors.after(done.floor) if done else asked.start
        while page := transport.browse(channel, start=start, end=asked.end, limit=self._page):
            rows = self._without_done({_identity(row): row for row in self._rows(page, asked)}, asked)
            with transaction.atomic(using=asked.alias):  # the rows and how far they go: both or neither
                self._write(list(rows.values()), asked.alias)
                self._note(asked, channel, page[-1].id)
            start = floors.after(page[-1].id)

    def _rows(self, page: Iterable[Delivery], asked: Request) -> Iterator[HeldDelivery]:
        table = Table([asked.to])
        for delivery in page:
            document = self._document(delivery)
            if document and table.match(delivery.channel, document.envelope.type) and asked.wants(document):
                yield _row(asked.to, delivery, document)

    def _without_done(self, rows: dict[Identity, HeldDelivery], asked: Request) -> dict[Identity, HeldDelivery]:
        """Without those a `once` receiver has an inbox entry for: run again, they would do nothing."""
        if not asked.to.once:
            return rows
        digests = {inbox.digest(*each, group_name(asked.to), asked.to.name): each for each in rows}
        done = inbox.found(digests, using=asked.alias)
        self.left[DONE_ALREADY] += len(done)
        return {identity: rows[identity] for digest, identity in digests.items() if digest not in done}

    def _document(self, delivery: Delivery) -> Document | None:
        id = f"{delivery.channel}/{delivery.id}"
        try:
            return decode(delivery.body, channel=delivery.channel, id=id, is_document=delivery.is_document)
        except DecodeError:
            self.left[NO_EVENT] += 1
            return None

    def _write(self, rows: Sequence[HeldDelivery], alias: str) -> None:
        """New rows, and dead ones waiting again."""
        held_now = _held(rows, alias)
        new = [row for row in rows if _identity(row) not in held_now]
        dead = [row for row in held_now.values() if row.state == State.DEAD]
        self.waiting += len(held_now) - len(dead)
        due = self._next_due(len(new))
        if not self.dry_run:
            for row in new:
                row.due = due
            HeldDelivery.objects.using(alias).bulk_create(new, ignore_conflicts=True)
        self._count([*new, *self._revive(dead, alias)])

    def _note(self, asked: Request, channel: str, entry_id: str) -> None:
        if not self.dry_run:
            state = {"floor": entry_id, "updated_at": now()}
            asked.progress().update_or_create(channel=channel, group=asked.task, defaults=state)

    # -------------------------------------------------------------- both

    def _next_due(self, count: int) -> datetime:
        """When the next rows are due: at most ``rate`` a second, without one all at once."""
        due = self._due
        if self._rate:
            self._due += timedelta(seconds=count / self._rate)
        return due

    def _count(self, rows: Iterable[HeldDelivery]) -> None:
        self.replayed.update((row.receiver, row.channel, row.type) for row in rows)


def _dead(alias: str, ids: Sequence[str], fingerprint: str, receivers: set[str] | None) -> QuerySet[HeldDelivery]:
    rows = HeldDelivery.objects.using(alias).filter(held.ours(), state=State.DEAD)
    if ids:
        rows = rows.filter(Q(event_id__in=ids) | Q(pk__in=numbers(ids)))
    if fingerprint:
        rows = rows.filter(fingerprint=fingerprint)
    if receivers:
        rows = rows.filter(receiver__in=receivers)
    return rows


def _revived(rows: Sequence[HeldDelivery], alias: str, *, due: datetime) -> Sequence[HeldDelivery]:
    """Those of these rows that were dead, and wait now. Nobody can take what was written before it is committed."""
    moment = now()
    same = HeldDelivery.objects.using(alias).filter(pk__in=[row.pk for row in rows])
    with transaction.atomic(using=alias):
        dead = same.filter(state=State.DEAD)
        count = dead.update(state=State.WAITING, due=due, attempt=0, replayed=True, updated_at=moment)
        if count == len(rows):
            return rows
        ours = same.filter(state=State.WAITING, due=due, replayed=True, updated_at=moment)
        done = set(ours.values_list("pk", flat=True))
    return [row for row in rows if row.pk in done]


def numbers(ids: Iterable[str]) -> list[int]:
    """Those that can be primary keys."""
    return [int(id) for id in ids if id.isascii() and id.isdecimal() and len(id) < 19]


def _refuse_ambiguous(ids: Sequence[str], found: dict[str, QuerySet[HeldDelivery]]) -> None:
    """The id of a row says nothing of its database: better to ask than to run the wrong one."""
    for number in numbers(ids):
        places = sorted(alias for alias, rows in found.items() if rows.filter(pk=number).exists())
        if len(places) > 1:
            text = _("dead letter %(number)s is one in each of %(places)s: name its receiver too")
            raise ReplayError(text % {"number": number, "places": ", ".join(places)})


def _aliases() -> list[str]:
    """Every database of this service that may have dead letters."""
    return sorted(held.aliases(all_receivers()) | {held.default_alias()})


def obstacle(receiver: str, known: Collection[str]) -> str:
    """Why a dead letter of this receiver cannot be replayed, where these are known; ``""`` where it can."""
    if receiver in known:
        return ""
    return NO_RECEIVER if receiver else NO_EVENT


def in_words(reason: str) -> str:
    """Why something was left, in the language that is active."""
    return _(reason) if reason else ""  # for "" gettext has the head of its catalogue


def _is_called(receiver: Receiver, name: str) -> bool:
    return name in names_of(receiver)


def names_of(receiver: Receiver) -> tuple[str, str]:
    """What it may be called: by its name, or by the dotted path of its function."""
    function = receiver.function
    return receiver.name, f"{function.__module__}.{function.__qualname__}"


def _receiver(name: str) -> Receiver:
    found = [each for each in all_receivers() if _is_called(each, name)]
    if len(found) == 1:
        return found[0]
    names = sorted(each.name for each in found or all_receivers())
    text = _("no receivers are called %(name)r; there are %(names)s")
    if found:
        text = _("%(count)s receivers are called %(name)r; there are %(names)s")
    raise ReplayError(text % {"count": len(found), "name": name, "names": ", ".join(names) or _("none")})


def _channels_of(receiver: Receiver) -> list[str]:
    """The stream channels it receives."""
    channels = [] if is_memory() else announcements.stream_channels(receiver.channel, announcements.fetch(timeout=1.0))
    if not channels:
        raise ReplayError(_("%r is on no stream: nothing of it is kept") % receiver.channel)
    return channels


def _between(since: datetime, until: datetime) -> tuple[str, str]:
    """The entry ids of the two moments; without a sequence the second one means all of its millisecond."""
    return f"{_milliseconds(since)}-0", str(_milliseconds(until))


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _row(to: Receiver, delivery: Delivery, document: Document) -> HeldDelivery:
    envelope = document.envelope
    return HeldDelivery(
        source=envelope.source,
        event_id=envelope.id,
        group=group_name(to),
        receiver=to.name,
        channel=delivery.channel,
        type=envelope.type,
        key=envelope.subject or "",
        entry_id=delivery.id,
        state=State.WAITING,
        attempt=0,
        replayed=True,
        raw=delivery.body,
        reason="replayed",
        created_at=now(),
        updated_at=now(),
    )


def _identity(row: HeldDelivery) -> Identity:
    return row.source, row.event_id


def _held(rows: Sequence[HeldDelivery], alias: str) -> dict[Identity, HeldDelivery]:
    """The rows there are already for the same events and receiver."""
    if not rows:
        return {}
    ids = [row.event_id for row in rows]
    same = HeldDelivery.objects.using(alias).filter(group=rows[0].group, receiver=rows[0].receiver, event_id__in=ids)
    wanted = {_identity(row) for row in rows}
    return {_identity(row): row for row in same.defer("raw", "traceback") if _identity(row) in wanted}
