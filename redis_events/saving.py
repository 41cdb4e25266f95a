"""A lone save and its event in one transaction: in autocommit, Django commits the row before ``post_save`` is sent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

from django.db import connections, router, transaction
from django.db.models import Model

from . import batch

_MARK = "_redis_events"


def whole_saves(model: type[Model], *, when: Callable[[type[Model]], bool]) -> None:
    """Let ``save_base`` of a model have a transaction where it has none, for the models ``when`` says.

    Once is enough: proxies and children inherit it.
    """
    inner: Any = model.save_base
    if hasattr(inner, _MARK):
        return

    @wraps(inner)
    def save_base(
        self: Model,
        raw: bool = False,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Any = None,
    ) -> None:
        using = using or router.db_for_write(type(self), instance=self)
        with _transaction(using) if when(type(self)) else nullcontext():
            inner(self, raw, force_insert, force_update, using, update_fields)

    setattr(save_base, _MARK, True)
    model.save_base = save_base  # type: ignore[method-assign]  # what this function is for


def _transaction(using: str) -> AbstractContextManager[Any]:
    """Nothing where one is open, or is managed by hand. A TestCase's stands for autocommit: a savepoint for it."""
    connection = connections[using]
    if batch.is_open(connection) or not (connection.in_atomic_block or batch.is_autocommit(connection)):
        return nullcontext()
    return transaction.atomic(using=using)
