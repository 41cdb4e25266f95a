"""`once`: a database effect happens with its inbox entry or not at all, whatever is delivered again, fails or dies."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connections, transaction

from redis_events import Event, Reject, Retry, event_settled, held, inbox, once, publish, receives
from redis_events.announcements import Announcement
from redis_events.cleaning import Cleaner
from redis_events.codec import encode
from redis_events.conf import conf
from redis_events.events import now
from redis_events.listening import Listener
from redis_events.models import HeldDelivery, InboxEntry
from redis_events.registry import Receiver
from redis_events.replaying import Replay
from redis_events.retry import Outcome
from redis_events.retrying import Retrier
from redis_events.runner import Result
from redis_events.testing import capture_events
from redis_events.transports.base import Delivery
from redis_events.transports.memory import MemoryTransport
from tests.listeners import receiver
from tests.processes import Process, Project
from tests.servers import Postgres, Server, wait_for
from tests.test_streams_crash import Service
from tests.testapp.models import Tag

pytestmark = pytest.mark.usefixtures("real_transactions")

State = HeldDelivery.State
AT_ONCE = Retry(attempts=3, delay=1e-6, max_delay=1e-6)


class Durable(MemoryTransport):
    """A stream as far as a listener can tell, without a server."""

    durable: ClassVar[bool] = True


@pytest.fixture(params=["default", pytest.param("postgres", marks=pytest.mark.slow)])
def alias(request: pytest.FixtureRequest) -> str:
    """The database of the receivers: SQLite, then PostgreSQL."""
    return str(request.getfixturevalue("postgres_alias")) if request.param == "postgres" else "default"


def listening(*receivers: Receiver) -> Listener:
    return Listener(Durable("memory://once"), receivers)


def deliveries(*ids: object, source: str = "shop", **facts: Any) -> list[Delivery]:
    def body(id: object) -> bytes:
        named = Event(data=str(id), type="shop.order.paid", source=source, channel="orders", id=f"event-{id}")
        return encode(named)

    return [Delivery(channel="orders", body=body(each), id=f"{at}-1", **facts) for at, each in enumerate(ids)]


class Writer:
    """Writes a row for each event; does what ``mischief`` says for some of them."""

    def __init__(self, alias: str, mischief: dict[str, Callable[[], object]] | None = None, **options: Any) -> None:
        self.alias = alias
        self.mischief = mischief or {}
        self.runs: list[str] = []
        facts = {"using": alias, "once": True, "retry": AT_ONCE, "name": "app.write", "group": "", **options}
        self.receiver = Receiver(function=self.write, channel="orders", types=None, event_type=None, **facts)

    def write(self, event: Event[Any]) -> None:
        self.runs.append(event.data)
        Tag.objects.using(self.alias).create(name=event.data)
        if event.data in self.mischief:
            self.mischief[event.data]()

    @property
    def rows(self) -> list[str]:
        return sorted(Tag.objects.using(self.alias).values_list("name", flat=True))

    @property
    def entries(self) -> int:
        return InboxEntry.objects.using(self.alias).count()

    @property
    def held(self) -> list[tuple[str, str, int]]:
        rows = HeldDelivery.objects.using(self.alias).order_by("id")
        return [(row.event_id, row.state, row.attempt) for row in rows]


def fail() -> None:
    raise ValueError("no")


# ------------------------------------------------------------------ the digest


def test_every_part_of_an_identity_changes_the_digest_and_none_runs_into_the_next() -> None:
    parts = ("shop", "1", "billing", "app.credit")
    others = [(*parts[:at], f"{parts[at]}x", *parts[at + 1 :]) for at in range(4)]
    shifted = [("shop1", "", *parts[2:]), ("sho", "p1", *parts[2:]), ("shop", "1b", "illing", parts[3])]
    digests = {inbox.digest(*each) for each in [parts, *others, *shifted]}
    assert len(digests) == 8
    assert {len(each) for each in digests} == {16}
    assert inbox.digest(*parts).hex() == "3a9ae0c9782cbdce852c5ed6123f31d3"


def test_an_insert_says_what_nobody_had_before_it(alias: str) -> None:
    first, second = inbox.digest("a", "1", "g", "r"), inbox.digest("a", "2", "g", "r")
    assert inbox.insert([first], using=alias) == {first}
    assert inbox.insert([second, first, second], using=alias) == {second}
    assert inbox.found([first, second, b"x" * 16], using=alias) == {first, second}


# ------------------------------------------------------------------ a batch


def test_an_effect_is_had_once_however_often_it_is_delivered(alias: str) -> None:
    writer = Writer(alias)
    own = listening(writer.receiver)
    own.process(deliveries(1, 2, 1))
    own.process(deliveries(2, 3, is_repeated=True))
    listening(writer.receiver).process(deliveries(1, 2, 3))
    assert writer.rows == writer.runs == ["1", "2", "3"]
    assert (own.counts, own.settled) == ({Outcome.DONE: 5}, 5)


def test_a_batch_is_one_transaction_whose_first_statement_is_one_sorted_insert(alias: str) -> None:
    writer = Writer(alias)
    said: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        said.append(sql)
        if "inboxentry" in sql:
            assert connections[alias].in_atomic_block
            assert list(params[1:]) == sorted(params[1:])
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(note):
        listening(writer.receiver).process(deliveries(*range(20)))
    about_us = [at for at, sql in enumerate(said) if "inboxentry" in sql]
    writes = [at for at, sql in enumerate(said) if "testapp_tag" in sql]
    assert len(about_us) == 1
    assert about_us[0] < writes[0]
    assert len(writes) == 20


def test_a_failure_undoes_its_own_effect_only_and_each_other_is_had_once(alias: str) -> None:
    writer = Writer(alias, {"3": fail})
    own = listening(writer.receiver)
    own.process(deliveries(1, 2, 3, 4))
    assert writer.rows == ["1", "2", "4"]
    assert writer.runs == ["1", "2", "3", "1", "2", "3", "4"]  # what they did outside of the database came twice
    assert writer.held == [("event-3", State.WAITING, 1)]
    assert writer.entries == 3
    assert own.counts == {Outcome.DONE: 3, Outcome.RETRY: 1}


def test_the_traceback_of_a_failure_in_a_batch_is_its_own_alone(alias: str) -> None:
    writer = Writer(alias, {"3": fail})
    listening(writer.receiver).process(deliveries(1, 2, 3, 4))
    traceback = HeldDelivery.objects.using(alias).get().traceback
    assert "ValueError: no" in traceback
    assert "_Undone" not in traceback
    assert "another exception" not in traceback


def swallow_a_database_error(alias: str) -> Callable[[], None]:
    def swallow() -> None:
        with suppress(DatabaseError), connections[alias].cursor() as cursor:
            cursor.execute("SELECT * FROM nowhere")

    return swallow


def swallow_in_the_orm(alias: str) -> Callable[[], None]:
    def swallow() -> None:
        with suppress(IntegrityError), transaction.atomic(using=alias, savepoint=False):
            Tag.objects.using(alias).bulk_create([Tag(pk=1, name="twin"), Tag(pk=1, name="twin")])

    return swallow


def leave_a_block_open(alias: str) -> Callable[[], None]:
    return lambda: transaction.atomic(using=alias).__enter__()


MISCHIEF: dict[str, Callable[[str], Callable[[], object]]] = {
    "an error it swallowed": swallow_in_the_orm,
    "a block it left open": leave_a_block_open,
    "a closed connection": lambda alias: lambda: connections[alias].close(),
    "a rollback it asked for": lambda alias: lambda: transaction.set_rollback(True, using=alias),
    "a driver it closed": lambda alias: lambda: connections[alias].connection.close(),
}


@pytest.mark.parametrize("what", MISCHIEF)
def test_a_transaction_that_cannot_be_committed_is_a_failure_of_its_own_event(alias: str, what: str) -> None:
    writer = Writer(alias, {"2": MISCHIEF[what](alias)})
    in_a_thread(lambda: listening(writer.receiver).process(deliveries(1, 2, 3)), alias)
    assert writer.rows == ["1", "3"]
    assert writer.held == [("event-2", State.WAITING, 1)]


@pytest.mark.slow
def test_postgresql_answers_a_broken_commit_with_a_rollback_and_that_is_noticed(postgres_alias: str) -> None:
    """A bare cursor tells Django nothing of its error, and COMMIT raises none."""
    writer = Writer(postgres_alias, {"2": swallow_a_database_error(postgres_alias)})
    listening(writer.receiver).process(deliveries(1, 2))
    assert writer.rows == ["1"]
    assert writer.held == [("event-2", State.WAITING, 1)]


def in_a_thread(work: Callable[[], object], *aliases: str) -> None:
    """With connections of its own, as a listener has; what it raises is raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    entries = {alias: connections.settings[alias] for alias in aliases}
    assert entries
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_equal_ids_of_two_producers_are_two_events(alias: str) -> None:
    writer = Writer(alias)
    listening(writer.receiver).process([*deliveries(1, source="shop"), *deliveries(1, source="crm")])
    assert writer.rows == ["1", "1"]


