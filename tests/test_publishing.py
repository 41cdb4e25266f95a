"""Explicit calls and model changes: what is published, what is refused, and what never happens by itself."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import uuid
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F, ProtectedError, Value
from django.db.models.signals import post_delete, post_save, pre_delete
from django.test.utils import CaptureQueriesContext

from redis_events import Event, ModelPublisher, apublish, event, muted, publish, publishes
from redis_events.events import MAX_HOPS, current_event
from redis_events.exceptions import ConfigurationError, EncodeError, InvalidName, PublishError, TooManyHops
from redis_events.registry import publishers
from redis_events.testing import CapturedEvents
from tests.naughty import STRINGS
from tests.testapp.models import Customer, GiftOrder, Order, Parcel, Stamped, Unpublished, UrgentOrder

pytestmark = pytest.mark.usefixtures("declared")


@event("shop.order.refunded", channel="shop.orders", key_field="order_id")
@dataclasses.dataclass(frozen=True)
class Refunded:
    order_id: int
    amount: Decimal


@pytest.fixture
def refunded(declared: None) -> type[Refunded]:
    event("shop.order.refunded", channel="shop.orders", key_field="order_id")(Refunded)
    return Refunded


@pytest.fixture
def order_publisher(declared: None) -> type[ModelPublisher]:
    @publishes(Order)
    class OrderPublisher(ModelPublisher):
        channel = "shop.orders"
        type_prefix = "shop.order"
        fields = ("id", "status", "quantity", "total")

    return OrderPublisher


def told(captured: CapturedEvents) -> list[tuple[str, str]]:
    return [(each.type.rpartition(".")[2], each.key) for each in captured]


# ------------------------------------------------------------------ explicit calls


def test_an_event_class_brings_channel_type_and_key(refunded: Any, captured_events: CapturedEvents) -> None:
    returned = publish(refunded(order_id=7, amount=Decimal("9.90")))
    (sent,) = captured_events
    assert returned.data == refunded(order_id=7, amount=Decimal("9.90"))
    assert (sent.id, sent.channel, sent.type, sent.key) == (returned.id, "shop.orders", "shop.order.refunded", "7")
    assert sent.source == "shop"
    assert sent.data == {"order_id": 7, "amount": "9.90"}


def test_a_channel_with_a_type_makes_a_document(captured_events: CapturedEvents) -> None:
    publish("shop.orders", {"id": 7}, type="shop.order.noted", key=7)
    (sent,) = captured_events
    assert (sent.type, sent.key, sent.data) == ("shop.order.noted", "7", {"id": 7})
    assert json.loads(sent.raw)["subject"] == "7"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ("Hello, World!!!", b"Hello, World!!!"),
        ("", b""),
        ({"a": 1}, b'{"a":1}'),
        ([1, "ü"], '[1,"ü"]'.encode()),
        (None, b"null"),
        (0, b"0"),
        (False, b"false"),
    ],
    ids=repr,
)
def test_without_a_type_the_bare_text_or_json_is_sent(data: Any, body: bytes, captured_events: CapturedEvents) -> None:
    publish("channel", data)
    assert [sent.raw for sent in captured_events] == [body]


@pytest.mark.parametrize("key", ["", 0, "0", False, "x" * 255, uuid.UUID(int=1)], ids=str)
def test_any_key_that_can_be_printed_is_kept(key: object, captured_events: CapturedEvents) -> None:
    assert publish("c", 1, type="t", key=key).key == str(key)
    assert captured_events.events[0].key == str(key)


BAD_CHANNELS = ["", " ", "a b", "ü", "a\n", "a*", "a/b", "x" * 129, "redis-events:", "redis-events:stats:1"]


@pytest.mark.parametrize("channel", BAD_CHANNELS)
def test_a_channel_that_is_no_name_is_refused(channel: str, captured_events: CapturedEvents) -> None:
    with pytest.raises(InvalidName):
        publish(channel, 1)
    captured_events.assert_nothing_published()


@pytest.mark.parametrize("text", [text for text in STRINGS if text not in ("0", "null", "NaN", "-Infinity", "1e400")])
def test_naughty_texts_are_neither_channels_nor_types_nor_unprintable_keys(text: str) -> None:
    if text and not text.replace(".", "").replace("-", "").replace(":", "").isalnum():
        with pytest.raises(InvalidName):
            publish(text, 1)
        with pytest.raises(InvalidName):
            publish("c", 1, type=text)
    if not text.isprintable() or len(text) > 255:
        with pytest.raises(PublishError, match="a key is a printable text"):
            publish("c", 1, type="t", key=text)


def test_the_prefix_counts_towards_the_length_of_a_channel(settings: Any, captured_events: CapturedEvents) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "PREFIX": "p" * 28}
    publish("x" * 99, 1)
    with pytest.raises(InvalidName, match="128 with the PREFIX"):
        publish("x" * 100, 1)


MISTAKES = [
    (("c",), {}, "needs the data"),
    (("c", 1), {"key": 7}, "a key needs a type"),
    ((object(),), {}, "neither a channel name nor a class with @event"),
    ((Refunded(1, Decimal(1)), {"more": 1}), {}, "brings its own channel, type and data"),
    ((Refunded(1, Decimal(1)),), {"type": "other"}, "brings its own channel, type and data"),
    (("c", 1), {"type": "shop order"}, "is no event type"),
    (("c", 1), {"type": 7}, "is no event type"),
    (("c", object()), {}, "has no JSON form"),
    (("c", {"a": float("nan")}), {"type": "t"}, "not a JSON number"),
    (("c", "x" * 300_000), {}, "MAX_EVENT_BYTES is 262,144"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), MISTAKES, ids=lambda each: str(each)[:30])
def test_the_callers_mistakes_raise_before_anything_is_sent(
    refunded: Any, captured_events: CapturedEvents, arguments: Any, options: Any, message: str
) -> None:
    with pytest.raises(PublishError, match=message):
        publish(*arguments, **options)
    captured_events.assert_nothing_published()


def test_an_instance_of_an_undeclared_subclass_is_refused(refunded: Any) -> None:
    class Other(Refunded):
        pass

    with pytest.raises(PublishError, match="Other is neither"):
        publish(Other(order_id=1, amount=Decimal(1)))


@pytest.mark.usefixtures("real_transactions")
def test_strict_cannot_be_kept_inside_a_transaction(captured_events: CapturedEvents) -> None:
    with transaction.atomic(), pytest.raises(PublishError, match="leaves after its commit"):
        publish("c", 1, strict=True)
    publish("c", 2, strict=True)
    assert [sent.data for sent in captured_events] == [2]


@pytest.mark.django_db
def test_strict_works_in_a_test_case(captured_events: CapturedEvents) -> None:
    publish("c", 1, strict=True)
    assert len(captured_events) == 1


def test_publish_in_an_event_loop_says_what_to_use_instead(captured_events: CapturedEvents) -> None:
    async def view() -> Event[Any]:
        with pytest.raises(SynchronousOnlyOperation, match="await apublish"):
            publish("c", 1)
        return await apublish("c", 2, type="t")

    assert asyncio.run(view()).data == 2
    assert [sent.data for sent in captured_events] == [2]


# ------------------------------------------------------------------ stories


def receiving(cause: Event[Any]) -> Any:
    return current_event.set(cause)


def test_what_a_receiver_publishes_names_its_cause(captured_events: CapturedEvents) -> None:
    first = Event(data=1, id="first", type="t", traceparent="00-trace-01")
    token = receiving(first)
    try:
        second = publish("c", 2, type="t")
        current_event.set(second)
        third = publish("c", 3, type="t")
    finally:
        current_event.reset(token)
    assert (second.correlation_id, second.causation_id, second.hops) == ("first", "first", 1)
    assert (third.correlation_id, third.causation_id, third.hops) == ("first", second.id, 2)
    assert third.traceparent == "00-trace-01"
    assert publish("c", 4, type="t").correlation_id == ""


def test_the_seventeenth_event_of_a_chain_is_refused(captured_events: CapturedEvents) -> None:
    token = receiving(Event(data=0))
    try:
        for _ in range(MAX_HOPS):
            current_event.set(publish("c", 1, type="loop"))
        with pytest.raises(TooManyHops, match="17 in a chain"):
            publish("c", 1, type="loop")
    finally:
        current_event.reset(token)
    assert len(captured_events) == MAX_HOPS == 16


# ------------------------------------------------------------------ model changes


@pytest.mark.usefixtures("real_transactions")
def test_a_life_of_a_row_is_three_events(order_publisher: Any, captured_events: CapturedEvents) -> None:
    order = Order.objects.create(total="9.9")
    pk = order.pk
    order.status = "paid"
    order.save()
    order.delete()
    assert told(captured_events) == [("created", str(pk)), ("updated", str(pk)), ("deleted", str(pk))]
    created, updated, deleted = captured_events
    assert created.type == "shop.order.created"
    assert created.data == {"id": pk, "status": "new", "quantity": 1, "total": "9.90"}
    assert deleted.data == updated.data == {**created.data, "status": "paid"}


@pytest.mark.usefixtures("real_transactions")
def test_a_rolled_back_save_is_no_event(order_publisher: Any, captured_events: CapturedEvents) -> None:
    with suppress(ZeroDivisionError), transaction.atomic():
        Order.objects.create()
        1 / 0  # noqa: B018
    captured_events.assert_nothing_published()


@pytest.mark.usefixtures("real_transactions")
def test_each_row_of_a_queryset_delete_and_of_a_cascade_is_an_event(
    order_publisher: Any, captured_events: CapturedEvents
) -> None:
    customer = Customer.objects.create(name="Ana")
    first, second = Order.objects.create(customer=customer), Order.objects.create(customer=customer)
    other = Order.objects.create()
    customer.delete()
    assert {key for verb, key in told(captured_events) if verb == "deleted"} == {str(first.pk), str(second.pk)}
    Order.objects.all().delete()
    assert told(captured_events)[-1] == ("deleted", str(other.pk))


@pytest.mark.usefixtures("real_transactions")
def test_a_delete_that_fails_is_no_event_and_the_next_one_is_one(
    order_publisher: Any, captured_events: CapturedEvents
) -> None:
    def refuse(**_: Any) -> None:
        raise ProtectedError("not this one", set())

    order = Order.objects.create()
    pre_delete.connect(refuse, sender=Order)
    try:
        with pytest.raises(ProtectedError):
            order.delete()
    finally:
        pre_delete.disconnect(refuse, sender=Order)
    assert told(captured_events) == [("created", str(order.pk))]
    pk = order.pk
    order.delete()
    assert told(captured_events)[1:] == [("deleted", str(pk))]


@pytest.mark.usefixtures("real_transactions")
def test_only_the_wanted_types_are_published_and_connected(captured_events: CapturedEvents) -> None:
    @publishes(Order)
    class Deletions(ModelPublisher):
        channel = "c"
        fields = ("id",)
        types = ("deleted",)

    order = Order.objects.create()
    order.save()
    order.delete()
    assert [verb for verb, _ in told(captured_events)] == ["deleted"]
    assert not post_save.has_listeners(Order)


def test_a_model_nobody_publishes_keeps_its_fast_deletes(order_publisher: Any) -> None:
    for signal in (post_save, pre_delete, post_delete):
        assert signal.has_listeners(Order)
        assert not signal.has_listeners(Unpublished)
        assert not signal.has_listeners(Customer)


@pytest.mark.usefixtures("real_transactions")
def test_several_publishers_of_one_model_all_publish(order_publisher: Any, captured_events: CapturedEvents) -> None:
    @publishes(Order)
    class Audit(ModelPublisher):
        channel = "audit"
        exclude = ("note",)
        types = ("created",)

    Order.objects.create().save()
    assert [(each.channel, each.type) for each in captured_events] == [
        ("shop.orders", "shop.order.created"),
        ("audit", "testapp.order.created"),
        ("shop.orders", "shop.order.updated"),
    ]
    assert "note" not in captured_events.events[1].data
    assert "placed_at" in captured_events.events[1].data


@pytest.mark.usefixtures("real_transactions")
def test_a_publisher_may_say_the_data_itself(captured_events: CapturedEvents) -> None:
    @publishes(Order)
    class Own(ModelPublisher):
        channel = "c"

        def data(self, instance: Any) -> Any:
            return {"number": instance.pk * 2}

    order = Order.objects.create()
    assert captured_events.events[0].data == {"number": order.pk * 2}


@pytest.mark.usefixtures("real_transactions")
def test_a_mistake_in_a_publisher_is_logged_and_the_save_stands(
    captured_events: CapturedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    @publishes(Order)
    class Wrong(ModelPublisher):
        channel = "c"

        def data(self, instance: Any) -> Any:
            return {"status": instance.statsu}

    @publishes(Order)
    class Right(ModelPublisher):
        channel = "c"
        fields = ("id",)

    with caplog.at_level(logging.ERROR, "redis_events.publish"):
        order = Order.objects.create()
    assert Order.objects.filter(pk=order.pk).exists()
    assert "Wrong.created: not published" in caplog.text
    assert told(captured_events) == [("created", str(order.pk))]


@pytest.mark.usefixtures("real_transactions")
@pytest.mark.parametrize(
    "wrong", [{"CHANELS": {}}, {"CHANNELS": {"shop.*": {"TRANSPORT": "nowhere.Pigeon"}}}], ids=["name", "transport"]
)
def test_a_wrong_setting_is_one_line_for_all_saves_and_they_stand(
    wrong: Any, order_publisher: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": "redis://localhost", **wrong}
    for _ in range(3):
        Order.objects.create().delete()
    assert Order.objects.count() == 0
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("ERROR", None)]
    assert caplog.messages[0].startswith("model changes are not published: REDIS_EVENTS")


@pytest.mark.usefixtures("real_transactions")
def test_a_save_with_autocommit_off_stands_and_says_that_nothing_was_published(
    order_publisher: Any, captured_events: CapturedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    transaction.set_autocommit(False)
    try:
        Order.objects.create()
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert Order.objects.count() == 1
    assert "not published: autocommit is off on 'default'" in caplog.text
    captured_events.assert_nothing_published()


@pytest.mark.usefixtures("real_transactions")
def test_fixtures_publish_nothing(order_publisher: Any, captured_events: CapturedEvents, tmp_path: Path) -> None:
    fixture = tmp_path / "orders.json"
    fields = {"status": "new", "placed_at": "2026-01-02T03:04:05Z"}
    fixture.write_text(json.dumps([{"model": "testapp.order", "pk": 5, "fields": fields}]))
    call_command("loaddata", str(fixture), verbosity=0)
    assert Order.objects.filter(pk=5).exists()
    captured_events.assert_nothing_published()


# ------------------------------------------------------------------ proxies and inheritance


@pytest.mark.usefixtures("real_transactions")
def test_a_proxy_is_published_as_what_it_stands_for(order_publisher: Any, captured_events: CapturedEvents) -> None:
    urgent = UrgentOrder.objects.create()
    pk = urgent.pk
    urgent.save()
    urgent.delete()
    assert told(captured_events) == [("created", str(pk)), ("updated", str(pk)), ("deleted", str(pk))]
    assert {each.type.rpartition(".")[0] for each in captured_events} == {"shop.order"}


@pytest.mark.usefixtures("real_transactions")
def test_publishing_a_proxy_leaves_its_model_alone(captured_events: CapturedEvents) -> None:
    @publishes(UrgentOrder)
    class Urgent(ModelPublisher):
        channel = "urgent"
        fields = ("id",)

    Order.objects.create().delete()
    captured_events.assert_nothing_published()
    UrgentOrder.objects.create()
    assert captured_events.events[0].type == "testapp.urgentorder.created"


@pytest.mark.usefixtures("real_transactions")
def test_a_model_of_two_tables_is_one_event_with_the_fields_of_both(captured_events: CapturedEvents) -> None:
    @publishes(GiftOrder)
    class Gifts(ModelPublisher):
        channel = "gifts"
        fields = ("pk", "status", "wrapping")

    gift = GiftOrder.objects.create(wrapping="gold")
    pk = gift.pk
    gift.status = "paid"
    gift.save()
    gift.delete()
    assert told(captured_events) == [("created", str(pk)), ("updated", str(pk)), ("deleted", str(pk))]
    assert captured_events.events[1].data == {"order_ptr": pk, "status": "paid", "wrapping": "gold"}
    assert captured_events.events[2].data == captured_events.events[1].data


@pytest.mark.usefixtures("real_transactions")
def test_a_save_that_overrides_save_is_published_as_it_was_stored(captured_events: CapturedEvents) -> None:
    @publishes(Parcel)
    class Parcels(ModelPublisher):
        channel = "parcels"
        fields = "__all__"

    parcel = Parcel.objects.create(weight="2.5")
    parcel.save()
    assert [each.data["saves"] for each in captured_events] == [1, 2]
    assert captured_events.events[0].data == {"id": parcel.pk, "stamp": "fresh", "weight": 2.5, "saves": 1}


# ------------------------------------------------------------------ keys


@pytest.mark.usefixtures("real_transactions")
def test_a_key_given_in_another_form_is_the_key_that_is_stored(captured_events: CapturedEvents) -> None:
    @publishes(Customer)
    class Customers(ModelPublisher):
        channel = "customers"
        fields = ("id",)

    number = uuid.UUID(int=7)
    customer = Customer.objects.create(id=number.hex, name="Ana")
    Customer.objects.get(pk=number).save()
    customer.delete()
    assert {each.key for each in captured_events} == {str(number)}


@pytest.mark.usefixtures("real_transactions")
def test_an_expression_is_never_a_key(captured_events: CapturedEvents) -> None:
    @publishes(Order)
    class Orders(ModelPublisher):
        channel = "c"
        fields = ("quantity",)
        key_field = "quantity"

    order = Order.objects.create(quantity=4)
    order.quantity = F("quantity") + Value(1)
    order.save()
    assert told(captured_events) == [("created", "4"), ("updated", "5")]
    assert captured_events.events[1].data == {"quantity": 5}


@pytest.mark.usefixtures("real_transactions")
def test_a_key_may_be_a_property_of_the_model(captured_events: CapturedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Order, "number", property(lambda self: f"N-{self.pk}"), raising=False)

    @publishes(Order)
    class Orders(ModelPublisher):
        channel = "c"
        fields = ("id",)
        key_field = "number"

    order = Order.objects.create()
    assert captured_events.events[0].key == f"N-{order.pk}"


# ------------------------------------------------------------------ bulk


@pytest.mark.usefixtures("real_transactions")
def test_bulk_work_is_published_on_request_in_one_batch(order_publisher: Any, captured_events: CapturedEvents) -> None:
    with transaction.atomic():
        rows = Order.objects.bulk_create(Order(quantity=number) for number in range(3))
        captured_events.assert_nothing_published()
        assert [each.data["quantity"] for each in order_publisher.publish("created", rows)] == [0, 1, 2]
        Order.objects.update(status="paid")
        order_publisher.publish("updated", Order.objects.order_by("pk"))
        order_publisher.publish("deleted", Order.objects.get(quantity=1))
    assert [verb for verb, _ in told(captured_events)] == ["created"] * 3 + ["updated"] * 3 + ["deleted"]
    assert captured_events.events[3].data["status"] == "paid"
    assert order_publisher.publish("updated", Order.objects.none()) == []


def test_a_verb_it_does_not_publish_is_refused(order_publisher: Any) -> None:
    with pytest.raises(PublishError, match=r"publishes no 'craeted'\. Did you mean \"created\""):
        order_publisher.publish("craeted", [])


@pytest.mark.usefixtures("real_transactions")
def test_bulk_publishing_refuses_whole_batches(order_publisher: Any, captured_events: CapturedEvents) -> None:
    class Bad(order_publisher):
        def data(self, instance: Any) -> Any:
            return instance.quantity if instance.quantity else object()

    with pytest.raises(EncodeError):
        Bad.publish("updated", [Order(pk=1, quantity=1), Order(pk=2, quantity=0)])
    captured_events.assert_nothing_published()


class ReadsElsewhere:
    """A router with a replica to read from."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


