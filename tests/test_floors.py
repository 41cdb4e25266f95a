"""Up to where a group has settled a stream, in the service's own database."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import Error, connection

from redis_events import floors
from redis_events.models import ChannelState


@pytest.mark.parametrize(
    ("entry_id", "before", "after"),
    [
        ("5-3", "5-2", "5-4"),
        ("5-0", f"4-{2**64 - 1}", "5-1"),
        ("5", f"4-{2**64 - 1}", "5-1"),
        ("0-1", "0-0", "0-2"),
        (f"5-{2**64 - 1}", f"5-{2**64 - 2}", "6-0"),
    ],
)
def test_the_neighbours_of_an_id(entry_id: str, before: str, after: str) -> None:
    assert (floors.before(entry_id), floors.after(entry_id)) == (before, after)


def test_ids_are_compared_as_numbers() -> None:
    assert floors.parse("9-10") < floors.parse("10-9") < floors.parse("10-10")


@pytest.mark.django_db
def test_a_new_group_begins_at_zero() -> None:
    assert floors.start("orders", "shop", last_id="5-0") == "0"
    assert floors.start("orders", "shop", last_id=None) == "0"


@pytest.mark.django_db
def test_a_lost_group_begins_at_its_floor_and_no_other_does() -> None:
    assert floors.save({("orders", "shop"): "5-1", ("mails", "shop"): "7-0"})
    assert floors.start("orders", "shop", last_id="9-0") == "5-1"
    assert floors.start("orders", "shop", last_id="5-1") == "5-1"
    assert floors.start("orders", "shop:search", last_id="9-0") == "0"


@pytest.mark.django_db
@pytest.mark.parametrize("last_id", [None, "0-0", "5-0", "4-9"])
def test_a_stream_younger_than_the_floor_is_another_one(last_id: str | None) -> None:
    floors.save({("orders", "shop"): "5-1"})
    assert floors.start("orders", "shop", last_id=last_id) == "0"


@pytest.mark.django_db
def test_a_floor_that_moved_is_one_row() -> None:
    for floor in ("5-0", "5-1", "12-0"):
        floors.save({("orders", "shop"): floor})
    assert [state.floor for state in ChannelState.objects.all()] == ["12-0"]


def test_a_floor_that_moved_is_one_row_on_postgresql(postgres_alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_events.floors.router.db_for_write", lambda model: postgres_alias)
    for floor in ("5-0", "12-0"):
        assert floors.save({("orders", "shop"): floor})
    assert [state.floor for state in ChannelState.objects.using(postgres_alias)] == ["12-0"]


@pytest.fixture
def no_table(real_transactions: None) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE redis_events_channelstate RENAME TO hidden")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE hidden RENAME TO redis_events_channelstate")


@pytest.mark.usefixtures("no_table")
def test_a_database_that_is_away_is_told_by_save_and_raised_by_start() -> None:
    """Not knowing the floor is no reason to begin at 0: that would run everything again."""
    assert not floors.save({("orders", "shop"): "5-0"})
    with pytest.raises(Error):
        floors.start("orders", "shop", last_id="9-0")