def test_two_receivers_and_two_groups_have_their_own_effects(alias: str) -> None:
    writers = [Writer(alias, name="app.one"), Writer(alias, name="app.two"), Writer(alias, name="app.one", group="g")]
    for writer in writers:
        listening(writer.receiver).process(deliveries(1))
    assert writers[0].rows == ["1", "1", "1"]


def test_a_receiver_that_is_not_once_runs_again_and_has_no_entry(alias: str) -> None:
    plain, writer = Writer(alias, name="app.plain", once=False), Writer(alias)
    for _ in range(2):
        listening(plain.receiver, writer.receiver).process(deliveries(1))
    assert (plain.runs, writer.runs, writer.entries) == (["1", "1"], ["1"], 1)


def test_without_using_the_transaction_is_where_held_deliveries_stand() -> None:
    writer = Writer("default", {"2": fail}, using=None)
    listening(writer.receiver).process(deliveries(1, 2))
    assert (writer.rows, writer.entries, writer.held) == (["1"], 1, [("event-2", State.WAITING, 1)])


def test_a_thousand_events_are_one_batch(alias: str, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "BATCH": 1000}
    writer = Writer(alias)
    for _ in range(2):
        listening(writer.receiver).process(deliveries(*range(1000)))
    assert len(writer.runs) == len(writer.rows) == writer.entries == 1000


