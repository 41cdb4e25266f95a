"""What a listener does with a batch, and with a connection that comes and goes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.backends.signals import connection_created

from redis_events import Event, Reject, Retry, RetryLater, event_settled, gap_detected, held, listening, publish
from redis_events.conf import conf
from redis_events.listening import Listener
from redis_events.models import DeadLetter, HeldDelivery, InboxEntry
from redis_events.registry import Receiver
from redis_events.retry import Outcome
from redis_events.retrying import Retrier
from redis_events.runner import Result
from redis_events.tally import Tally
from redis_events.transports import stream
from redis_events.transports.base import Delivery
from redis_events.transports.memory import MemoryTransport
from redis_events.transports.pubsub import PubSubTransport
from redis_events.transports.stream import StreamTransport
from tests.listeners import delivery, document, listener, receiver
from tests.processes import Project
from tests.servers import Postgres, Server, wait_for
from tests.testapp.models import Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

State = HeldDelivery.State


def fail(event: Event[Any]) -> None:
    raise ValueError("no")


def hearing(heard: list[Any], name: str = "app.hear") -> Receiver:
    def hear(event: Event[Any]) -> None:
        heard.append(event.data)

    return receiver(hear, name=name)


def held_rows() -> list[tuple[str, str]]:
    return [(row.receiver, row.state) for row in HeldDelivery.objects.order_by("id")]


# ------------------------------------------------------------------ a batch


def test_a_failing_receiver_is_a_dead_letter_with_the_very_bytes_and_the_others_run() -> None:
    heard: list[Any] = []
    first, second = document(1, id="one"), document(2, id="two")
    listener(receiver(fail), hearing(heard)).process([delivery(first), delivery(second)])
    assert heard == [1, 2]
    assert [(bytes(row.raw), row.event_id) for row in DeadLetter.objects.order_by("id")] == [
        (first, "one"),
        (second, "two"),
    ]
    row = DeadLetter.objects.first()
    assert row is not None
    assert (row.source, row.channel, row.type, row.key, row.attempt) == ("shop", "orders", "shop.order.paid", "7", 1)
    assert (row.reason, row.exception) == ("no", "ValueError")
    assert "def fail" not in row.traceback
    assert "test_listening.py" in row.traceback


def test_each_outcome_is_held_as_what_it_is_and_counted() -> None:
    def reject(event: Event[Any]) -> None:
        raise Reject("why")

    def later(event: Event[Any]) -> None:
        raise RetryLater(after=30)

    own = listener(receiver(reject), receiver(later), receiver(fail, retry=Retry(attempts=2)), hearing([]))
    own.process([delivery(document())])
    assert held_rows() == [("app.fail", State.WAITING), ("app.later", State.WAITING), ("app.reject", State.DEAD)]
    assert own.counts == {Outcome.DONE: 1, Outcome.RETRY: 2, Outcome.DEAD: 1}
    assert (own.settled, own.in_flight) == (1, 0)


def test_bytes_that_are_no_event_are_kept_and_the_good_ones_run() -> None:
    heard: list[Any] = []
    junk = [b"\xff", b"[" * 100, b'{"specversion":"1.0"}', b"x" * 300_000]
    listener(hearing(heard)).process([*map(delivery, junk), delivery(document("good"))])
    assert heard == ["good"]
    kept = {bytes(row.raw): row.reason for row in DeadLetter.objects.filter(receiver="")}
    assert set(kept) == {*junk[:3], junk[3][:262_144]}
    assert "of 300,000 bytes, sha256" in kept[junk[3][:262_144]]


def test_anybody_can_send_junk_so_only_so_much_an_hour_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "MOST_QUARANTINED", 3)
    own = listener(hearing([]), receiver(fail, "other"))
    own.process([delivery(b"\xff")] * 5)
    own.process([delivery(b"\xff")] * 5 + [delivery(b"\xff", "other")])
    assert DeadLetter.objects.filter(channel="orders").count() == 3
    assert DeadLetter.objects.filter(channel="other").count() == 1
    assert own.settled == 11
    assert len([line for line in caplog.messages if "3 messages on orders were no events within an hour" in line]) == 1


def test_what_is_counted_for_the_quarantine_is_forgotten_with_its_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern is heard for years, and channels by anybody's name."""
    own, hour = listener(receiver(print, channel="live.*")), 0.0
    monkeypatch.setattr(listening.time, "time", lambda: hour)
    for number in range(50):
        hour = number * 3600.0
        own.process([delivery(b"\xff", channel=f"live.{number}")])
    assert len(own._quarantined) == 1


