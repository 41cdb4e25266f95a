"""Old dead letters go in small steps; rows that nobody will ever run are told of once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from redis_events.cleaning import CHUNK, Cleaner
from redis_events.events import now
from redis_events.models import ChannelState, HeldDelivery
from tests.listeners import receiver
from tests.processes import Project
from tests.servers import Server

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

State = HeldDelivery.State
OLD, NEW = timedelta(days=31), timedelta(days=29)


def hold(count: int = 1, *, age: timedelta, using: str = "default", **columns: Any) -> None:
    """Rows last run so long ago; waiting ones have been due since then."""
    moment = now() - age
    facts = {"source": "crm", "group": "shop", "receiver": "app.gone", "channel": "orders", "state": State.DEAD}
    facts |= {"attempt": 1, "due": None, "raw": b"1", "created_at": moment, "updated_at": moment, **columns}
    if facts["state"] == State.WAITING:
        facts["due"] = moment
    first = HeldDelivery.objects.using(using).count()
    rows = [HeldDelivery(event_id=f"event-{first + number}", **facts) for number in range(count)]
    HeldDelivery.objects.using(using).bulk_create(rows)


def cleaner(*alive: str, using: str | None = None) -> Cleaner:
    return Cleaner([receiver(print, using=using)], alive=lambda: alive)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """What was logged since it was last asked."""
    caplog.set_level(logging.INFO, "redis_events.listen")

    def new() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return new


def test_dead_letters_older_than_keep_dead_go_from_every_database_and_nothing_else_does(said: Any) -> None:
    for alias in ("default", "other"):
        hold(2, age=OLD, using=alias)
        hold(age=NEW, using=alias)
        hold(age=OLD, using=alias, state=State.WAITING, receiver="app.here")
        hold(age=OLD, using=alias, state=State.PARKED, receiver="app.here")
    cleaner("app.here", using="other").clean()
    for alias in ("default", "other"):
        left = HeldDelivery.objects.using(alias).order_by("id").values_list("state", flat=True)
        assert list(left) == [State.DEAD, State.WAITING, State.PARKED]
    assert said() == [f"2 dead letters older than KEEP_DEAD deleted from {alias!r}" for alias in ("default", "other")]


def test_keep_dead_says_how_old(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "KEEP_DEAD": 60}
    hold(age=timedelta(seconds=61))
    hold(age=timedelta(seconds=50))
    cleaner().clean()
    assert HeldDelivery.objects.count() == 1


def test_no_statement_deletes_more_than_a_thousand() -> None:
    hold(2 * CHUNK + 1, age=OLD)
    with CaptureQueriesContext(connections["default"]) as queries:
        cleaner().clean()
    sizes = [
        query["sql"].count(",") + 1 for query in queries if query["sql"].startswith("DELETE") and "IN" in query["sql"]
    ]
    assert CHUNK == 1_000
    assert len(sizes) == 3
    assert max(sizes) <= 1_000
    assert not HeldDelivery.objects.exists()


def test_what_a_broken_off_replay_noted_goes_too_and_floors_stay() -> None:
    old = now() - OLD
    for group in ("~replay:0123", "shop"):
        ChannelState.objects.create(channel="orders", group=group, floor="1-1", updated_at=old)
    cleaner().clean()
    assert list(ChannelState.objects.values_list("group", flat=True)) == ["shop"]


def test_waiting_rows_of_a_receiver_nobody_has_are_an_alarm_once_and_their_end_a_line(said: Any) -> None:
    hold(2, age=timedelta(minutes=5), state=State.WAITING)
    hold(age=timedelta(minutes=5), state=State.WAITING, receiver="app.here")
    rounds = cleaner("app.here")
    rounds.clean()
    assert said() == ["2 events waiting for the receiver app.gone, which no listener of this service has"]
    rounds.clean()
    assert said() == []
    HeldDelivery.objects.filter(receiver="app.gone").delete()
    rounds.clean()
    assert said() == ["no event waits for the missing receiver app.gone any more"]


def test_parked_rows_of_a_receiver_nobody_has_are_an_alarm_too(said: Any) -> None:
    """Renamed while it was paused: whoever resumes it, nobody makes these due."""
    hold(age=timedelta(minutes=5), state=State.PARKED)
    hold(age=timedelta(minutes=5), state=State.WAITING)
    hold(age=timedelta(minutes=5), state=State.PARKED, receiver="app.paused")
    cleaner("app.paused").clean()
    assert said() == ["2 events waiting for the receiver app.gone, which no listener of this service has"]


def test_rows_that_have_only_just_become_due_or_belong_to_another_service_are_no_alarm(said: Any) -> None:
    hold(age=timedelta(seconds=5), state=State.WAITING)
    hold(age=timedelta(minutes=5), state=State.WAITING, group="shopping")
    hold(age=timedelta(minutes=5), state=State.WAITING, group="shop:search", receiver="app.index")
    cleaner().clean()
    assert said() == ["1 event waiting for the receiver app.index, which no listener of this service has"]


def test_a_database_that_cannot_be_used_keeps_nobody_from_the_others() -> None:
    hold(age=OLD, using="other")
    execute("ALTER TABLE redis_events_helddelivery RENAME TO elsewhere")
    try:
        cleaner(using="other").clean()
    finally:
        execute("ALTER TABLE elsewhere RENAME TO redis_events_helddelivery")
    assert not HeldDelivery.objects.using("other").exists()


def execute(statement: str) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute(statement)


# ------------------------------------------------------------------ in a listener

RECEIVERS = """
from redis_events import receives

