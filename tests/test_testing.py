"""What capture_events() sees: in a TestCase, which never commits, and from an async test, which runs beside it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import SimpleTestCase, TestCase

from redis_events import Event, ModelPublisher, apublish, publish, publishes, receives
from redis_events.testing import capture_events
from tests.testapp.models import Order


class Oops(Exception):
    pass


def publish_orders() -> None:
    publishes(Order)(type("Orders", (ModelPublisher,), {"channel": "orders", "fields": ("id",)}))


def roll_back() -> None:
    with suppress(Oops), transaction.atomic():
        Order.objects.create()
        raise Oops


def then_fail() -> None:
    with transaction.atomic():
        publish("c", 1, type="t")
        raise Oops


@pytest.mark.usefixtures("declared")
class TestInAnAsyncTestCase(TestCase):
    """The test runs on an event loop in a thread of its own, the ORM on the connection of the one that began it."""

    databases = ("default", "other")

    @pytest.fixture(autouse=True)
    def _orders(self, declared: None) -> None:
        publish_orders()

    async def test_what_the_async_orm_saves_is_seen(self) -> None:
        with capture_events() as captured:
            order = await Order.objects.acreate()
            await order.asave()
            pk = order.pk
            await order.adelete()
        assert [each.type for each in captured] == [
            f"testapp.order.{verb}" for verb in ("created", "updated", "deleted")
        ]
        captured.assert_published("testapp.order.deleted", key=pk)

    async def test_what_apublish_publishes_is_seen(self) -> None:
        with capture_events() as captured:
            await apublish("c", 1, type="t")
            await apublish("c", "bare")
        assert [each.data for each in captured] == [1, "bare"]

    async def test_what_was_rolled_back_is_not(self) -> None:
        with capture_events() as captured:
            await sync_to_async(roll_back)()
            with suppress(Oops):
                await sync_to_async(then_fail)()
        captured.assert_nothing_published()

    async def test_what_another_database_would_commit_is_seen(self) -> None:
        with capture_events() as captured:
            await Order.objects.using("other").acreate()
        captured.assert_published("testapp.order.created", count=1)

    async def test_receivers_run_on_it_and_what_they_save_is_seen_too(self) -> None:
        @receives("orders", types="*.created")
        async def mark(event: Event[Any]) -> None:
            await Order.objects.filter(pk=event.data["id"]).aupdate(status="seen")
            await apublish("marked", event.data["id"])

        with capture_events() as captured:
            order = await Order.objects.acreate()
            assert await captured.adeliver() == 1
        await order.arefresh_from_db()
        assert order.status == "seen"
        captured.assert_published(channel="marked", data=order.pk)


class TestInASimpleTestCase(SimpleTestCase):
    def test_a_plain_test_sees_what_it_publishes(self) -> None:
        with capture_events() as captured:
            publish("c", 1)
        assert len(captured) == 1

    async def test_so_does_an_async_one(self) -> None:
        with capture_events() as captured:
            await apublish("c", 1)
        assert len(captured) == 1


@pytest.mark.usefixtures("declared")
class TestInATestCase(TestCase):
    databases = ("default", "other")

    def test_what_a_commit_would_send_is_seen_once_before_and_after_its_hooks_ran(self) -> None:
        with capture_events() as captured, self.captureOnCommitCallbacks(execute=True):
            publish("c", 1)
            assert len(captured) == 1
        assert len(captured) == 1

    def test_a_capture_sees_what_was_published_in_its_own_block(self) -> None:
        publish("c", "before")
        with capture_events() as first:
            publish("c", 1)
        publish("c", "between")
        with capture_events() as second, transaction.atomic():
            publish("c", 2)
        assert [[each.data for each in captured] for captured in (first, second)] == [[1], [2]]

    def test_each_event_is_delivered_once_whatever_order_two_databases_have_them_in(self) -> None:
        delivered: list[Any] = []

        @receives("c")
        def receiver(event: Event[Any]) -> None:
            delivered.append(event.data)
            assert len(delivered) <= 3, "no end to it"
            if len(delivered) == 2:  # comes before this one: it waits with the first
                publish("c", "last", using=delivered[0])

        with capture_events() as captured:
            publish("c", "default", using="default")
            publish("c", "other", using="other")
            assert captured.deliver() == 3
        assert sorted(delivered[:2]) == ["default", "other"]
        assert delivered[2] == "last"
