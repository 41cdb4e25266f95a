"""Silence: blocks in which nothing is published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db.models import Model

_muted: ContextVar[tuple[type[Model] | None, ...]] = ContextVar("redis_events_muted", default=())


@contextmanager
def muted(*models: type[Model]) -> Iterator[None]:
    """Publish nothing in this block; with models, nothing of their publishers."""
    token = _muted.set((*_muted.get(), *(models or (None,))))
    try:
        yield
    finally:
        _muted.reset(token)


def is_muted(model: type[Model] | None) -> bool:
    """Whether nothing of this model is published here; None: nothing at all."""
    silent = _muted.get()
    return bool(silent) and (None in silent or model in silent)