def test_events_nobody_receives_are_settled_and_nothing_else() -> None:
    own = listener(receiver(fail, types=("shop.order.refunded",)))
    own.process([delivery(document())])
    assert (own.settled, own.counts.total(), held_rows()) == (1, 0, [])


def test_an_async_receiver_whose_e005_is_silenced_runs_as_if_it_had_not_said_once() -> None:
    heard: list[int] = []

    async def push(event: Event[Any]) -> None:
        heard.append(event.attempt)
        if event.attempt == 1:
            raise ValueError("no")

    pushing = receiver(push, once=True, retry=Retry(attempts=2, delay=1e-6, max_delay=1e-6))
    listener(pushing).process([delivery(document(1))])
    assert (heard, held_rows()) == ([1], [("app.push", State.WAITING)])
    assert Retrier([pushing]).run_due() == 1
    assert (heard, held_rows(), InboxEntry.objects.count()) == ([1, 2], [], 0)


def test_async_and_sync_receivers_of_one_event_all_run() -> None:
    heard: list[Any] = []

    async def push(event: Event[Any]) -> None:
        await asyncio.sleep(0.01)
        heard.append(("async", event.data))

    async def fail_async(event: Event[Any]) -> None:
        raise ValueError

    listener(receiver(push), receiver(fail_async), hearing(heard)).process([delivery(document(1))])
    assert sorted(map(str, heard)) == ["('async', 1)", "1"]
    assert held_rows() == [("app.fail_async", State.DEAD)]


def test_what_a_receiver_publishes_knows_its_cause() -> None:
    published: list[Event[Any]] = []

    def publish_on(event: Event[Any]) -> None:
        published.append(publish("billing", 1, type="billing.invoice.created"))

    listener(receiver(publish_on)).process([delivery(document(id="cause"))])
    assert (published[0].causation_id, published[0].correlation_id, published[0].hops) == ("cause", "cause", 1)


def test_a_watcher_that_raises_changes_no_outcome() -> None:
    seen: list[Sequence[Result]] = []

    def broken(results: Sequence[Result], **_: object) -> None:
        seen.append(results)
        raise RuntimeError("a watcher's own trouble")

    event_settled.connect(broken)
    try:
        own = listener(receiver(fail), hearing([]))
        own.process([delivery(document())])
    finally:
        event_settled.disconnect(broken)
    assert [result.verdict.outcome for result in seen[0]] == [Outcome.DEAD, Outcome.DONE]
    assert held_rows() == [("app.fail", State.DEAD)]


# ------------------------------------------------------------------ paused receivers


def test_on_a_stream_the_part_of_a_paused_receiver_is_parked_and_the_others_run() -> None:
    heard: list[Any] = []
    own = Listener(Durable("memory://listeners"), [hearing([], "app.paused"), hearing(heard)])
    own.note_paused({"app.paused", "app.of_another_transport"})
    first = document(1, id="one")
    own.process([delivery(first), delivery(document(2))])
    assert heard == [1, 2]
    row = HeldDelivery.objects.get(event_id="one")
    assert (row.receiver, row.state, row.due, row.attempt) == ("app.paused", "parked", None, 0)
    assert (bytes(row.raw), row.reason) == (first, "its receiver is paused; it is due when that is resumed")
    assert HeldDelivery.objects.count() == 2
    assert (own.settled, own.counts) == (2, {Outcome.DONE: 2}), "a run that was none is not counted"
    own.note_paused(())
    own.process([delivery(document(3))])
    assert HeldDelivery.objects.count() == 2


def test_on_pubsub_a_paused_receiver_does_not_run_and_nothing_is_kept() -> None:
    paused: list[Any] = []
    heard: list[Any] = []
    own = listener(hearing(paused, "app.paused"), hearing(heard))
    own.note_paused({"app.paused"})
    own.process([delivery(document(1))])
    assert (paused, heard, held_rows()) == ([], [1], [])


def repeated(body: bytes, *, starts: int = 0) -> Delivery:
    return Delivery(channel="orders", body=body, id="1-0", is_repeated=True, starts=starts)


def test_a_row_that_is_there_is_left_as_it_is_by_a_pause() -> None:
    own = Listener(Durable("memory://listeners"), [receiver(fail, retry=Retry(attempts=2)), hearing([])])
    body = document(1)
    own.process([delivery(body)])
    own.note_paused({"app.fail"})
    own.process([repeated(body)])
    assert held_rows() == [("app.fail", State.WAITING)]


