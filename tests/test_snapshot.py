"""A model instance as data: on the wire stands what the database keeps."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import django
import pytest
from django.contrib.postgres.fields import ArrayField, HStoreField, IntegerRangeField
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections, models
from django.db.models import F, Value
from django.db.models.functions import Now, Upper
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from redis_events import codec
from redis_events.exceptions import ConfigurationError, EncodeError
from redis_events.snapshot import Snapshot
from tests.testapp.models import Customer, GiftOrder, Order, Parcel


class Size(models.TextChoices):
    SMALL = "s", "small"


class Level(models.IntegerChoices):
    HIGH = 3, "high"


@pytest.fixture(params=["default", "postgres"])
def alias(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("real_transactions" if request.param == "default" else "postgres_alias")
    return request.param


@pytest.fixture
def everything(alias: str) -> Iterator[type[models.Model]]:
    """A model with a field of every kind, its table in the database."""
    with isolate_apps("tests.testapp"):

        class Everything(models.Model):
            big = models.BigIntegerField(null=True)
            binary = models.BinaryField(null=True)
            boolean = models.BooleanField(null=True)
            char = models.CharField(max_length=50, null=True)
            day = models.DateField(null=True)
            moment = models.DateTimeField(null=True)
            decimal = models.DecimalField(max_digits=10, decimal_places=2, null=True)
            duration = models.DurationField(null=True)
            email = models.EmailField(null=True)
            document = models.FileField(null=True)
            real = models.FloatField(null=True)
            ip = models.GenericIPAddressField(null=True)
            integer = models.IntegerField(null=True)
            json = models.JSONField(null=True)
            small = models.SmallIntegerField(null=True)
            text = models.TextField(null=True)
            clock = models.TimeField(null=True)
            uuid = models.UUIDField(null=True)

            class Meta:
                app_label = "testapp"

        with table_of(Everything, alias):
            yield Everything


def on_the_wire(snapshot: Snapshot, instance: Any, using: str) -> Any:
    return json.loads(codec.encode_value(snapshot(instance, using=using)))


UNCOERCED = [
    ("big", "9007199254740993"),
    ("binary", b"\x00\xff"),
    ("binary", memoryview(b"abc")),
    ("binary", bytearray(b"abc")),
    ("boolean", "1"),
    ("boolean", 0),
    ("char", 5),
    ("char", mark_safe("<b>")),
    ("char", gettext_lazy("Yes")),
    ("char", Size.SMALL),
    ("char", "田中 \U0001f680"),
    ("day", "2026-01-02"),
    ("day", datetime(2026, 1, 2, 23, 30, tzinfo=UTC)),
    ("moment", "2026-01-02T03:04:05.678901Z"),
    ("moment", "2026-01-02 03:04"),
    ("moment", date(2026, 1, 2)),
    ("moment", datetime(2026, 1, 2, 3, 4, 5)),  # noqa: DTZ001  # naive on purpose
    ("moment", datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)),
    ("decimal", "1.1"),
    ("decimal", 1),
    ("decimal", 0.1),
    ("decimal", Decimal("9.99") * Decimal("1.19")),
    ("decimal", Decimal("0.125")),
    ("decimal", Decimal("-0.125")),
    ("decimal", Decimal("1E+3")),
    ("duration", timedelta(days=-1, microseconds=1)),
    ("email", mark_safe("a@example.com")),
    ("document", "folder/name.txt"),
    ("real", "2.5"),
    ("real", 2),
    ("ip", "::FFFF:1.2.3.4"),
    ("ip", "2001:0DB8::1"),
    ("integer", "7"),
    ("integer", 7.0),
    ("integer", True),
    ("integer", Level.HIGH),
    ("json", {"a": [1, None, {"b": "ü"}]}),
    ("json", {1: "a"}),
    ("json", [mark_safe("<b>")]),
    ("json", "text"),
    ("json", 0),
    ("small", "3"),
    ("text", 5),
    ("clock", "03:04:05"),
    ("clock", "03:04"),
    ("uuid", UUID(int=7)),
    ("uuid", UUID(int=7).hex),
    ("uuid", 7),
]


def test_values_are_sent_as_the_database_keeps_them(everything: Any, alias: str) -> None:
    sent, stored = {}, {}
    with timezone.override("Asia/Tokyo"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "DateTimeField .* received a naive datetime")
        for name, value in UNCOERCED:
            snapshot = Snapshot(everything, fields=(name,))
            instance = everything(**{name: value})
            instance.save(using=alias)
            sent[name, repr(value)] = on_the_wire(snapshot, instance, alias)[name]
            row = everything.objects.using(alias).get(pk=instance.pk)
            stored[name, repr(value)] = on_the_wire(snapshot, row, alias)[name]
    assert {each: comparable(sent[each]) for each in sent} == {each: comparable(stored[each]) for each in stored}


def comparable(value: Any) -> Any:
    """Equal instants are equal, whatever their offset."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value
    return moment if moment.tzinfo else value


