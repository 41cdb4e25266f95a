"""Where what is published goes: into the outbox, or into the batch that leaves after the commit."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from . import batch, outbox
from .exceptions import PublishError
from .posting import poster_for
from .routing import has_rows, sender_for
from .transports.base import Outgoing


def only_alias() -> str:
    """The one alias in an atomic block; ``default`` when none or when it is among several."""
    if len(connections.settings) == 1:
        return DEFAULT_DB_ALIAS
    open_aliases = [each.alias for each in connections.all(initialized_only=True) if batch.is_open(each)]
    if not open_aliases or "default" in open_aliases:
        return "default"
    if len(open_aliases) > 1:
        raise PublishError(f"transactions are open on {', '.join(open_aliases)}: say which one counts with using=.")
    return str(open_aliases[0])


def send(outgoing: Iterable[Outgoing], *, using: str, strict: bool = False) -> None:
    """Send events after the commit on ``using``, or now when there is none; those with OUTBOX are rows in it.

    Raises PublishError, django.db.Error where a row cannot be written, and with ``strict`` TransportError.
    """
    rows, others = _divided(outgoing)
    if rows:
        _write(rows, using=using)
    if others:
        _hand_over(others, using=using, strict=strict)


def _divided(outgoing: Iterable[Outgoing]) -> tuple[list[Outgoing], list[Outgoing]]:
    """What goes to the outbox, and what does not."""
    rows: list[Outgoing] = []
    others: list[Outgoing] = []
    for each in outgoing:
        (rows if has_rows(each.channel) else others).append(each)
    return rows, others


def _write(rows: list[Outgoing], *, using: str) -> None:
    """Write events to the outbox in the open transaction, else in one of their own; its commit sends them."""
    connection = connections[using]
    if not connection.in_atomic_block:
        batch.require_commits(connection)
        with transaction.atomic(using=using):
            _write(rows, using=using)
        return
    poster = poster_for(using)
    batch.add([(poster, each) for each in outbox.write(rows, using=using)], using=using)


def _hand_over(outgoing: list[Outgoing], *, using: str, strict: bool) -> None:
    waiting = [(sender_for(each.channel), each) for each in outgoing]
    if not strict:
        batch.add(waiting, using=using)
        return
    if batch.is_open(connections[using]):
        raise PublishError("strict=True cannot be kept in a transaction: the event leaves after its commit.")
    for sender, each in waiting:
        sender.send([each], strict=True)