@receives("orders", name="app.here")
def here(event): ...
"""
HURRIED = """
import sys
import django
django.setup()
from redis_events import cleaning
from redis_events.transports import keeper
cleaning.EVERY = cleaning.PATIENCE = keeper.TRIM_EVERY = 0.2
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
HOLD = """
from datetime import timedelta
from redis_events.events import now
from redis_events.models import HeldDelivery
old = now() - timedelta(days=31)
for receiver, state, due in (("app.here", "dead", None), ("app.there", "waiting", old), ("app.gone", "waiting", old)):
    HeldDelivery.objects.create(source="crm", event_id=receiver, group="shop", receiver=receiver, channel="orders",
        state=state, attempt=1, due=due, raw=b"1", created_at=old, updated_at=old)
"""
LEFT = """
from redis_events.models import HeldDelivery
print(*HeldDelivery.objects.order_by("id").values_list("event_id", flat=True))
"""


@pytest.mark.slow
def test_a_listener_cleans_up_and_knows_the_receivers_of_the_others_of_its_service(
    project: Project, make_project: Callable[..., Project]
) -> None:
    project.write("receivers.py", RECEIVERS)
    release = make_project("next-release")
    release.env["TEST_SERVICE"] = "shop"
    release.write("receivers.py", RECEIVERS.replace("here", "there"))
    release.manage("listen_events").wait_for_line("Listening on ", timeout=20)
    project.shell(HOLD)
    listener = project.python("-c", HURRIED, "listen_events")
    listener.wait_for_line("1 dead letter older than KEEP_DEAD deleted", timeout=20)
    listener.wait_for_line("1 event waiting for the receiver app.gone, which no listener of this service has")
    assert project.shell(LEFT) == "app.there app.gone"
    listener.terminate()
    assert listener.wait(10) == 0
    assert not listener.find("app.there"), listener.output


@pytest.mark.slow
def test_a_listener_keeps_its_streams_to_max_length(project: Project, server: Server, prefix: str) -> None:
    project.write("receivers.py", RECEIVERS)
    project.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream", "MAX_LENGTH": 10}}}
    with server.client() as client:
        for number in range(30):
            client.xadd(f"{prefix}:orders", {"data": number})
        listener = project.python("-c", HURRIED, "listen_events")
        listener.wait_for_line(r"orders has 30 entries, more than MAX_LENGTH \(10\)", timeout=20)
        listener.wait_for_line("orders is within MAX_LENGTH again: 20 entries were removed, 0 of them unsettled")
        assert client.xlen(f"{prefix}:orders") == 10
