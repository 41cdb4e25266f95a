"""Held deliveries, on both databases: kept whole whatever is in them, claimed by one, finished by that one."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction

from redis_events import held
from redis_events.events import now
from redis_events.exceptions import DecodeError
from redis_events.models import DeadLetter, HeldDelivery
from redis_events.retry import DEAD, Outcome, Verdict
from tests.naughty import STRINGS

RETRY = Verdict(Outcome.RETRY, 0.0)
State = HeldDelivery.State


@pytest.fixture(params=["default", "postgres"])
def alias(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("real_transactions" if request.param == "default" else "postgres_alias")
    return request.param


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def failure(using: str, **given: Any) -> held.Failure:
    values: dict[str, Any] = {
        "verdict": RETRY,
        "error": raised(KeyError("bug")),
        "source": "shop",
        "event_id": "1",
        "group": "billing",
        "receiver": "billing.credit",
        "channel": "shop.orders",
        "type": "shop.order.paid",
        "key": "7",
        "entry_id": "",
        "attempt": 1,
        "raw": b"{}",
        "using": using,
    }
    return held.Failure(**{**values, **given})


def hold(using: str, **given: Any) -> HeldDelivery:
    held.hold([failure(using, **given)])
    return HeldDelivery.objects.using(using).latest("pk")


def rows(using: str) -> Any:
    return HeldDelivery.objects.using(using).order_by("pk")


# ------------------------------------------------------------------ keeping


def test_a_retry_waits_and_a_dead_letter_does_not(alias: str) -> None:
    waiting = hold(alias, verdict=Verdict(Outcome.RETRY, 60.0))
    dead = hold(alias, verdict=DEAD, event_id="2")
    assert waiting.state == State.WAITING
    assert waiting.due
    assert 55 < (waiting.due - now()).total_seconds() < 61
    assert (dead.state, dead.due) == (State.DEAD, None)
    assert [letter.pk for letter in DeadLetter.objects.using(alias)] == [dead.pk]
    assert (waiting.reason, waiting.exception) == ("'bug'", "KeyError")
    assert "test_held.py" in waiting.traceback


def test_what_is_held_already_stays_as_it_is(alias: str) -> None:
    hold(alias, verdict=DEAD)
    held.hold([failure(alias, verdict=RETRY, raw=b"other"), failure(alias, receiver="billing.other")])
    assert [(row.receiver, row.state, bytes(row.raw)) for row in rows(alias)] == [
        ("billing.credit", State.DEAD, b"{}"),
        ("billing.other", State.WAITING, b"{}"),
    ]


def test_two_listeners_that_hold_the_same_failures_wait_for_one_another_and_never_in_a_circle(
    postgres_alias: str,
) -> None:
    """A deadlock would be taken for a database that is away."""
    failures = [failure(postgres_alias, event_id=f"{number}") for number in range(400)]
    errors: list[BaseException] = []
    start = threading.Barrier(2)

    def work(given: list[held.Failure]) -> None:
        start.wait()
        try:
            held.hold(given)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    for _ in range(5):
        threads = [threading.Thread(target=work, args=(failures[::step],)) for step in (1, -1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert (errors, rows(postgres_alias).count()) == ([], 400)
        rows(postgres_alias).delete()


@pytest.mark.parametrize("attribute", ["source", "event_id", "group", "receiver"])
def test_another_source_event_group_or_receiver_is_another_delivery(alias: str, attribute: str) -> None:
    hold(alias)
    hold(alias, **{attribute: "other"})
    assert rows(alias).count() == 2


def test_any_bytes_are_kept_as_they_came(alias: str) -> None:
    for number, raw in enumerate([b"", b"\x00\xff", bytes(range(256)) * 100, "\ud800".encode(errors="surrogatepass")]):
        hold(alias, event_id=str(number), raw=raw)
        assert bytes(rows(alias).latest("pk").raw) == raw


def test_junk_is_cut_with_its_length_and_digest_an_event_never(alias: str) -> None:
    raw = b"x" * (held.MOST_BYTES + 1)
    junk = hold(alias, receiver="", raw=raw, error=DecodeError("too large", raw=raw))
    event = hold(alias, event_id="2", raw=raw)
    assert len(bytes(junk.raw)) == held.MOST_BYTES
    assert junk.reason.startswith("too large (kept 262,144 of 262,145 bytes, sha256 ")
    assert bytes(event.raw) == raw


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its text")


ODD_ERRORS = [
    *map(ValueError, STRINGS),
    ValueError("\ud800"),
    ValueError("x" * 10**6),
    ValueError(b"\xff"),
    ValueError(),
    Unspeakable(),
    ExceptionGroup("several", [ValueError("\x00"), Unspeakable()]),
    type("\u202eName" * 100, (Exception,), {})("long"),
    RecursionError("deep"),
]


def test_no_exception_can_spoil_the_batch(alias: str) -> None:
    held.hold([failure(alias, error=raised(error), event_id=str(at)) for at, error in enumerate(ODD_ERRORS)])
    assert rows(alias).count() == len(ODD_ERRORS)
    assert all(row.reason and row.exception and row.traceback for row in rows(alias))


def test_no_channel_name_can_spoil_the_batch(alias: str) -> None:
    channels = [*STRINGS, "\ud800", "x" * 10_000, "ü" * 300]
    held.hold([failure(alias, channel=channel, event_id=str(at)) for at, channel in enumerate(channels)])
    assert rows(alias).count() == len(channels)


# ------------------------------------------------------------------ the same failure


def a_bug(number: int) -> BaseException:
    return raised(KeyError(number))


def test_the_same_failure_has_the_same_fingerprint_whatever_it_says() -> None:
    def elsewhere() -> BaseException:
        try:
            raise KeyError(1)
        except KeyError as error:
            return error

    same = {held.fingerprint("r", a_bug(1)), held.fingerprint("r", a_bug(2))}
    assert len(same) == 1
    others = {
        held.fingerprint("other", a_bug(1)),
        held.fingerprint("r", raised(ValueError(1))),
        held.fingerprint("r", elsewhere()),
    }
    assert len(others | same) == 4
    assert {len(each) for each in others | same} == {16}


def test_an_error_without_frames_has_a_fingerprint_too() -> None:
    assert len(held.fingerprint("r", DecodeError("never raised", raw=b""))) == 16


# ------------------------------------------------------------------ trying again


def test_only_due_waiting_rows_of_known_receivers_are_due_oldest_first(alias: str, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": "billing"}
    hold(alias, event_id="later", verdict=Verdict(Outcome.RETRY, 60.0))
    hold(alias, event_id="dead", verdict=DEAD)
    hold(alias, event_id="strange", receiver="strange")
    second, first = hold(alias, event_id="second"), hold(alias, event_id="first")
    rows(alias).filter(pk=first.pk).update(due=now() - timedelta(hours=1))
    found = held.due_rows(["billing.credit"], using=alias, limit=10)
    assert [row.pk for row in found] == [first.pk, second.pk]
    assert len(held.due_rows(["billing.credit"], using=alias, limit=1)) == 1
    assert held.next_due(["billing.credit"], using=alias) == rows(alias).get(pk=first.pk).due
    assert held.next_due(["nobody"], using=alias) is None


def test_a_claim_counts_the_run_and_moves_its_time(alias: str) -> None:
    row = hold(alias)
    assert held.claim(row, using=alias)
    stored = rows(alias).get()
    assert (stored.attempt, stored.due) == (2, row.due)
    assert 55 < (stored.due - now()).total_seconds() < 61
    assert held.due_rows(["billing.credit"], using=alias, limit=10) == []


def test_of_many_claimers_one_gets_the_row(alias: str) -> None:
    hold(alias)
    copies = [rows(alias).get() for _ in range(8)]
    barrier, won = threading.Barrier(8), []

    def claim(row: HeldDelivery) -> None:
        barrier.wait(timeout=10)
        won.append(held.claim(row, using=alias))
        connections.close_all()

    threads = [threading.Thread(target=claim, args=(row,)) for row in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    assert rows(alias).get().attempt == 2


def test_a_finished_run_is_gone_and_a_failed_one_is_judged(alias: str) -> None:
    done, again, dead = (hold(alias, event_id=each) for each in ("done", "again", "dead"))
    for row in (done, again, dead):
        assert held.claim(row, using=alias)
    held.finish(done, Verdict(Outcome.DONE), None, using=alias)
    held.finish(again, Verdict(Outcome.RETRY, 60.0), raised(ValueError("still")), using=alias)
    held.finish(dead, DEAD, raised(ValueError("enough")), using=alias)
    kept = {row.event_id: (row.state, row.attempt, row.reason) for row in rows(alias)}
    assert kept == {"again": (State.WAITING, 2, "still"), "dead": (State.DEAD, 2, "enough")}
    assert rows(alias).get(event_id="dead").due is None


def test_a_failure_that_comes_too_late_brings_nothing_back(alias: str) -> None:
    done_by_another, taken_by_another = hold(alias, event_id="1"), hold(alias, event_id="2")
    for row in (done_by_another, taken_by_another):
        assert held.claim(row, using=alias)
    rows(alias).filter(pk=done_by_another.pk).delete()
    other = rows(alias).get(pk=taken_by_another.pk)
    assert held.claim(other, using=alias)
    for row in (done_by_another, taken_by_another):
        held.finish(row, DEAD, raised(ValueError("late")), using=alias)
    (left,) = rows(alias)
    assert (left.pk, left.state, left.attempt, left.due) == (other.pk, State.WAITING, 3, other.due)


def test_the_table_is_looked_for(alias: str) -> None:
    assert held.has_table(using=alias)


def test_a_service_has_the_rows_of_its_groups_and_of_no_other(alias: str) -> None:
    for number, group in enumerate(("shop", "shop:mail", "Shop", "Shop:mail", "shopping", "shop_mail", "other")):
        hold(alias, group=group, event_id=str(number))
    assert {row.group for row in rows(alias).filter(held.ours())} == {"shop", "shop:mail"}


# ------------------------------------------------------------------ parked


def parked(using: str, *ids: str, **given: Any) -> None:
    held.hold([failure(using, event_id=id, is_parked=True, attempt=0, group="shop", **given) for id in ids])


def test_a_parked_row_has_no_time_and_is_seen(alias: str) -> None:
    parked(alias, "1")
    row = HeldDelivery.objects.using(alias).get()
    assert (row.state, row.due, row.attempt) == (State.PARKED, None, 0)
    assert held.due_rows(["billing.credit"], using=alias, limit=9) == []
    assert held.next_due(["billing.credit"], using=alias) is None
    assert held.seen([(alias, "shop", "1", "shop", "billing.credit")])


def test_so_many_parked_rows_become_due_at_a_time(alias: str) -> None:
    parked(alias, "1", "2", "3")
    parked(alias, "4", receiver="billing.other")
    counts = [held.unpark(["billing.credit"], using=alias, limit=2) for _ in range(3)]
    assert counts == [2, 1, 0]
    assert len(held.due_rows(["billing.credit", "billing.other"], using=alias, limit=9)) == 3
    assert held.unpark([], using=alias, limit=2) == 0


def test_what_another_listener_is_making_due_is_left_to_it(postgres_alias: str) -> None:
    """Neither waits for the other, so they cannot wait for each other."""
    parked(postgres_alias, "1", "2", "3")
    counts: list[int] = []

    def work() -> None:
        counts.append(held.unpark(["billing.credit"], using=postgres_alias, limit=9))
        connections[postgres_alias].close()

    with transaction.atomic(using=postgres_alias):
        assert held.unpark(["billing.credit"], using=postgres_alias, limit=2) == 2
        other = threading.Thread(target=work)
        other.start()
        other.join(5)
        assert counts == [1]
