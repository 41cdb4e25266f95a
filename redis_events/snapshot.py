"""A model instance as data: its fields as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from functools import cache
from typing import Any
from uuid import UUID

import django
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connections, models
from django.db.models import Field, Model
from django.utils import timezone

from .conf import suggest
from .exceptions import ConfigurationError, EncodeError

EXACT: dict[type[Field[Any, Any]], type] = {
    models.AutoField: int,
    models.IntegerField: int,
    models.CharField: str,
    models.TextField: str,
    models.BooleanField: bool,
    models.UUIDField: UUID,
    models.FloatField: float,
    models.DateField: date,
    models.TimeField: time,
    models.DurationField: timedelta,
}
"""Field classes whose values need no look when they already are of this type."""
KNOWN = (
    models.AutoField,
    models.BinaryField,
    models.BooleanField,
    models.CharField,
    models.DateField,
    models.DecimalField,
    models.DurationField,
    models.FileField,
    models.FilePathField,
    models.FloatField,
    models.GenericIPAddressField,
    models.IntegerField,
    models.JSONField,
    models.TextField,
    models.TimeField,
    models.UUIDField,
)
"""Django's own fields: their values, those of their subclasses too, have a JSON form."""
STAYS_STALE = django.VERSION < (6, 0)
"""Whether ``save()`` leaves a generated column in the instance as it was before."""
AS_IT_IS = (str, int, float, bool, Decimal, UUID, datetime, date, time, timedelta, dict, list, tuple, bytes, type(None))

Step = tuple[str, str, type | None, Callable[[Any, str], Any]]


class Snapshot:
    """Reads the chosen fields of a model's instances: ``Snapshot(Order, fields=("id", "status"))(order)``.

    ``fields`` is a sequence of names or ``"__all__"``; ``exclude`` takes all but. Values are sent as stored: coerced
    through their field, expressions such as ``F("total") + 1`` read back in one query, and generated columns where
    Django leaves an old value in the instance. Deferred fields are left out: loading them would be a query nobody
    asked for. Raises ConfigurationError for a field that is not there.
    """

    def __init__(
        self, model: type[Model], *, fields: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> None:
        self.model = model
        self._fields = list(_chosen(model, fields, exclude))
        self._steps = [_step(field) for field in self._fields]
        self._stale = {field.attname for field in self._fields if field.generated} if STAYS_STALE else set()

    def unknown_fields(self) -> list[Field[Any, Any]]:
        """The fields whose values may have no JSON form: classes nobody here knows, with a Python type of their own."""
        return [field for field in self._fields if not _has_json_form(field)]

    def __call__(self, instance: Model, *, using: str) -> dict[str, Any]:
        state = instance.__dict__
        data, unread = {}, {}
        for name, attname, exact, convert in self._steps:
            if attname not in state:
                continue
            value = state[attname]
            if type(value) is exact:
                data[name] = value
            elif hasattr(value, "resolve_expression") or attname in self._stale:
                unread[attname] = name
                data[name] = None
            else:
                data[name] = convert(value, using)
        return data if not unread else data | self._read_back(instance, unread, using)

    def _read_back(self, instance: Model, unread: dict[str, str], using: str) -> dict[str, Any]:
        rows = self.model._base_manager.using(using).filter(pk=instance.pk).values(*unread)
        stored: dict[str, Any] = next(iter(rows), {})
        convert = {name: step for name, _, _, step in self._steps}
        return {name: convert[name](stored.get(attname), using) for attname, name in unread.items()}


def _chosen(
    model: type[Model], fields: Collection[str] | None, exclude: Collection[str] | None
) -> Iterable[Field[Any, Any]]:
    known = {field.name: field for field in model._meta.concrete_fields}
    for name in (*(() if fields in (None, "__all__") else fields or ()), *(exclude or ())):
        if _field_name(model, name) not in known:
            raise ConfigurationError(f"{model._meta.label} has no field {name!r}. {suggest(name, tuple(known))}")
    if fields is None or fields == "__all__":
        excluded = {_field_name(model, name) for name in exclude or ()}
        return [field for name, field in known.items() if name not in excluded]
    return [known[_field_name(model, name)] for name in fields]


def _field_name(model: type[Model], name: str) -> str:
    try:
        return str(model._meta.pk.name if name == "pk" else model._meta.get_field(name).name)
    except FieldDoesNotExist:
        return name


def _step(field: Field[Any, Any]) -> Step:
    exact = next((kind for base, kind in EXACT.items() if isinstance(field, base)), None)
    if isinstance(field, models.DateTimeField):
        exact = None
    return field.name, field.attname, exact, _converter(field)


def _target(field: Field[Any, Any]) -> Field[Any, Any]:
    """The field whose values these are: the one a foreign key points to, the one a generated column fills."""
    if isinstance(field, models.ForeignKey):
        return _target(field.target_field)
    if isinstance(field, models.GeneratedField) and field.output_field:
        return _target(field.output_field)
    return field


def _has_json_form(field: Field[Any, Any]) -> bool:
    target = _target(field)
    item_field = _item_field(target)
    if item_field:
        return _has_json_form(item_field)
    return isinstance(target, KNOWN) or _is_postgres(target, "HStoreField")


def _item_field(field: Field[Any, Any]) -> Field[Any, Any] | None:
    """The field that says what the items of a PostgreSQL array are; None for all others."""
    return vars(field)["base_field"] if _is_postgres(field, "ArrayField") else None


def _is_postgres(field: Field[Any, Any], name: str) -> bool:
    # By its name: importing django.contrib.postgres needs psycopg.
    return any(
        each.__name__ == name and each.__module__.startswith("django.contrib.postgres.") for each in type(field).__mro__
    )


def _converter(field: Field[Any, Any]) -> Callable[[Any, str], Any]:
    target = _target(field)

    def convert(value: Any, using: str) -> Any:
        if value is None:
            return None
        try:
            return _plain(target, target.to_python(value), using)
        except ValidationError as error:
            raise EncodeError(f"{field.model._meta.label}.{field.name}: {'; '.join(error.messages)}") from error

    return convert


def _plain(field: Field[Any, Any], value: Any, using: str) -> Any:
    if isinstance(field, models.DecimalField) and isinstance(value, Decimal):
        return _quantized(field, value, using)
    if isinstance(value, datetime):  # a model's field means the default time zone, not the current one
        return value if value.tzinfo else timezone.make_aware(value, timezone.get_default_timezone())
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(field, models.FileField):
        return str(value)
    if isinstance(value, list | tuple) and (item_field := _item_field(field)):
        convert = _converter(item_field)
        return [convert(item, using) for item in value]
    return value if isinstance(value, AS_IT_IS) else field.get_prep_value(value)


@cache
def _quantum(places: int) -> Decimal:
    return Decimal(1).scaleb(-places)


def _quantized(field: models.DecimalField[Any, Any], value: Decimal, using: str) -> Decimal:
    if field.decimal_places is None or not value.is_finite():
        return value
    if value.same_quantum(_quantum(field.decimal_places)):
        return value
    # Django rounds on the way in (django.db.backends.utils.format_number), but leaves it to PostgreSQL's numeric.
    rounding = ROUND_HALF_UP if connections[using].vendor == "postgresql" else ROUND_HALF_EVEN
    context = Context(prec=field.max_digits or 28, rounding=rounding)
    return value.quantize(Decimal(1).scaleb(-field.decimal_places), context=context)