def test_a_hook_for_the_commit_that_raises_changes_no_outcome(alias: str) -> None:
    writer = Writer(alias, {"1": lambda: transaction.on_commit(fail, using=alias)})
    listening(writer.receiver).process(deliveries(1, 2))
    assert (writer.rows, writer.runs, writer.held) == (["1", "2"], ["1", "2"], [])


def test_what_a_receiver_publishes_goes_out_with_its_effect_only() -> None:
    writer = Writer("default", {"1": lambda: publish("out", 1), "2": lambda: (publish("out", 2), fail())})
    with capture_events() as captured:
        listening(writer.receiver).process(deliveries(1, 2))
    assert [event.data for event in captured] == [1]


def test_watchers_see_an_inbox_hit_as_done() -> None:
    seen: list[Sequence[Result]] = []

    def watch(results: Sequence[Result], **_: object) -> None:
        seen.append(results)

    event_settled.connect(watch)
    try:
        for _ in range(2):
            listening(Writer("default").receiver).process(deliveries(1))
    finally:
        event_settled.disconnect(watch)
    assert [[result.verdict.outcome for result in results] for results in seen] == [[Outcome.DONE], [Outcome.DONE]]
    assert seen[1][0].seconds == 0


# ------------------------------------------------------------------ conflicts and lost connections


class Conflicts:
    """Raises what a database raises in a conflict, so many times."""

    def __init__(self, times: int, code: str = "40P01") -> None:
        self.left = times
        self.code = code

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            cause = Exception()
            cause.sqlstate = self.code  # type: ignore[attr-defined]  # as psycopg's errors have it
            raise OperationalError("deadlock detected") from cause


def test_a_conflict_is_no_attempt_and_halves_the_batches_for_a_while(
    alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(alias, {"7": Conflicts(2)})
    own = listening(writer.receiver)
    own.process(deliveries(*range(8)))
    assert writer.rows == sorted(map(str, range(8)))
    assert writer.held == []
    assert own._once._sizes == {"app.write": 4}  # 8 → 4, [0–3] done → 6, [4–7] → 2, [4, 5] → 3, [6, 7] → 4
    for number in range(14):
        own.process(deliveries(f"more-{number}", f"most-{number}"))
    assert own._once._sizes == {}
    (line,) = caplog.messages
    assert line.startswith("app.write is in a conflict over its database; ")


def test_a_lone_run_that_is_always_in_a_conflict_fails_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST_CONFLICTS", 3)
    writer = Writer("default", {"1": Conflicts(99, "40001")})
    listening(writer.receiver).process(deliveries(1))
    assert (writer.runs, writer.held) == (["1"] * 3, [("event-1", State.WAITING, 1)])


def test_a_slow_receiver_gets_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "LONGEST", 0.0)
    own = listening(Writer("default").receiver)
    own.process(deliveries(*range(16)))
    assert own._once._sizes == {"app.write": 8}


