"""What can be done about it: claim, skip, replay, discard, pause, resume, stop. Acts raise where looks would not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils.translation import gettext as _

from .. import heartbeat, held, inbox, pauses, replaying
from ..codec import decode
from ..conf import conf, mask
from ..exceptions import ActError, DecodeError, Skipped, Unreachable
from ..floors import is_entry_id
from ..models import HeldDelivery
from ..registry import Receiver, Table, all_receivers
from ..replaying import Replay, numbers
from ..retry import DEAD
from ..routing import is_memory
from ..runner import Result, Run, failure, group_name, quarantine
from ..transports.base import Delivery
from ..transports.client import Command, ErrorReply, Wire, refused
from ..transports.roads import delivery
from ..transports.scripts import BURY, GIVE
from . import rows
from .facts import Done
from .server import PATIENCE

T = TypeVar("T")
CHUNK = 500
"""Rows or entries changed in one step."""
SKIPPED_AT_ONCE = 100
"""Entries settled in one step: their bytes are read first, and the server has little time for that."""


def _on_wire(work: Callable[[Wire], T]) -> T:
    """The result of ``work`` over a connection of its own. Raises TransportError."""
    if is_memory():
        raise Unreachable(_("%s: there is no server") % mask(conf.LOCATION))
    wire = Wire(conf.LOCATION, timeout=PATIENCE)
    try:
        return work(wire)
    finally:
        wire.close()


def _call(wire: Wire, *command: Any) -> Any:
    return _call_all(wire, [command])[0]


def _call_all(wire: Wire, commands: Sequence[Command]) -> list[Any]:
    answers = wire.call(commands)
    for answer in answers:
        if isinstance(answer, ErrorReply):
            raise refused(wire.location, str(answer))
    return answers


# ------------------------------------------------------------------ pending entries


def claim(channel: str, group: str, *, ids: Sequence[str] = (), consumer: str = "") -> Done:
    """Take pending entries from whoever has them, so that the group's living listeners run them, in about 5 seconds.

    ``ids`` names entries, ``consumer`` means all of one consumer's. They are handed to a consumer without a heartbeat:
    listeners take over from such a one at once, one entry at a time. A consumer that is alive after all may still
    finish what it began; `once` receivers have their effect once even so. Raises ActError, TransportError.
    """
    _check_ids(ids)
    if not (ids or consumer):
        raise ActError(_("Name entries, or a consumer."))
    return _on_wire(lambda wire: _claim(wire, channel, group, list(ids), consumer))


def _claim(wire: Wire, channel: str, group: str, ids: list[str], consumer: str) -> Done:
    name, heir = conf.redis_name(channel), f"claimed:{heartbeat.own_id()}"
    done = wanted = 0
    start = "-"
    while consumer and (found := _pending_ids(wire, name, group, consumer, start)):
        wanted += len(found)
        done += int(_call(wire, "EVAL", GIVE, 1, name, group, heir, consumer, *found))
        start = f"({found[-1].decode()}"
    for at in range(0, len(ids), CHUNK):
        chunk = ids[at : at + CHUNK]
        wanted += len(chunk)
        done += int(_call(wire, "EVAL", GIVE, 1, name, group, heir, "", *chunk))
    return Done(done=done, left={_("not pending any more"): wanted - done} if wanted > done else {})


def _pending_ids(wire: Wire, name: str, group: str, consumer: str, start: str) -> list[bytes]:
    return [entry[0] for entry in _call(wire, "XPENDING", name, group, start, "+", CHUNK, consumer)]


def skip(channel: str, group: str, ids: Sequence[str], *, who: str) -> Done:
    """Settle pending entries without running them. Each leaves a dead letter for each of its receivers that says who.

    The dead letters are committed first. A run that has begun goes on to its end: then there are its effect and the
    dead letter, and if it fails it is not tried again. Only a group of this service: others have their own tables.
    Raises ActError, TransportError, django.db.Error.
    """
    _check_ids(ids)
    if group != conf.SERVICE and not group.startswith(f"{conf.SERVICE}:"):
        raise ActError(_("%(group)s is a group of another service: skip there.") % {"group": group})
    return _on_wire(lambda wire: _skip(wire, channel, group, ids, who))


def _skip(wire: Wire, channel: str, group: str, ids: Sequence[str], who: str) -> Done:
    table = Table([receiver for receiver in _known_receivers(wire) if group_name(receiver) == group])
    parts = [ids[at : at + SKIPPED_AT_ONCE] for at in range(0, len(ids), SKIPPED_AT_ONCE)]
    done = sum(_skip_some(wire, channel, group, part, partial(_skipped, table=table, who=who)) for part in parts)
    return Done(done=done, left={_("not pending any more"): len(ids) - done} if done < len(ids) else {})


def _known_receivers(wire: Wire) -> list[Receiver]:
    """This code's, and those that only listeners of another release of this service have: they lose nothing either."""
    own = {each.name: each for each in all_receivers()}
    cards = [card for card in heartbeat.cards(wire) if card.service == conf.SERVICE]
    theirs = {each.name: each for card in cards for each in map(heartbeat.stand_in, card.receivers)}
    return list({**theirs, **own}.values())