def test_a_parked_event_counts_as_seen_when_it_is_delivered_again() -> None:
    heard: list[Any] = []
    own = Listener(Durable("memory://listeners"), [hearing(heard)])
    body = document(1)
    own.note_paused({"app.hear"})
    own.process([delivery(body)])
    own.note_paused(())
    own.process([repeated(body)])
    assert (heard, held_rows()) == ([], [("app.hear", State.PARKED)])


def test_what_killed_its_process_is_no_poison_to_a_receiver_that_was_paused() -> None:
    own = Listener(Durable("memory://listeners"), [hearing([], "app.paused"), hearing([])])
    own.note_paused({"app.paused"})
    own.process([repeated(document(1), starts=conf.MAX_DELIVERIES)])
    assert sorted(held_rows()) == [("app.hear", State.DEAD), ("app.paused", State.PARKED)]


@pytest.mark.parametrize("is_done", [True, False])
def test_what_was_done_before_a_pause_is_not_parked_by_its_redelivery(is_done: bool) -> None:
    heard: list[Any] = []
    body = document(1)
    once = receiver(lambda event: heard.append(event.data), name="app.once", once=True)
    own = Listener(Durable("memory://listeners"), [once])
    if is_done:
        own.process([delivery(body)])
    own.note_paused({"app.once"})
    own.process([repeated(body)])
    assert held_rows() == ([] if is_done else [("app.once", State.PARKED)])


def test_nothing_is_settled_before_what_is_parked_is_written() -> None:
    settled: list[int] = []

    class Watched(Durable):
        def settle(self, deliveries: Sequence[Delivery]) -> None:
            settled.append(HeldDelivery.objects.count())

    own = Listener(Watched("memory://listeners"), [hearing([])])
    own.note_paused({"app.hear"})
    own.process([delivery(document(1)), delivery(document(2))])
    assert settled == [2]


# ------------------------------------------------------------------ statistics


def test_what_a_batch_comes_to_is_counted_once_it_is_settled() -> None:
    own = Tally()
    listening = Listener(MemoryTransport("memory://listeners"), [receiver(fail), hearing([])], tally=own)
    listening.process([delivery(document(1)), delivery(b"\xff"), delivery(document(2))])
    told = {command[2]: command[3] for command in own.commands() if command[0] == "HINCRBY"}
    assert (told["settled orders"], told["done"], told["dead"]) == (3, 2, 2)
    assert (told["done shop app.hear"], told["dead shop app.fail"]) == (2, 2)


# ------------------------------------------------------------------ the database


def leave_autocommit_off(event: Event[Any]) -> None:
    transaction.set_autocommit(False)
    Tag.objects.create(name="half done")


def leave_a_transaction_open(event: Event[Any]) -> None:
    transaction.atomic().__enter__()
    Tag.objects.create(name="half done")


def break_the_transaction(event: Event[Any]) -> None:
    connection.set_autocommit(False)
    Tag.objects.create(name="half done")
    raise ValueError


@pytest.mark.parametrize("careless", [leave_autocommit_off, leave_a_transaction_open, break_the_transaction])
def test_a_transaction_a_receiver_leaves_open_is_rolled_back_and_harms_nobody(
    careless: Callable[[Event[Any]], None],
) -> None:
    def create(event: Event[Any]) -> None:
        Tag.objects.create(name="whole")

    own = listener(receiver(careless), receiver(create), receiver(fail))
    in_a_thread(lambda: [own.process([delivery(document())]) for _ in range(2)])
    assert list(Tag.objects.values_list("name", flat=True)) == ["whole", "whole"]
    dead = DeadLetter.objects.values_list("receiver", flat=True)
    assert sorted(dead) == sorted([f"app.{careless.__name__}", "app.fail"] * 2)


def in_a_thread(work: Callable[[], object]) -> None:
    """With database connections of its own, closed at its end, as a listener has."""

    def run() -> None:
        work()
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)


class Durable(MemoryTransport):
    durable = True


def test_a_stream_keeps_its_connection_between_batches_and_looks_after_it_when_a_run_has_failed() -> None:
    def create(event: Event[Any]) -> None:
        Tag.objects.create(name=str(event.data))
        if event.data == "bad":
            raise Reject("no")

    def opened(*data: str, transport: type[MemoryTransport] = Durable) -> int:
        own = Listener(transport("memory://listeners"), [receiver(create)])
        made: list[object] = []
        with noting(connection_created, made):
            in_a_thread(lambda: [own.process([delivery(document(each))]) for each in ("first", *data)])
        return len(made)

    assert opened("good", "good") == 2  # the first look comes at once, the next a second later
    assert opened("good", "bad", "good") == 3
    assert opened("good", "good", transport=MemoryTransport) == 3