def test_sqlite_being_locked_is_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer("default")
    connections["default"].close()
    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "timeout", 0.02)
    blocker = connections.create_connection("default")
    blocker.ensure_connection()
    blocker.connection.execute("BEGIN IMMEDIATE")
    pauses: list[int] = []

    def pause(self: once.OnceRunner, tries: int) -> None:
        pauses.append(tries)
        if len(pauses) == 3:
            blocker.connection.rollback()

    monkeypatch.setattr(once.OnceRunner, "_pause", pause)
    own = listening(writer.receiver)
    patience = threading.Timer(10, own.stop)  # without it, a failure would be waited with until the lock is gone
    patience.start()
    own.process(deliveries(1, 2, 3, 4))
    patience.cancel()
    blocker.close()
    connections["default"].close()
    assert (writer.rows, writer.held) == (["1", "2", "3", "4"], [])
    assert pauses == [1, 1, 1]  # 4 together, 2, then one alone


@pytest.mark.slow
def test_a_connection_that_dies_in_commit_is_resolved_by_the_inbox(postgres_alias: str) -> None:
    """Both ways: the COMMIT was done and its answer lost, or it was never done."""
    for is_done in (True, False):
        writer = Writer(postgres_alias, name=f"app.{is_done}")
        connection = connections[postgres_alias]
        commits: list[bool] = []

        def dying(commit: Any = connection._commit, is_done: bool = is_done, commits: list[bool] = commits) -> None:
            commits.append(is_done)
            if len(commits) == 1:
                if is_done:
                    commit()
                connections[postgres_alias].connection.close()
                raise OperationalError("server closed the connection unexpectedly")
            commit()

        connection._commit = dying
        try:
            listening(writer.receiver).process(deliveries(f"{is_done}-1", f"{is_done}-2"))
        finally:
            del connection._commit
        assert len(writer.runs) == (2 if is_done else 4)
        assert writer.held == []
    assert writer.rows == ["False-1", "False-2", "True-1", "True-2"]


@pytest.mark.slow
def test_a_database_that_goes_away_settles_nothing_and_is_no_attempt(
    settings: Any, tmp_path: Any, django_db_blocker: Any
) -> None:
    from tests.conftest import _alias, _with_tables

    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "RECONNECT_MAX": 0.2}
    with Postgres() as own, django_db_blocker.unblock():
        entry = _with_tables(own.create("once"), django_db_blocker)
        with _alias("away", entry):
            writer = Writer("away")
            listener = listening(writer.receiver)
            own.kill()
            thread = threading.Thread(target=lambda: (listener.process(deliveries(1, 2, 3)), connections.close_all()))
            thread.start()
            wait_for(lambda: not listener._can_hold, what="the outage to be noticed")
            assert listener.settled == 0
            own.start()
            thread.join(20)
            assert listener.settled == 3
            assert (writer.rows, writer.held) == (["1", "2", "3"], [])