@pytest.mark.usefixtures("real_transactions")
def test_rows_read_from_a_replica_are_published_after_the_commit_of_the_primary(
    order_publisher: Any, captured_events: CapturedEvents, settings: Any
) -> None:
    Order.objects.using("other").bulk_create([Order(pk=1, placed_at="2026-01-02T03:04:05Z")])
    settings.DATABASE_ROUTERS = [ReadsElsewhere()]
    with suppress(ZeroDivisionError), transaction.atomic():
        Order.objects.update(status="paid")
        assert len(order_publisher.publish("updated", Order.objects.all())) == 1
        1 / 0  # noqa: B018
    captured_events.assert_nothing_published()


@pytest.mark.usefixtures("real_transactions")
def test_a_save_in_another_database_waits_for_that_databases_commit(
    order_publisher: Any, captured_events: CapturedEvents
) -> None:
    with suppress(ZeroDivisionError), transaction.atomic(using="other"):
        Order.objects.using("other").create(status="other's")
        with transaction.atomic():
            Order.objects.create(status="default's")
        1 / 0  # noqa: B018
    assert [each.data["status"] for each in captured_events] == ["default's"]


# ------------------------------------------------------------------ silence


@pytest.mark.usefixtures("real_transactions")
def test_muted_is_silent_about_everything_or_about_some_models(
    order_publisher: Any, captured_events: CapturedEvents
) -> None:
    @publishes(Customer)
    class Customers(ModelPublisher):
        channel = "customers"
        fields = ("id",)

    with muted():
        order = Order.objects.create()
        assert publish("c", 1).data == 1
        order_publisher.publish("updated", order)
        Customer.objects.create(name="a").delete()
    captured_events.assert_nothing_published()
    with muted(Order):
        order.delete()
        Customer.objects.create(name="b")
        with muted(Customer):
            Customer.objects.create(name="c")
        publish("c", 2)
    assert [each.channel for each in captured_events] == ["customers", "c"]
    Order.objects.create()
    assert len(captured_events) == 3