@contextmanager
def noting(signal: Any, found: list[object]) -> Iterator[None]:
    def note(connection: object, **_: object) -> None:
        found.append(connection)

    signal.connect(note)
    try:
        yield
    finally:
        signal.disconnect(note)


def test_a_database_that_is_away_is_one_line_and_receivers_run_on(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    own = listener(receiver(fail), hearing(heard))
    with without_tables():
        for number in range(3):
            own.process([delivery(document(number))])
        own.process([delivery(b"\xff")])
    own.process([delivery(document(3))])
    assert heard == [0, 1, 2, 3]
    assert held_rows() == [("app.fail", State.DEAD)]
    assert len([record for record in caplog.records if "could not be kept" in record.message]) == 1


@contextmanager
def without_tables() -> Iterator[None]:
    with connection.schema_editor() as editor:
        editor.delete_model(HeldDelivery)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(HeldDelivery)


def test_a_missing_table_is_told_with_what_to_do_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with without_tables():
        listener(receiver(fail)).process([delivery(document())])
    (line,) = [message for message in caplog.messages if "could not be kept" in message]
    assert line.startswith("1 failure could not be kept as held deliveries: ")
    assert line.endswith("(run `manage.py migrate`)")
    assert held.complaint(DatabaseError("connection refused\n\tIs it running?")) == "connection refused Is it running?"


def test_what_is_no_event_is_a_line_for_each_channel_of_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    own = listener(receiver(fail))
    own.process(
        [delivery(body, channel=name) for name in ("a", "b\n\x1b[2J") for body in (b"\xff", b"\xff", b"[" * 99)]
    )
    assert caplog.messages == [
        "dead   a  not an event: not UTF-8: invalid start byte at byte 0 (3 messages)",
        "dead   b \\x1b[2J  not an event: not UTF-8: invalid start byte at byte 0 (3 messages)",
    ]
    assert (own.counts[Outcome.DEAD], own.counts.total()) == (6, 6)


def test_one_database_away_loses_only_its_own_receivers_failures() -> None:
    own = listener(receiver(fail, name="app.here"), receiver(fail, name="app.there", using="other"))
    with without_tables():
        own.process([delivery(document())])
    assert [row.receiver for row in HeldDelivery.objects.using("other").all()] == ["app.there"]


COUNT_DEAD = """
from redis_events.models import DeadLetter
print(DeadLetter.objects.filter(receiver="").count(), DeadLetter.objects.count())
"""
RECEIVERS = """
from redis_events import receives

@receives("live.*")
def fail(event):
    raise ValueError("\\x00 and \\ud800")
"""


@pytest.mark.slow
def test_no_name_and_no_text_from_outside_spoils_the_dead_letters_on_postgresql(
    project: Project, postgres: Postgres, server: Server, prefix: str
) -> None:
    """PostgreSQL refuses NUL and surrogates in text: one of them must not cost the whole batch."""
    project.database(postgres.create(prefix))
    project.migrate()
    project.write("receivers.py", RECEIVERS)
    process = project.manage("listen_events")
    process.wait_for_line("Listening on ", timeout=20)
    names = [b"live.\x00", b"live.\xff\xfe", b"live." + b"n" * 400, b"live.good"]
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.publish(f"{prefix}:".encode() + name, b"\xff\x00")
            pipeline.publish(f"{prefix}:".encode() + name, b"text \x00")
        pipeline.execute()
    wait_for(
        lambda: sum("dead  " in line and "ValueError" in line for line in process.lines) == 4, what="four failures"
    )
    assert project.shell(COUNT_DEAD) == "4 8", process.output


# ------------------------------------------------------------------ the connection


@contextmanager
def running(own: Listener) -> Iterator[threading.Thread]:
    own.connect()
    thread = threading.Thread(target=own.run)
    thread.start()
    try:
        yield thread
    finally:
        own.stop()
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def gaps() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []

    def note(**facts: Any) -> None:
        found.append(facts)

    gap_detected.connect(note)
    try:
        yield found
    finally:
        gap_detected.disconnect(note)


def test_each_gap_is_reported_with_its_length_and_its_channels(
    events_settings: dict[str, Any], prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    with Server() as server, gaps() as found, caplog.at_level(logging.INFO, logger="redis_events.listen"):
        own = Listener(PubSubTransport(server.url), [hearing(heard)])
        with running(own):
            server.kill()
            began = time.monotonic()
            wait_for(lambda: "connection lost" in caplog.text, what="the loss to be told")
            server.start()
            wait_for(lambda: found, what="the gap")
            length = time.monotonic() - began
            with server.client() as client:
                client.publish(f"{prefix}:orders", "after")
            wait_for(lambda: heard == ["after"], what="the next event")
    assert len(found) == 1
    assert found[0]["channels"] == ["orders"]
    assert 0 < found[0]["seconds"] <= length + 1.1  # it begins at the server's last sign of life, at most a second ago
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.split()[0] for line in lines] == ["connection", "listening"]


def test_stopping_wakes_a_waiting_listener_at_once(events_settings: dict[str, Any]) -> None:
    own = Listener(PubSubTransport(events_settings["LOCATION"]), [hearing([])])
    with running(own) as thread:
        began = time.monotonic()
        own.stop()
        thread.join(5)
        assert time.monotonic() - began < 0.5


def test_being_asked_to_stop_in_mid_batch_repeats_nothing(events_settings: dict[str, Any], settings: Any) -> None:
    """Also where a receiver fails in it: its row is written first, and the others stay done."""
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    heard: list[Any] = []

    def stop_and_fail(event: Event[Any]) -> None:
        if event.data == 3:
            own.stop()
            raise ValueError("no")

    own = Listener(StreamTransport(events_settings["LOCATION"]), [hearing(heard), receiver(stop_and_fail)])
    own.connect()
    for number in range(10):
        publish("orders", number)
    own.run(drain=True)
    assert heard == list(range(10))
    assert held_rows() == [("app.stop_and_fail", State.WAITING)]
    after = Listener(StreamTransport(events_settings["LOCATION"]), [hearing(heard)])
    after.connect()
    after.run(drain=True)
    assert heard == list(range(10))


def test_a_stop_waits_for_no_more_than_a_second_is_enough_for(events_settings: dict[str, Any], settings: Any) -> None:
    """Each channel has a batch of its own that a read has brought by then."""
    channels = [f"orders.{number}" for number in range(8)]
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"*": {"TRANSPORT": "stream"}}, "BATCH": 10}
    ran: list[str] = []

    def slow(event: Event[Any]) -> None:
        ran.append(event.channel)
        time.sleep(0.12)

    own = Listener(StreamTransport(events_settings["LOCATION"]), [receiver(slow, channel) for channel in channels])
    for channel in channels:
        for number in range(20):
            publish(channel, number)
    with running(own) as thread:
        wait_for(lambda: ran, what="the first batch")
        own.stop()
        thread.join(5)
        assert not thread.is_alive()
    assert len(ran) == 10