class Outage:
    """Loses the connection of the first run that comes, and has an answer to so many questions: the database is away.

    ``asked`` counts the questions. To the next one it is there again.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, alias: str = "default", *, answers: int = 1) -> None:
        self.alias, self.answers = alias, answers
        self.is_there = False
        self.asked = 0
        monkeypatch.setattr(held, "is_away", self.is_away)

    def __call__(self) -> None:
        if not self.is_there:
            self.is_there = True
            connections[self.alias].close()
            raise OperationalError("server closed the connection unexpectedly")

    def is_away(self, alias: str) -> bool:
        self.asked += 1
        return self.asked <= self.answers


NEVER_AGAIN = Retry(attempts=1)


@pytest.mark.parametrize("ids", [(1,), (1, 2, 3)], ids=["alone", "in a batch"])
def test_a_database_that_is_back_by_the_next_question_makes_no_dead_letters(
    alias: str, monkeypatch: pytest.MonkeyPatch, ids: tuple[int, ...]
) -> None:
    outage = Outage(monkeypatch, alias)
    writer = Writer(alias, {"1": outage}, retry=NEVER_AGAIN)
    own = listening(writer.receiver)
    in_a_thread(lambda: own.process(deliveries(*ids)), alias)
    assert (writer.rows, writer.held) == ([*map(str, ids)], [])
    assert writer.runs == ["1", *map(str, ids)]
    assert (own.counts, own.settled, outage.asked) == ({Outcome.DONE: len(ids)}, len(ids), 1)


def test_whatever_a_receiver_makes_of_it_a_run_that_its_database_cut_short_is_none(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(monkeypatch, alias)

    def translate() -> None:
        try:
            outage()
        except OperationalError as error:
            raise ValueError("the shop is closed") from error

    writer = Writer(alias, {"1": translate}, retry=NEVER_AGAIN)
    in_a_thread(lambda: listening(writer.receiver).process(deliveries(1)), alias)
    assert (writer.rows, writer.held, outage.asked) == (["1"], [], 1)


@pytest.mark.parametrize("mixed", [True, False], ids=["with once", "plain"])
def test_whether_a_database_is_away_is_asked_once_for_a_batch(monkeypatch: pytest.MonkeyPatch, mixed: bool) -> None:
    """Each question may take as long as a connection that nobody accepts."""
    outage = Outage(monkeypatch, answers=99)

    def lose() -> None:
        outage.is_there = False
        outage()

    writers = [Writer("default", dict.fromkeys("123", lose), name="app.plain", once=False, retry=NEVER_AGAIN)]
    writers += [Writer("default", {"1": lose}, name=f"app.{name}", retry=NEVER_AGAIN) for name in "ab" if mixed]
    monkeypatch.setattr(held, "check", lambda aliases: [each.mischief.clear() for each in writers])
    own = listening(*(writer.receiver for writer in writers))
    in_a_thread(lambda: own.process(deliveries(1, 2, 3)), "default")
    assert (outage.asked, writers[0].held) == (1, [])
    assert own.counts == {Outcome.DONE: 3 * len(writers)}


def test_what_is_left_of_a_batch_is_not_begun_where_its_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch fails for its receiver; then, one by one, the first finds the database away."""
    outage = Outage(monkeypatch)
    outage.is_there = True
    first, second = Writer("default", {"1": outage}, name="app.first"), Writer("default", name="app.second")

    def fail_before_it() -> None:
        outage.is_there = False
        first.mischief.pop("3")
        fail()

    first.mischief["3"] = fail_before_it
    in_a_thread(lambda: listening(first.receiver, second.receiver).process(deliveries(1, 2, 3)), "default")
    assert first.runs == ["1", "2", "3", "1", "1", "2", "3"]  # together, the first alone, and when it is back
    assert (second.runs, first.held, outage.asked) == (["1", "2", "3"], [], 1)


@pytest.mark.parametrize("ids", [(1,), (1, 2, 3)], ids=["alone", "in a batch"])
def test_a_connection_that_is_lost_while_stopping_is_no_attempt(
    monkeypatch: pytest.MonkeyPatch, ids: tuple[int, ...]
) -> None:
    writer = Writer("default", {"1": Outage(monkeypatch, answers=0)}, retry=NEVER_AGAIN)
    own = listening(writer.receiver)
    own.stop()
    in_a_thread(lambda: own.process(deliveries(*ids)), "default")
    assert (writer.rows, writer.held) == ([*map(str, ids)], [])