def test_an_empty_row_is_all_null(everything: Any, alias: str) -> None:
    instance = everything.objects.using(alias).create()
    data = Snapshot(everything, fields="__all__")(instance, using=alias)
    assert data.pop("id") == instance.pk
    assert data.pop("document") in ("", None)
    assert set(data.values()) == {None}


def test_an_uploaded_file_is_the_name_it_was_stored_under(
    everything: Any, alias: str, settings: Any, tmp_path: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path
    instances = [everything(document=SimpleUploadedFile("a.txt", b"x")) for _ in range(2)]
    for instance in instances:
        instance.save(using=alias)
    names = [Snapshot(everything, fields=("document",))(each, using=alias)["document"] for each in instances]
    assert names[0] == "a.txt"
    assert names[1] != "a.txt"
    assert names == [path.document.name for path in everything.objects.using(alias).order_by("pk")]


# ------------------------------------------------------------------ expressions


def test_expressions_are_read_back_in_one_query_at_most(everything: Any, alias: str) -> None:
    instance = everything.objects.using(alias).create(integer=4, decimal="1.5", char="abc")
    instance.integer = F("integer") + 1
    instance.decimal = F("decimal") * 2
    instance.char = Upper(Value("abc"))
    instance.moment = Now()
    instance.save(using=alias)
    snapshot = Snapshot(everything, fields=("id", "integer", "decimal", "char", "moment"))
    with CaptureQueriesContext(connections[alias]) as queries:
        data = snapshot(instance, using=alias)
    assert len(queries) == (0 if django.VERSION >= (6, 0) else 1)  # since 6.0 save() brings them back itself
    assert list(data) == ["id", "integer", "decimal", "char", "moment"]
    assert (data["integer"], data["decimal"], data["char"]) == (5, Decimal("3.00"), "ABC")
    assert data["moment"].tzinfo


@pytest.mark.django_db
def test_an_expression_on_an_inherited_field_and_on_a_foreign_key_is_read_back() -> None:
    customer = Customer.objects.create(name="Ana")
    gift = GiftOrder.objects.create(quantity=1, customer=customer)
    gift.quantity = F("quantity") + 1
    gift.customer_id = Value(str(customer.pk).replace("-", ""))
    data = Snapshot(GiftOrder, fields=("quantity", "customer", "wrapping"))(gift, using="default")
    assert data == {"quantity": 1, "customer": customer.pk, "wrapping": "paper"}


# ------------------------------------------------------------------ which fields


@pytest.mark.django_db
def test_deferred_fields_are_left_out_without_a_query() -> None:
    Order.objects.create(note="long")
    order = Order.objects.defer("note", "customer").get()
    with CaptureQueriesContext(connection) as queries:
        data = Snapshot(Order, fields="__all__")(order, using="default")
    assert len(queries) == 0
    assert set(data) == {"id", "status", "quantity", "total", "placed_at"}


@pytest.mark.django_db
def test_a_foreign_key_is_the_key_it_points_with_and_loads_nothing() -> None:
    customer = Customer.objects.create(name="Ana")
    Order.objects.create(customer=customer)
    order = Order.objects.get()
    with CaptureQueriesContext(connection) as queries:
        data = Snapshot(Order, fields=("customer",))(order, using="default")
    assert len(queries) == 0
    assert data == {"customer": customer.pk}
    order.customer_id = customer.pk.hex
    assert Snapshot(Order, fields=("customer",))(order, using="default") == {"customer": customer.pk}


def test_fields_come_in_the_order_they_were_named() -> None:
    assert list(Snapshot(Order, fields=("total", "pk", "status"))(Order(pk=1), using="default")) == [
        "total",
        "id",
        "status",
    ]


def test_exclude_takes_all_the_others() -> None:
    data = Snapshot(Parcel, exclude=("weight", "pk"))(Parcel(pk=1), using="default")
    assert data == {"stamp": "fresh", "saves": 0}


@pytest.mark.parametrize("wrong", [{"fields": ("statsu",)}, {"exclude": ("statsu",)}, {"fields": ("id", "statsu")}])
def test_a_field_that_is_not_there_is_told_with_its_neighbour(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"testapp.Order has no field 'statsu'. Did you mean \"status\""):
        Snapshot(Order, **wrong)


@pytest.mark.parametrize("name", ["tags", "giftorder", "orders"])
def test_relations_of_many_are_no_fields(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"has no field '{name}'"):
        Snapshot(Order, fields=(name,))


def test_a_value_the_field_refuses_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match=r"testapp.Order.quantity: .abc. value must be an integer"):
        Snapshot(Order, fields=("quantity",))(Order(quantity="abc"), using="default")