def _skip_some(
    wire: Wire, channel: str, group: str, ids: Sequence[str], skipped: Callable[[Delivery], list[held.Failure]]
) -> int:
    name = conf.redis_name(channel)
    answers = _call_all(wire, [("XPENDING", name, group, id, id, 1) for id in ids])
    pending = [id for id, answer in zip(ids, answers, strict=True) if answer]
    entries = _call_all(wire, [("XRANGE", name, id, id) for id in pending])
    held.hold(each for entry in entries if entry for each in skipped(delivery(channel, group, *entry[0])))
    return int(_call(wire, "XACK", name, group, *pending)) if pending else 0


def _skipped(skipped: Delivery, *, table: Table, who: str) -> list[held.Failure]:
    """A dead letter for each receiver of the group; one for none where nobody would have run it."""
    error = Skipped(f"skipped by {who}")
    try:
        id = f"{skipped.channel}/{skipped.id}"
        document = decode(skipped.body, channel=skipped.channel, id=id, is_document=skipped.is_document)
    except DecodeError:
        return [quarantine(skipped, error)]
    runs = [
        Run(receiver, document, skipped, attempt=0) for receiver in table.match(skipped.channel, document.envelope.type)
    ]
    if not runs:
        return [quarantine(skipped, error)]
    # Without an effect only: replayed once the inbox has forgotten it, a receiver would have it again.
    return [failure(Result(run, DEAD, error, 0.0)) for run in runs if not inbox.is_done(run)]


def remove_consumer(channel: str, group: str, consumer: str) -> None:
    """Remove a consumer that has nothing pending. Raises ActError where it has, TransportError."""
    _on_wire(lambda wire: _remove_consumer(wire, channel, group, consumer))


def _remove_consumer(wire: Wire, channel: str, group: str, consumer: str) -> None:
    if not _call(wire, "EVAL", BURY, 1, conf.redis_name(channel), group, consumer):
        raise ActError(_("%(consumer)s has entries pending: claim them first.") % {"consumer": consumer})


def move_group(channel: str, group: str, to: str) -> None:
    """Set what a group reads next: everything behind the entry id ``to`` (``"0"``: all, ``"$"``: only what is new).

    What is skipped over is not settled by anybody; what lies behind ``to`` is delivered again. Raises ActError,
    TransportError.
    """
    if to not in ("0", "$"):
        _check_ids([to])
    _on_wire(lambda wire: _call(wire, "XGROUP", "SETID", conf.redis_name(channel), group, to))


def _check_ids(ids: Sequence[str]) -> None:
    for id in ids:
        if not is_entry_id(id):
            raise ActError(_("%(id)r is no entry id.") % {"id": id})


# ------------------------------------------------------------------ dead letters