@pytest.mark.slow
def test_four_listeners_with_the_same_events_lose_and_repeat_nothing_on_postgresql(postgres_alias: str) -> None:
    """Overlapping batches in random order, and business rows in each other's way."""
    events, effects = 400, Writer(postgres_alias)
    failures: list[BaseException] = []
    busy = [Tag.objects.using(postgres_alias).create(name=f"busy-{number}").pk for number in range(5)]
    sizes: list[int] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)

        def write(event: Event[Any]) -> None:
            Tag.objects.using(postgres_alias).create(name=event.data)
            Tag.objects.using(postgres_alias).filter(pk=chance.choice(busy)).update(name=f"busy-{seed}")

        once_receiver = receiver(write, name="app.write", once=True, using=postgres_alias, retry=AT_ONCE)
        own = listening(once_receiver)
        try:
            for start in range(0, events, 40):
                window = range(start, min(start + 60, events))
                own.process(deliveries(*chance.sample(window, len(window))))
            sizes.append(own.settled)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    assert len(sizes) == 4
    assert [row for row in effects.rows if not row.startswith("busy")] == sorted(map(str, range(events)))
    assert (effects.held, effects.entries) == ([], events)


# ------------------------------------------------------------------ held deliveries


def test_a_retry_has_its_effect_its_entry_and_the_end_of_its_row_in_one_transaction(alias: str) -> None:
    writer = Writer(alias, {"1": fail})
    listening(writer.receiver).process(deliveries(1))
    assert (writer.rows, writer.entries, writer.held) == ([], 0, [("event-1", State.WAITING, 1)])
    with deletes_refused():
        Retrier([writer.receiver]).run_due()
    writer.mischief = {}
    with deletes_refused():
        assert Retrier([writer.receiver]).run_due() == 1
    assert (writer.rows, writer.entries) == ([], 0)
    assert [row[1] for row in writer.held] == [State.DEAD]


class deletes_refused:  # reads as what it does
    """No held row can be deleted in this block."""

    def __enter__(self) -> None:
        self.finish = held.finish
        held.finish = self._refuse  # type: ignore[assignment]  # a database that refuses is hard to come by

    def _refuse(self, row: Any, verdict: Any, error: Any, *, using: str) -> None:
        if error is None:
            assert connections[using].in_atomic_block
            raise IntegrityError("no")
        self.finish(row, verdict, error, using=using)

    def __exit__(self, *_: object) -> None:
        held.finish = self.finish


def test_a_retry_that_succeeds_ends_its_row_and_one_whose_effect_is_there_does_too(alias: str) -> None:
    writer = Writer(alias, {"1": fail, "2": fail})
    listening(writer.receiver).process(deliveries(1, 2))
    writer.mischief = {}
    listening(writer.receiver).process(deliveries(2))  # another entry of the same event, sent after a loss
    runs = len(writer.runs)
    assert Retrier([writer.receiver]).run_due() == 2
    assert (writer.rows, writer.held, len(writer.runs)) == (["1", "2"], [], runs + 1)


def test_a_retry_that_fails_is_undone_and_ends_as_a_dead_letter(alias: str) -> None:
    writer = Writer(alias, {"1": fail})
    listening(writer.receiver).process(deliveries(1))
    retrier = Retrier([writer.receiver])
    while retrier.run_due():
        pass
    assert (writer.rows, writer.entries, writer.held) == ([], 0, [("event-1", State.DEAD, 3)])
    assert len(writer.runs) == 3


def test_a_conflict_in_a_retry_is_no_attempt(alias: str) -> None:
    writer = Writer(alias, {"1": fail})
    listening(writer.receiver).process(deliveries(1))
    writer.mischief = {"1": Conflicts(3)}
    Retrier([writer.receiver]).run_due()
    assert (writer.rows, writer.held) == (["1"], [])


