"""The transaction's batch: what leaves after which commit, in which order, in how many sends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.transaction import atomic
from django.test import TestCase

from redis_events import publish
from redis_events.exceptions import PublishError
from redis_events.routing import replaced
from redis_events.testing import RecordingTransport
from redis_events.transports.base import Outgoing
from tests.testapp.models import Order, Tag


class Recorder(RecordingTransport):
    """Remembers each send as the texts that it carried."""

    def __init__(self) -> None:
        super().__init__()
        self.sends: list[list[str]] = []

    def send(self, batch: Sequence[Outgoing]) -> None:
        super().send(batch)
        self.sends.append([outgoing.body.decode() for outgoing in batch])


@pytest.fixture
def sends() -> Iterator[list[list[str]]]:
    transport = Recorder()
    with replaced(transport):
        yield transport.sends


@pytest.fixture(params=["default", "postgres"])
def alias(request: pytest.FixtureRequest) -> str:
    """A database with real transactions: SQLite, then PostgreSQL."""
    request.getfixturevalue("real_transactions" if request.param == "default" else "postgres_alias")
    return request.param


@pytest.fixture
def say(alias: str) -> Callable[[object], None]:
    def say(text: object) -> None:
        publish("c", str(text), using=alias)

    return say


class Oops(Exception):
    pass


# ------------------------------------------------------------------ one transaction


def test_in_autocommit_each_event_leaves_at_once(say: Any, sends: Any) -> None:
    say(1)
    say(2)
    assert sends == [["1"], ["2"]]


def test_nothing_leaves_before_the_commit_and_all_of_it_in_one_send_after(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        say(1)
        say(2)
        assert sends == []
    assert sends == [["1", "2"]]


def test_a_rolled_back_transaction_sends_nothing(alias: str, say: Any, sends: Any) -> None:
    with suppress(Oops), atomic(using=alias):
        say(1)
        raise Oops
    with atomic(using=alias):
        say(2)
        transaction.set_rollback(True, using=alias)
    assert sends == []
    with atomic(using=alias):
        say(3)
    assert sends == [["3"]]


def test_a_transaction_whose_commit_fails_sends_nothing(postgres_alias: str, sends: Any) -> None:
    orphan = Order(customer_id="00000000-0000-0000-0000-000000000001")  # the foreign key is checked at COMMIT
    transaction_block = atomic(using=postgres_alias)
    transaction_block.__enter__()
    orphan.save(using=postgres_alias)
    publish("c", "1", using=postgres_alias)
    with pytest.raises(IntegrityError):
        transaction_block.__exit__(None, None, None)
    assert sends == []


def test_a_transaction_the_database_has_broken_sends_nothing(alias: str, say: Any, sends: Any) -> None:
    with suppress(IntegrityError), atomic(using=alias):
        Tag.objects.using(alias).create(pk=1, name="a")
        say(1)
        Tag(pk=1, name="b").save(using=alias, force_insert=True)
    assert sends == []


def test_a_thousand_inner_atomics_are_one_send(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        for number in range(1000):
            with atomic(using=alias):  # what update_or_create does
                say(number)
    assert sends == [[str(number) for number in range(1000)]]


def test_a_rolled_back_savepoint_takes_its_events_and_no_others(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        say(1)
        with suppress(Oops), atomic(using=alias):
            say(2)
            with atomic(using=alias):
                say(3)
            raise Oops
        say(4)
        with atomic(using=alias):
            say(5)
        say(6)
    assert sends == [["1", "4", "5", "6"]]


def test_an_inner_savepoint_rolls_back_alone(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        with atomic(using=alias):
            say(1)
            with suppress(Oops), atomic(using=alias):
                say(2)
                raise Oops
            say(3)
    assert sends == [["1", "3"]]


def test_an_atomic_without_savepoint_rolls_back_with_the_one_around_it(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        say(0)
        with suppress(Oops), atomic(using=alias):
            say(1)
            with atomic(using=alias, savepoint=False):
                say(2)
                raise Oops
        say(3)
    assert sends == [["0", "3"]]


def test_deletes_and_their_inner_atomics_stay_in_order(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        for number in range(50):
            say(number)
            Order.objects.using(alias).create().delete()
            with atomic(using=alias, savepoint=False):
                say(f"{number}b")
    assert sends == [[text for number in range(50) for text in (str(number), f"{number}b")]]


def test_a_durable_transaction_is_a_transaction(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias, durable=True):
        say(1)
    assert sends == [["1"]]


@pytest.mark.parametrize("rounds", [2, 3])
def test_one_atomic_object_used_again_is_a_new_transaction(alias: str, say: Any, sends: Any, rounds: int) -> None:
    @atomic(using=alias)  # the decorator enters the same object at every call
    def work(number: int) -> None:
        say(number)
        if number == 0:
            raise Oops

    with suppress(Oops):
        work(0)
    for number in range(1, rounds):
        work(number)
    assert sends == [[str(number)] for number in range(1, rounds)]


def test_a_decorated_function_that_calls_itself_is_one_transaction(alias: str, say: Any, sends: Any) -> None:
    @atomic(using=alias)
    def work(number: int) -> None:
        say(number)
        if number:
            work(number - 1)

    work(3)
    assert sends == [["3", "2", "1", "0"]]


# ------------------------------------------------------------------ other people's hooks


def test_other_hooks_between_publishes_do_not_cost_sends(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        for number in range(100):
            say(number)
            transaction.on_commit(lambda: None, using=alias)
    assert sends == [[str(number) for number in range(100)]]


def test_a_hook_may_publish_and_open_transactions(alias: str, say: Any, sends: Any) -> None:
    def hook() -> None:
        say("in the hook")
        with atomic(using=alias):
            say("its transaction")

    with atomic(using=alias):
        transaction.on_commit(hook, using=alias)
        say(1)
        transaction.on_commit(hook, using=alias)
        say(2)
    assert sends == [["in the hook"], ["its transaction"], ["1", "2"], ["in the hook"], ["its transaction"]]


def test_a_robust_hook_that_raises_loses_nothing(alias: str, say: Any, sends: Any) -> None:
    with atomic(using=alias):
        transaction.on_commit(lambda: 1 / 0, using=alias, robust=True)
        say(1)
    assert sends == [["1"]]


def test_another_apps_raising_hook_does_not_poison_the_next_transaction(alias: str, say: Any, sends: Any) -> None:
    @atomic(using=alias)
    def work(number: int) -> None:
        if number == 1:
            transaction.on_commit(lambda: 1 / 0, using=alias)
        say(number)

    with pytest.raises(ZeroDivisionError):
        work(1)  # its event was never handed over: Django drops the hooks that follow
    work(2)
    assert sends[-1][-1] == "2"
    assert [*chain.from_iterable(sends)].count("2") == 1


class Broken(RecordingTransport):
    def send(self, batch: Sequence[Outgoing]) -> None:
        raise RuntimeError("a transport with a bug")


def test_a_transport_with_a_bug_does_not_raise_after_the_commit(
    alias: str, say: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with replaced(Broken()), caplog.at_level(logging.ERROR, "django"), atomic(using=alias):
        say(1)
    assert "a transport with a bug" in caplog.text


# ------------------------------------------------------------------ without atomic


def test_autocommit_switched_off_is_refused_with_what_to_do(alias: str, say: Any, sends: Any) -> None:
    connection = connections[alias]
    connection.set_autocommit(False)
    try:
        with pytest.raises(PublishError, match=r"inside transaction\.atomic"):
            say(1)
        with atomic(using=alias):
            say(2)
        assert sends == []  # Django's atomic does not commit there
        connection.commit()
    finally:
        connection.set_autocommit(True)
    assert sends == [["2"]]


@pytest.mark.usefixtures("real_transactions")
def test_publishing_outside_a_transaction_opens_no_connection(sends: Any) -> None:
    connections["default"].close()
    publish("c", "1")
    assert connections["default"].connection is None
    assert sends == [["1"]]


# ------------------------------------------------------------------ several databases


@pytest.mark.usefixtures("real_transactions")
def test_each_database_commits_its_own_events(sends: Any) -> None:
    with atomic(using="other"):
        publish("c", "o1", using="other")
        with atomic():
            publish("c", "d1", using="default")
            publish("c", "o2", using="other")
        assert sends == [["d1"]]
    assert sends == [["d1"], ["o1", "o2"]]


@pytest.mark.usefixtures("real_transactions")
def test_without_using_the_one_open_transaction_counts(sends: Any) -> None:
    with suppress(Oops), atomic(using="other"):
        publish("c", "lost with it")
        raise Oops
    with suppress(Oops), atomic(using="other"), atomic():
        publish("c", "default is among them")
        raise Oops
    assert sends == []


def test_without_using_two_strange_transactions_are_a_question(postgres_alias: str, sends: Any) -> None:
    connections.settings["second"] = connections.settings[postgres_alias]
    try:
        with atomic(using=postgres_alias), atomic(using="second"):
            with pytest.raises(PublishError, match=r"postgres, second: say which one counts with using="):
                publish("c", "whose?")
            publish("c", "this one's", using="second")
    finally:
        connections["second"].close()
        del connections["second"], connections.settings["second"]
    assert sends == [["this one's"]]


# ------------------------------------------------------------------ threads


def test_threads_do_not_share_a_batch(alias: str, say: Any, sends: Any) -> None:
    barrier = threading.Barrier(3)

    def work(number: int) -> None:
        with suppress(Oops), atomic(using=alias):
            say(f"{number}a")
            barrier.wait(timeout=10)
            say(f"{number}b")
            if number == 1:
                raise Oops
        connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Commits at the same instant may share a send; each keeps its own order.
    sent = [*chain.from_iterable(sends)]
    assert sorted(sent) == ["0a", "0b", "2a", "2b"]
    assert sent.index("0a") + 1 == sent.index("0b")


# ------------------------------------------------------------------ inside a TestCase


@pytest.mark.usefixtures("sends_of_a_test_case")
class TestInsideATestCase(TestCase):
    """The test's own transaction never commits; hooks are run by captureOnCommitCallbacks."""

    databases = {"default", "other"}
    sends: list[list[str]]

    @classmethod
    def setUpTestData(cls) -> None:
        publish("c", "class")

    def setUp(self) -> None:
        publish("c", "setup")

    def test_nothing_leaves_by_itself(self) -> None:
        publish("c", "1")
        with transaction.atomic():
            publish("c", "2")
        assert self.sends == []

    def test_captured_callbacks_send_what_was_published_inside_and_nothing_else(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            publish("c", "1")
        assert len(callbacks) == 1
        assert self.sends == [["1"]]

    def test_an_atomic_of_its_own_is_a_batch(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            with transaction.atomic():
                publish("c", "1")
                publish("c", "2")
        assert self.sends == [["1", "2"]]

    def test_a_rolled_back_atomic_sends_nothing(self) -> None:
        with self.captureOnCommitCallbacks(execute=True), suppress(Oops), transaction.atomic():
            publish("c", "1")
            raise Oops
        assert self.sends == []

    def test_an_earlier_atomic_is_not_sent_along(self) -> None:
        with transaction.atomic():
            publish("c", "before")
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            publish("c", "1")
        assert self.sends == [["1"]]

    def test_an_earlier_call_of_the_same_decorated_function_is_not_sent_along(self) -> None:
        @transaction.atomic
        def work(number: int) -> None:
            publish("c", str(number))

        work(1)
        with self.captureOnCommitCallbacks(execute=True):
            work(2)
        assert self.sends == [["2"]]

    def test_a_rolled_back_atomic_of_another_database_takes_its_events(self) -> None:
        with self.captureOnCommitCallbacks(execute=True), suppress(Oops), transaction.atomic(using="other"):
            publish("c", "other's")
            raise Oops
        assert self.sends == []


@pytest.fixture
def sends_of_a_test_case(request: pytest.FixtureRequest, sends: list[list[str]]) -> None:
    request.instance.sends = sends
