"""The trials' receivers: two that are `once` and one that is not, each failing where the order's kind says so."""

from __future__ import annotations

import os
import signal
from typing import Any

from django.db import Error

from redis_events import Event, Reject, RetryLater, receives

from ..history import History
from .models import Effect

history: History | None = None
"""Where runs are noted; the trial sets it."""


@receives("orders", once=True)
def first(event: Event[Any]) -> None:
    act("first", event)


@receives("orders")
def second(event: Event[Any]) -> None:
    act("second", event)


@receives("orders", once=True)
def third(event: Event[Any]) -> None:
    act("third", event)


def act(receiver: str, event: Event[Any]) -> None:
    """Have the effect, unless the order's kind is to fail: bad, again (the first time) or poison."""
    assert history
    history.note("ran", receiver=receiver, source=event.source, event=event.id, attempt=event.attempt)
    kind, order = event.data["kind"], event.data["id"]
    if kind == "poison" and receiver == "second":
        history.note("cut", who="listener", at="poison")
        os.kill(os.getpid(), signal.SIGKILL)
    have_effect(receiver, event, order)
    if kind == "bad" and receiver != "second":
        raise Reject("a bad order")
    if kind == "again" and event.attempt == 1 and receiver != "second":
        raise RetryLater(0.001)


def have_effect(receiver: str, event: Event[Any], order: int) -> None:
    """The place where a receiver is half-way."""
    try:
        Effect.objects.create(source=event.source, event_id=event.id, order=order, receiver=receiver)
    except Error as error:
        assert history
        history.note("failed", receiver=receiver, source=event.source, event=event.id, error=str(error))
        raise
