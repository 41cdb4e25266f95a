"""A channel emptied on purpose stays empty."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import connections

from redis_events import sent
from redis_events.events import now
from redis_events.healing import Healer
from redis_events.models import OutboxEvent
from tests.servers import Server

pytestmark = pytest.mark.usefixtures("real_transactions")


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def stream(events_settings: dict[str, Any], settings: Any, prefix: str, client: redis.Redis) -> str:
    """A stream of three sent events and one of another service; a fourth row waits to be sent."""
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"OUTBOX": True}}}
    stream = f"{prefix}:orders"
    for number in range(3):
        entry_id = client.xadd(stream, {"event": b"%d" % number}).decode()
        row(number, *map(int, entry_id.split("-")))
    client.xadd(stream, {"event": "theirs"})
    client.xgroup_create(stream, "shop", "0")
    row(3)
    return stream


def row(
    number: int, ms: int | None = None, seq: int | None = None, channel: str = "orders", using: str = "default"
) -> OutboxEvent:
    body = b"%d" % number
    ids = {"event_id": str(number), "sent_ms": ms, "sent_seq": seq}
    rows = OutboxEvent.objects.using(using)
    return rows.create(channel=channel, type="t", key="", body=body, created_at=now(), **ids)


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("purge_events", *arguments, stdout=out)
    return out.getvalue()


def test_a_purge_discards_the_rows_empties_the_stream_and_nothing_comes_back(
    stream: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sent, "PURGED_AT_ONCE", 3)
    other = row(9, channel="mails")
    healer = Healer()
    healer.poll()
    assert run("orders", "--yes") == "4 outbox rows and 4 entries removed.\n"
    assert client.xlen(stream) == 0
    assert not OutboxEvent.objects.filter(channel="orders", discarded=False).exists()
    other.refresh_from_db()
    assert not other.discarded
    for _ in range(2):
        healer.poll()
    client.delete(stream)
    healer.poll()
    healer.close()
    assert client.xlen(stream) == 0
    assert run("orders", "--yes") == "0 outbox rows and 0 entries removed.\n"


def test_a_dry_run_counts_and_changes_nothing(stream: str, client: redis.Redis) -> None:
    assert run("orders", "--dry-run") == "4 outbox rows and 4 entries would be removed.\n"
    assert client.xlen(stream) == 4
    assert not OutboxEvent.objects.filter(discarded=True).exists()


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("", 4), ("n", 4), (None, 4)])
def test_it_asks_first(
    stream: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, answer: str | None, left: int
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("" if answer is None else f"{answer}\n"))
    if left:
        with pytest.raises(CommandError, match="Nothing was removed"):
            run("orders")
    else:
        assert run("orders").startswith("Remove 4 outbox rows and 4 entries of orders, for every service? [y/N] 4 ")
    assert client.xlen(stream) == left


def test_what_is_sent_while_it_runs_stays(stream: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    discard_all = sent.discard_all

    def discard_and_send(channel: str, *, using: str) -> int:
        done = discard_all(channel, using=using)
        if using == "default":
            row(7, *map(int, client.xadd(stream, {"event": "7"}).decode().split("-")))
        return done

    monkeypatch.setattr(sent, "discard_all", discard_and_send)
    assert run("orders", "--yes") == "4 outbox rows and 4 entries removed.\n"
    assert [fields for _, fields in client.xrange(stream)] == [{b"event": b"7"}]


def test_a_stream_that_does_not_exist_is_empty_already(events_settings: dict[str, Any]) -> None:
    assert run("nowhere", "--yes") == "0 outbox rows and 0 entries removed.\n"


def test_what_cannot_be_done_is_a_clear_error(stream: str, client: redis.Redis, settings: Any) -> None:
    with pytest.raises(CommandError, match="no name of a channel"):
        run("or ders", "--yes")
    client.delete(stream)
    client.set(stream, "in the way")
    with pytest.raises(CommandError, match="WRONGTYPE"):
        run("orders", "--yes")
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": "memory://"}
    with pytest.raises(CommandError, match="keeps nothing"):
        run("orders", "--yes")
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": "nonsense"}
    with pytest.raises(CommandError, match="LOCATION"):
        run("orders", "--yes")


def test_every_outbox_of_the_service_is_purged_and_nothing_comes_back(stream: str, client: redis.Redis) -> None:
    entry_id = client.xadd(stream, {"event": b"5"}).decode()
    row(5, *map(int, entry_id.split("-")), using="other")
    healer = Healer("other")
    healer.poll()
    assert run("orders", "--dry-run") == "5 outbox rows and 5 entries would be removed.\n"
    assert run("orders", "--yes") == "5 outbox rows and 5 entries removed.\n"
    client.delete(stream)
    healer.poll()
    healer.close()
    assert client.xlen(stream) == 0


def test_a_database_without_an_outbox_is_no_obstacle(stream: str, settings: Any) -> None:
    settings.DATABASE_ROUTERS = ["tests.test_purging.OnlyOther"]
    assert run("orders", "--dry-run") == "0 outbox rows and 4 entries would be removed.\n"


class OnlyOther:
    """Lets the tables of redis_events be in one database."""

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool:
        return db == "other"


def test_an_outbox_that_is_away_keeps_a_channel_from_being_emptied(
    stream: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would come back."""
    connections["other"].close()
    with monkeypatch.context() as patch:
        patch.setitem(connections["other"].settings_dict, "NAME", "/nowhere/at-all")
        with pytest.raises(CommandError, match="unable to open"):
            run("orders", "--yes")
    assert client.xlen(stream) == 4


def test_one_outbox_can_be_chosen_on_postgresql_too(stream: str, postgres_alias: str) -> None:
    OutboxEvent.objects.using(postgres_alias).create(
        channel="orders", event_id="1", type="t", key="", body=b"1", created_at=now()
    )
    assert run("orders", "--yes", "--database", postgres_alias) == "1 outbox row and 4 entries removed.\n"