# ------------------------------------------------------------------ declarations


def declare(**attributes: Any) -> None:
    publishes(Order)(type("Mine", (ModelPublisher,), {"channel": "c", "fields": ("id",), **attributes}))


DECLARED_WRONG = [
    ({"channel": ""}, 'needs a channel, such as channel = "testapp"'),
    ({"channel": "a b"}, "is no channel name"),
    ({"channel": "shop.*"}, "is no channel name"),
    ({"channel": "redis-events:x"}, "is reserved"),
    ({"fields": None}, "needs fields or exclude"),
    ({"fields": "id"}, 'fields is a tuple of names or "__all__"'),
    ({"fields": ("id", "statsu")}, "has no field 'statsu'. Did you mean \"status\""),
    ({"fields": ("id", "tags")}, "has no field 'tags'"),
    ({"fields": None, "exclude": ("statsu",)}, "has no field 'statsu'"),
    ({"types": "created"}, "types is a tuple of names"),
    ({"types": ("order paid",)}, "is no event type"),
    ({"type_prefix": "my shop"}, "is no event type"),
    ({"key_field": "nmuber"}, "has no field 'nmuber'"),
]


@pytest.mark.parametrize(("attributes", "message"), DECLARED_WRONG, ids=lambda each: str(each)[:40])
def test_what_a_publisher_has_wrong_is_told_when_it_is_declared(attributes: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        declare(**attributes)
    assert isinstance(caught.value, ImproperlyConfigured)
    assert not publishers


def test_an_abstract_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Stamped is abstract"):
        publishes(Stamped)(type("Mine", (ModelPublisher,), {"channel": "c", "fields": "__all__"}))


def test_the_decorator_without_its_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Mine lacks its parentheses: write @publishes\(Order\)"):

        @publishes
        class Mine(ModelPublisher):
            channel = "c"

    with pytest.raises(ConfigurationError, match=r"needs a model, as in @publishes\(Order\), not 'shop\.Order'"):
        publishes("shop.Order")


@pytest.mark.parametrize("other", [type("Mine", (), {"channel": "c"}), lambda: None, Order], ids=repr)
def test_what_is_no_publisher_is_refused_with_what_to_write(other: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"write class OrderPublisher\(ModelPublisher\): …"):
        publishes(Order)(other)
    assert not publishers


def test_a_bad_setting_does_not_hide_behind_a_publisher(settings: Any) -> None:
    settings.REDIS_EVENTS = {"PREFX": "x"}
    declare()  # check E001 tells; an import error would come first


@pytest.mark.usefixtures("real_transactions")
def test_declaring_again_replaces(captured_events: CapturedEvents) -> None:
    for _ in range(2):
        declare()
    Order.objects.create()
    assert len(captured_events) == 1


# ------------------------------------------------------------------ queries


@pytest.mark.usefixtures("real_transactions")
def test_publishing_costs_no_query_not_even_for_deferred_fields(
    order_publisher: Any, captured_events: CapturedEvents
) -> None:
    customer = Customer.objects.create(name="Ana")
    order = Order.objects.create(customer=customer)
    deferred = Order.objects.only("status").get(pk=order.pk)
    with muted(), CaptureQueriesContext(connection) as silent:
        deferred.save()
    deferred = Order.objects.only("status").get(pk=order.pk)
    with CaptureQueriesContext(connection) as loud:
        deferred.save()
    assert len(loud) == len(silent)
    assert captured_events.events[-1].data == {"id": order.pk, "status": "new"}
    with CaptureQueriesContext(connection) as queries:
        order_publisher.publish("updated", [order, deferred])
    assert len(queries) == 0