def test_what_has_arrived_by_pub_sub_is_not_dropped_at_a_stop(events_settings: dict[str, Any]) -> None:
    heard: list[Any] = []

    def stop_at_once(event: Event[Any]) -> None:
        own.stop()

    own = Listener(PubSubTransport(events_settings["LOCATION"]), [hearing(heard), receiver(stop_at_once)])
    own.connect()
    with transaction.atomic():
        for number in range(150):
            publish("orders", number)
    own.run()
    assert heard == list(range(150))


def test_a_drain_that_is_stopped_finishes_as_any_stop_does(
    events_settings: dict[str, Any], settings: Any, server: Server
) -> None:
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    heard: list[Any] = []
    own = Listener(StreamTransport(events_settings["LOCATION"]), [hearing(heard)])
    own.connect()
    publish("orders", 1)
    own.transport.wake()
    own.run(drain=True)
    with server.client() as client:
        assert client.xpending(conf.redis_name("orders"), "shop")["pending"] == 0


def test_a_listener_that_stops_in_a_backlog_leaves_nothing_half_done(
    events_settings: dict[str, Any], settings: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "QUICK", 10.0)
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    heard: list[Any] = []

    def stop_at_350(event: Event[Any]) -> None:
        if event.data == 350:
            own.stop()

    own = Listener(StreamTransport(events_settings["LOCATION"]), [hearing(heard), receiver(stop_at_350)])
    own.connect()
    for number in range(1_000):
        publish("orders", number)
    own.run()
    assert heard == list(range(len(heard)))
    assert 350 < len(heard) <= 550
    with server.client() as client:
        key = conf.redis_name("orders")
        assert client.xpending(key, "shop")["pending"] == 0
        assert client.xinfo_consumers(key, "shop") == []


def test_draining_works_off_what_is_there_and_ends(events_settings: dict[str, Any]) -> None:
    heard: list[Any] = []
    own = Listener(PubSubTransport(events_settings["LOCATION"]), [hearing(heard)])
    own.connect()
    for number in range(250):
        publish("orders", number)
    own.run(drain=True)
    assert heard == list(range(250))