def test_a_retry_whose_database_is_away_for_a_moment_is_no_attempt(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(alias, {"1": fail}, retry=Retry(attempts=2, delay=1e-6, max_delay=1e-6))
    listening(writer.receiver).process(deliveries(1))
    writer.mischief = {"1": Outage(monkeypatch, alias)}
    retrier = Retrier([writer.receiver])
    assert (retrier.run_due(), writer.held) == (0, [("event-1", State.WAITING, 1)])
    assert (retrier.run_due(), writer.held, writer.rows) == (1, [], ["1"])


def test_a_held_row_is_seen_when_its_event_comes_again(alias: str) -> None:
    writer = Writer(alias, {"1": fail})
    listening(writer.receiver).process(deliveries(1))
    runs = len(writer.runs)
    listening(writer.receiver).process(deliveries(1, is_repeated=True))
    assert (len(writer.runs), writer.held) == (runs, [("event-1", State.WAITING, 1)])


def test_poison_is_a_dead_letter_for_receivers_without_an_entry_only(alias: str) -> None:
    done, never = Writer(alias, name="app.done"), Writer(alias, name="app.never")
    listening(done.receiver).process(deliveries(1))
    own = listening(done.receiver, never.receiver)
    own.process(deliveries(1, is_repeated=True, starts=conf.MAX_DELIVERIES))
    dead = HeldDelivery.objects.using(alias).values_list("receiver", "state")
    assert list(dead) == [("app.never", State.DEAD)]
    assert (done.runs, never.runs, own.settled) == (["1"], [], 1)


def test_rejected_and_undecodable_events_are_dead_letters_without_an_entry(alias: str) -> None:
    def reject() -> None:
        raise Reject("why")

    writer = Writer(alias, {"1": reject})
    listening(writer.receiver).process(deliveries(1, 2))
    assert (writer.rows, writer.entries, writer.held) == (["2"], 1, [("event-1", State.DEAD, 1)])


# ------------------------------------------------------------------ replay, capture, cleaning


def test_a_replay_skips_and_counts_what_has_its_entry(
    declared: None, events_settings: dict[str, Any], settings: Any, server: Server, prefix: str
) -> None:
    stream = {"orders": {"TRANSPORT": "stream"}}
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": stream}
    with server.client() as client:
        for each in deliveries(1, 2, 3):
            client.xadd(f"{prefix}:orders", {"event": each.body})
    writer = Writer("default")
    receives("orders", name="app.write", once=True)(writer.write)
    listening(writer.receiver).process(deliveries(1, 3))
    replay = Replay()
    replay.old_events("app.write", since=now() - timedelta(hours=1), until=now() + timedelta(hours=1))
    assert replay.left == {"done already, and once": 2}
    assert writer.held == [("event-2", State.WAITING, 0)]


def test_captured_events_are_delivered_in_a_transaction(declared: None) -> None:
    within: list[bool] = []
    receives("orders", once=True)(lambda event: within.append(connections["default"].in_atomic_block))
    with capture_events() as captured:
        publish("orders", 1, type="shop.order.paid")
        assert captured.deliver() == 1
    assert within == [True]


def test_old_entries_go_a_thousand_at_a_time_and_only_when_no_redelivery_can_ask(
    declared: None, alias: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "RETENTION": 1000, "CLAIM_AFTER": 1, "MAX_DELIVERIES": 2}
    own = receiver(fail, once=True, using=alias, retry=Retry(attempts=5, delay=100, max_delay=100))
    kept = 1000 + 400 + 5 + 2
    for age, count in ((kept + 5, 1500), (kept - 5, 3)):
        moment = now() - timedelta(seconds=age)
        rows = [InboxEntry(digest=random.randbytes(16), created_at=moment) for _ in range(count)]
        InboxEntry.objects.using(alias).bulk_create(rows)
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "RETRY": {"attempts": 1}}
    Cleaner([own], alive=lambda: ()).clean()
    assert InboxEntry.objects.using(alias).count() == 3


def test_an_old_entry_stays_as_long_as_a_held_delivery_of_any_service_may_ask_for_it(alias: str, settings: Any) -> None:
    """An event came twice, one copy failed, and its retry is due later than any policy of this service."""
    writer = Writer(alias, {"1": fail, "2": fail})
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "patient"}
    listening(writer.receiver).process(deliveries(1, 2))
    writer.mischief = {}
    listening(writer.receiver).process(deliveries(1, 2))
    HeldDelivery.objects.using(alias).filter(event_id="event-2").update(state=State.DEAD)
    InboxEntry.objects.using(alias).update(created_at=now() - timedelta(days=90))
    HeldDelivery.objects.using(alias).update(created_at=now() - timedelta(days=90))
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "hasty"}
    assert inbox.delete_older(86_400, using=alias, is_stopping=lambda: False) == 1
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "patient"}
    Retrier([writer.receiver]).run_due()
    assert writer.rows == ["1", "2"]
    assert inbox.delete_older(86_400, using=alias, is_stopping=lambda: False) == 1


def test_the_longest_retention_anybody_announced_counts() -> None:
    far = Announcement(service="crm", channel="x", transport="stream", retention=9e6)
    assert inbox.seconds_kept([], [far]) > 9e6
    assert inbox.seconds_kept([], []) < 9e6