def test_nan_in_a_field_never_reaches_the_wire() -> None:
    snapshot = Snapshot(Parcel, fields=("weight",))
    with pytest.raises(EncodeError):
        codec.encode_value(snapshot(Parcel(weight=float("nan")), using="default"))


@contextmanager
def table_of(model: type[models.Model], alias: str) -> Iterator[None]:
    with connections[alias].schema_editor() as editor:
        editor.create_model(model)
    try:
        yield
    finally:
        with connections[alias].schema_editor() as editor:
            editor.delete_model(model)


def test_a_generated_column_is_what_the_database_made_of_the_new_values(alias: str) -> None:
    with isolate_apps("tests.testapp"):

        class Line(models.Model):
            price = models.DecimalField(max_digits=9, decimal_places=2)
            twice = models.GeneratedField(
                expression=F("price") * 2,
                output_field=models.DecimalField(max_digits=9, decimal_places=2),
                db_persist=True,
            )

            class Meta:
                app_label = "testapp"

    snapshot = Snapshot(Line, fields=("price", "twice"))
    assert snapshot.unknown_fields() == []
    with table_of(Line, alias):
        line = Line.objects.using(alias).create(price="1.10")
        assert on_the_wire(snapshot, line, alias) == {"price": "1.10", "twice": "2.20"}
        line.price = "2.50"
        line.save()
        assert on_the_wire(snapshot, line, alias) == {"price": "2.50", "twice": "5.00"}


def test_the_items_of_an_array_are_sent_as_stored(postgres_alias: str) -> None:
    with isolate_apps("tests.testapp"):

        class Basket(models.Model):
            prices = ArrayField(ArrayField(models.DecimalField(max_digits=9, decimal_places=2)))
            labels = ArrayField(models.CharField(max_length=9, null=True))

            class Meta:
                app_label = "testapp"

    snapshot = Snapshot(Basket, fields=("prices", "labels"))
    assert snapshot.unknown_fields() == []
    with table_of(Basket, postgres_alias):
        basket = Basket.objects.using(postgres_alias).create(prices=[["1.125", 2], [0, 1]], labels=("a", None))
        sent = on_the_wire(snapshot, basket, postgres_alias)
        assert sent == {"prices": [["1.13", "2.00"], ["0.00", "1.00"]], "labels": ["a", None]}
        assert on_the_wire(snapshot, Basket.objects.using(postgres_alias).get(), postgres_alias) == sent


def test_an_hstore_is_an_object_of_texts() -> None:
    with isolate_apps("tests.testapp"):

        class Tin(models.Model):
            colours = HStoreField()

            class Meta:
                app_label = "testapp"

    snapshot = Snapshot(Tin, fields=("colours",))
    assert snapshot.unknown_fields() == []
    assert on_the_wire(snapshot, Tin(colours={"lid": "red", "box": None}), "default") == {
        "colours": {"lid": "red", "box": None}
    }


class Point(models.Field):
    """A field class nobody here knows."""


def test_field_classes_nobody_knows_are_named() -> None:
    with isolate_apps("tests.testapp"):

        class Place(models.Model):
            name = models.CharField(max_length=9)
            where = Point()
            path = ArrayField(Point())
            size = models.GeneratedField(expression=F("where"), output_field=Point(), db_persist=True)
            between = IntegerRangeField()

            class Meta:
                app_label = "testapp"

    unknown = Snapshot(Place, fields="__all__").unknown_fields()
    assert [field.name for field in unknown] == ["where", "path", "size", "between"]
    assert Snapshot(Order, fields="__all__").unknown_fields() == []