def count_dead(
    *,
    ids: Sequence[str] = (),
    fingerprint: str = "",
    receiver: str = "",
    using: str = "",
    until: datetime | None = None,
) -> int:
    """How many dead letters are meant. Raises ActError when nothing is named; django.db.Error."""
    return sum(found.count() for found in _dead(ids, fingerprint, receiver, using, until).values())


def foresee_replay(
    *,
    ids: Sequence[str] = (),
    fingerprint: str = "",
    receiver: str = "",
    using: str = "",
    until: datetime | None = None,
) -> Done:
    """What ``replay`` of the same would do, and leave. Raises ActError when nothing is named; django.db.Error."""
    counts = Counter[str]()
    for found in _dead(ids, fingerprint, receiver, using, until).values():
        for name, count in found.order_by().values_list("receiver").annotate(Count("pk")):
            counts[obstacle(name)] += count
    return Done(done=counts.pop("", 0), left=dict(counts))


def obstacle(receiver: str) -> str:
    """Why this code cannot replay dead letters of a receiver; ``""`` where it can."""
    return replaying.in_words(replaying.obstacle(receiver, {each.name for each in all_receivers()}))


def replay(
    *,
    ids: Sequence[str] = (),
    fingerprint: str = "",
    receiver: str = "",
    using: str = "",
    until: datetime | None = None,
) -> Done:
    """Let the receivers of these dead letters run again: each becomes a waiting row, due now.

    ``until`` leaves out what died later than that: after somebody counted. Raises ReplayError,
    django.db.Error.
    """
    task = Replay()
    task.dead_letters(ids=ids, fingerprint=fingerprint, receiver=receiver, using=using, until=until)
    return Done(done=task.replayed.total(), left=task.left_in_words())


def discard(
    *,
    ids: Sequence[str] = (),
    fingerprint: str = "",
    receiver: str = "",
    using: str = "",
    until: datetime | None = None,
) -> Done:
    """Delete these dead letters for good. Raises ActError when nothing is named; django.db.Error."""
    done = 0
    for alias, meant in _dead(ids, fingerprint, receiver, using, until).items():
        while pks := list(meant.order_by("pk").values_list("pk", flat=True)[:CHUNK]):
            with transaction.atomic(using=alias):
                gone = meant.filter(pk__in=pks).delete()[0]
            done += gone
            if not gone:  # somebody replays them meanwhile
                break
    return Done(done=done, left={})


def _dead(
    ids: Sequence[str], fingerprint: str, receiver: str, using: str, until: datetime | None
) -> dict[str, QuerySet[HeldDelivery]]:
    if not (ids or fingerprint or receiver):
        raise ActError(_("Name dead letters by id, fingerprint or receiver."))
    wanted = Q(event_id__in=ids) | Q(pk__in=numbers(ids)) if ids else Q()
    wanted &= Q(fingerprint=fingerprint) if fingerprint else Q()
    wanted &= Q(receiver=receiver) if receiver else Q()
    wanted &= Q(updated_at__lte=until) if until is not None else Q()
    return {alias: rows.dead(alias).filter(wanted) for alias in ([using] if using else rows.databases())}


# ------------------------------------------------------------------ receivers and listeners


def pause(receiver: str, *, service: str = "", who: str) -> None:
    """Let no listener of a service run a receiver: stream events are parked, retries wait. Raises TransportError."""
    command = pauses.pause(receiver, service=service or conf.SERVICE, by=who, at=time.time())
    _on_wire(lambda wire: _call(wire, *command))


def resume(receiver: str, *, service: str = "") -> bool:
    """Let it run again; its listeners take up what was parked within seconds. Whether it was paused.

    Raises TransportError.
    """
    commands = pauses.resume(receiver, service=service or conf.SERVICE)
    return bool(_on_wire(lambda wire: _call_all(wire, commands))[0])


def stop_listener(id: str, *, who: str) -> None:
    """Ask a listener to stop as SIGTERM would. Raises TransportError."""
    _on_wire(lambda wire: _call(wire, *heartbeat.stop(id, who=who)))