def test_nothing_is_deleted_while_nobody_can_say_how_long(declared: None, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": "redis://127.0.0.1:1"}
    InboxEntry.objects.create(digest=b"1" * 16, created_at=now() - timedelta(days=9999))
    Cleaner([receiver(fail, once=True)], alive=lambda: ()).clean()
    assert InboxEntry.objects.count() == 1


def test_a_retention_beyond_all_time_deletes_nothing_and_ends_nothing() -> None:
    InboxEntry.objects.create(digest=b"1" * 16, created_at=now())
    assert inbox.delete_older(1e300, using="default", is_stopping=lambda: False) == 0


# ------------------------------------------------------------------ processes that die

WRITE = """
import os, signal
from redis_events.transports.stream import StreamTransport
from tests.testapp.models import Tag

def die_in(name):
    if not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

settle = StreamTransport.settle

def dying_settle(self, deliveries):
    if PLACE == "settle" and deliveries:
        die_in("settle")
    settle(self, deliveries)

StreamTransport.settle = dying_settle

@receives("orders", once=True)
def write(event):
    note("write", event)
    Tag.objects.create(name=str(event.data))
    if PLACE == "half" and event.data == 7:
        die_in("half")
"""
COUNT = """
from redis_events.models import HeldDelivery, InboxEntry
from tests.testapp.models import Tag
print(sorted(int(name) for name in Tag.objects.values_list("name", flat=True)) == list(range(10)))
print(InboxEntry.objects.count(), HeldDelivery.objects.count())
"""


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest, project: Project, prefix: str) -> Project:
    """A project on either database."""
    if request.param == "postgres":
        project.database(request.getfixturevalue("postgres").create(prefix))
        project.migrate()
    return project


@pytest.mark.slow
@pytest.mark.parametrize(("place", "runs_of_3"), [("settle", 1), ("half", 2)])
def test_kill_9_between_effect_and_settling_repeats_nothing_and_half_way_leaves_nothing(
    stored: Project, server: Server, place: str, runs_of_3: int
) -> None:
    service = Service(stored, server, f"PLACE = {place!r}\n{WRITE}", SERVICE="shop")
    service.publish(*range(10))
    killed: Process = service.listen(waits=False)
    assert killed.wait(40) == -signal.SIGKILL, killed.output
    service.listen()
    service.wait_until_has(("write",), range(10), timeout=40)
    wait_for(lambda: service.unsettled() == 0, timeout=40, what="everything to be settled")
    assert service.counts()["write", "3"] == runs_of_3
    assert stored.shell(COUNT).split() == ["True", "10", "0"]


@pytest.mark.slow
def test_without_the_inbox_it_says_migrate_and_exits_5(project: Project, server: Server) -> None:
    service = Service(project, server, '@receives("orders", once=True)\ndef write(event): ...\n')
    project.shell("from django.db import connection\nconnection.cursor().execute('DROP TABLE redis_events_inboxentry')")
    process = service.listen(waits=False)
    assert process.wait(30) == 5, process.output
    assert "the inbox is missing in the database 'default': run `manage.py migrate`" in process.output


@pytest.mark.slow
def test_a_run_that_outlasts_its_timeout_ends_the_process_and_leaves_nothing(project: Project, server: Server) -> None:
    receivers = """
from tests.testapp.models import Tag

@receives("orders", once=True, timeout=0.5)
def write(event):
    Tag.objects.create(name=str(event.data))
    if not os.path.exists("slept"):
        open("slept", "w").close()
        time.sleep(60)
"""
    service = Service(project, server, receivers)
    service.publish(*range(10))
    assert service.listen(waits=False).wait(40) == 75
    service.listen()
    wait_for(lambda: service.unsettled() == 0, timeout=40, what="everything to be settled")
    assert project.shell(COUNT).split() == ["True", "10", "0"]


def test_a_retry_of_another_service_in_the_same_database_is_no_inbox_hit_of_ours(settings: Any) -> None:
    """It was taken for done already by whoever had had the event, and deleted: its service never had the effect."""
    writer = Writer("default", {"a": fail})
    for service in ("billing", "shop"):
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": service}
        listening(writer.receiver).process(deliveries("a"))
        writer.mischief.clear()
    Retrier([writer.receiver]).run_due()
    assert HeldDelivery.objects.get().group == "billing"
