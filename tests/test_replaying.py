"""Dead letters and old events handed to a receiver again: each once, however often the replay is broken off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from django.db import connection

from redis_events import Event, Reject, receives
from redis_events.events import now
from redis_events.exceptions import ReplayError
from redis_events.models import ChannelState, HeldDelivery
from redis_events.registry import Receiver, all_receivers
from redis_events.replaying import Replay
from redis_events.retrying import Retrier
from tests.listeners import delivery, document, listener
from tests.processes import Process, Project
from tests.servers import Server, free_port

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("declared"),
]

State = HeldDelivery.State


class Heard:
    """Rejects what comes while it is ``broken``; notes every run."""

    def __init__(self) -> None:
        self.broken = True
        self.runs: list[tuple[Any, int, bool]] = []

    def hear(self, event: Event[Any]) -> None:
        if self.broken:
            raise Reject("not now")
        self.runs.append((event.data, event.attempt, event.replayed))


def declare(name: str = "app.hear", channel: str = "orders", **options: Any) -> tuple[Heard, Receiver]:
    heard = Heard()
    receives(channel, name=name, **options)(heard.hear)
    return heard, next(each for each in all_receivers() if each.name == name)


def die(receiver: Receiver, *data: Any) -> None:
    """Dead letters of a receiver, one for each of the data."""
    listener(receiver).process([delivery(document(each, id=f"event-{each}")) for each in data])
    assert HeldDelivery.objects.filter(receiver=receiver.name, state=State.DEAD).count() == len(data)


def states() -> list[tuple[str, str, int]]:
    return [(row.event_id, row.state, row.attempt) for row in HeldDelivery.objects.order_by("id")]


# ------------------------------------------------------------------ dead letters


def test_a_dead_letter_by_its_event_id_is_run_once_more_as_a_first_run_that_knows_it_is_replayed() -> None:
    heard, receiver = declare()
    die(receiver, 1, 2)
    heard.broken = False
    replay = Replay()
    replay.dead_letters(ids=["event-2"])
    row = HeldDelivery.objects.get(event_id="event-2")
    assert (row.state, row.attempt, row.reason) == (State.WAITING, 0, "not now")
    assert Retrier([receiver]).run_due() == 1
    assert heard.runs == [(2, 1, True)]
    assert states() == [("event-1", State.DEAD, 1)]
    assert replay.replayed == {("app.hear", "orders", "shop.order.paid"): 1}


def test_dead_letters_are_found_by_row_fingerprint_and_receiver() -> None:
    _, first = declare("app.first")
    _, second = declare("app.second")
    die(first, 1, 2)
    die(second, 3)
    rows = {row.event_id: row for row in HeldDelivery.objects.all()}
    for wanted, found in (
        ({"ids": [str(rows["event-1"].pk)]}, ["event-1"]),
        ({"fingerprint": rows["event-2"].fingerprint}, ["event-1", "event-2"]),
        ({"receiver": "app.second"}, ["event-3"]),
        ({"receiver": "app.second", "ids": ["event-1"]}, []),
    ):
        Replay().dead_letters(**wanted)  # type: ignore[arg-type]
        again = HeldDelivery.objects.filter(state=State.WAITING)
        assert sorted(again.values_list("event_id", flat=True)) == found
        again.update(state=State.DEAD, due=None)


def test_a_replay_that_fails_is_dead_again_and_can_be_replayed_again() -> None:
    _, receiver = declare()
    die(receiver, 1)
    for _ in range(2):
        Replay().dead_letters(receiver="app.hear")
        assert Retrier([receiver]).run_due() == 1
        assert states() == [("event-1", State.DEAD, 1)]


def test_a_dry_run_counts_and_changes_nothing() -> None:
    _, receiver = declare()
    die(receiver, 1, 2)
    before = list(HeldDelivery.objects.order_by("pk").values())
    replay = Replay(dry_run=True)
    replay.dead_letters(receiver="app.hear")
    assert replay.replayed.total() == 2
    assert list(HeldDelivery.objects.order_by("pk").values()) == before


def test_with_a_rate_they_become_due_one_after_the_other() -> None:
    _, receiver = declare()
    die(receiver, *range(6))
    began = now()
    Replay(rate=2).dead_letters(receiver="app.hear")
    due = sorted(row.due for row in HeldDelivery.objects.all() if row.due)
    assert [round((each - began).total_seconds()) for each in due] == [0, 0, 1, 1, 2, 2]


def test_what_no_code_here_receives_is_left_and_counted() -> None:
    _, receiver = declare()
    die(receiver, 1)
    listener(receiver).process([delivery(b"\xff")])
    HeldDelivery.objects.filter(event_id="event-1").update(receiver="app.gone")
    quarantined = HeldDelivery.objects.get(receiver="")
    replay = Replay()
    replay.dead_letters(ids=["event-1", str(quarantined.pk)])
    assert replay.left == {"no event": 1, "no receiver of that name here": 1}
    assert set(HeldDelivery.objects.values_list("state", flat=True)) == {State.DEAD}


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Somebody acts just before the rows that were found are made waiting."""
    acted = []

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE") and not acted:
            acted.append(sql)
            act()
        return run(sql, *rest)

    with connection.execute_wrapper(execute):
        yield
    assert acted


def test_what_somebody_discards_or_replays_meanwhile_is_left_and_not_told_as_replayed() -> None:
    _, receiver = declare()
    die(receiver, 1, 2, 3)
    HeldDelivery.objects.filter(event_id="event-1").update(type="shop.order.gone")

    def act() -> None:
        HeldDelivery.objects.filter(event_id="event-1").delete()
        HeldDelivery.objects.filter(event_id="event-2").update(state=State.WAITING, due=now())

    replay = Replay()
    with meanwhile(act):
        replay.dead_letters(receiver="app.hear")
    assert replay.replayed == {("app.hear", "orders", "shop.order.paid"): 1}
    assert replay.left == {"not dead any more": 2}
    assert [id for id, state, _attempt in states() if state == State.WAITING] == ["event-2", "event-3"]


def test_the_id_of_a_row_that_is_one_in_two_databases_is_asked_back() -> None:
    _, here = declare("app.here")
    _, there = declare("app.there", using="other")
    die(here, 1)
    listener(there).process([delivery(document(2, id="event-2"))])
    row = HeldDelivery.objects.get()
    HeldDelivery.objects.using("other").update(id=row.pk)
    with pytest.raises(ReplayError, match="default, other"):
        Replay().dead_letters(ids=[str(row.pk)])
    Replay().dead_letters(ids=[str(row.pk)], receiver="app.there")
    assert HeldDelivery.objects.using("other").get().state == State.WAITING
    assert HeldDelivery.objects.get().state == State.DEAD


# ------------------------------------------------------------------ old events


@pytest.fixture
def client(server: Server) -> redis.Redis:
    return server.client()


@pytest.fixture
def on_stream(events_settings: dict[str, Any], settings: Any, prefix: str) -> str:
    """The channel `orders` as a stream; its key on the server."""
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    return f"{prefix}:orders"


def at(seconds: float) -> datetime:
    """A moment: so many seconds after 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def sent(client: redis.Redis, key: str, *types: str) -> None:
    """Events on a stream, one a second from second 1 on; the data is the second."""
    for second, type in enumerate(types, start=1):
        client.xadd(key, {"event": document(second, id=f"event-{second}", type=type)}, id=f"{second * 1000}-0")


def replay_all(receiver: str = "app.hear") -> Replay:
    replay = Replay()
    replay.old_events(receiver, since=at(0), until=at(100))
    return replay


def test_old_events_of_a_time_and_type_reach_one_receiver_and_the_group_stays_where_it_is(
    on_stream: str, client: redis.Redis
) -> None:
    heard, receiver = declare()
    other, bystander = declare("app.other")
    heard.broken = other.broken = False
    client.xgroup_create(on_stream, "shop", "0", mkstream=True)
    sent(client, on_stream, "a.paid", "a.paid", "a.lost", "a.paid", "a.paid")
    before = client.xinfo_groups(on_stream)
    Replay().old_events("app.hear", since=at(2), until=at(4), types=["*.paid"])
    assert Retrier([receiver, bystander]).run_due() == 2
    assert heard.runs == [(2, 1, True), (4, 1, True)]
    assert other.runs == []
    assert client.xinfo_groups(on_stream) == before


def test_a_receiver_gets_no_types_it_does_not_receive_and_junk_is_left(on_stream: str, client: redis.Redis) -> None:
    declare(types="a.paid")
    sent(client, on_stream, "a.paid", "a.lost")
    client.xadd(on_stream, {"event": b"junk"}, id="3000-0")
    replay = replay_all()
    assert replay.replayed == {("app.hear", "orders", "a.paid"): 1}
    assert replay.left == {"no event": 1}
    assert states() == [("event-1", State.WAITING, 0)]


def test_a_pattern_receiver_gets_the_old_events_of_every_stream_it_covers(
    on_stream: str, client: redis.Redis, settings: Any, prefix: str
) -> None:
    channels = {name: {"TRANSPORT": "stream"} for name in ("orders", "orders.eu")} | {"orders.live": {}}
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "CHANNELS": channels}
    declare(channel="orders*")
    sent(client, on_stream, "a.paid")
    client.xadd(f"{prefix}:orders.eu", {"event": document(9, id="event-9")}, id="1000-0")
    assert sorted(channel for _, channel, _ in replay_all().replayed) == ["orders", "orders.eu"]


def test_what_waits_already_is_not_made_twice_and_what_was_dead_waits_again(
    on_stream: str, client: redis.Redis
) -> None:
    _, receiver = declare()
    die(receiver, 1)
    sent(client, on_stream, "a.paid", "a.paid")
    first, second = replay_all(), replay_all()
    assert (first.replayed.total(), first.waiting) == (2, 0)
    assert (second.replayed.total(), second.waiting) == (0, 2)
    assert states() == [("event-1", State.WAITING, 0), ("event-2", State.WAITING, 0)]


def test_an_old_event_whose_dead_letter_goes_meanwhile_is_not_told_as_replayed(
    on_stream: str, client: redis.Redis
) -> None:
    _, receiver = declare()
    sent(client, on_stream, "a")
    replay_all()
    assert Retrier([receiver]).run_due() == 1
    replay = Replay()
    with meanwhile(HeldDelivery.objects.all().delete):
        replay.old_events("app.hear", since=at(0), until=at(9))
    assert (replay.replayed.total(), replay.left) == (0, {"not dead any more": 1})


def test_a_finished_replay_asked_for_again_is_a_new_one(on_stream: str, client: redis.Redis) -> None:
    heard, receiver = declare()
    heard.broken = False
    sent(client, on_stream, "a.paid")
    for _ in range(2):
        assert replay_all().replayed.total() == 1
        assert Retrier([receiver]).run_due() == 1
    assert [data for data, _, _ in heard.runs] == [1, 1]
    assert not ChannelState.objects.exists()


def test_a_dry_run_over_old_events_counts_and_changes_nothing(on_stream: str, client: redis.Redis) -> None:
    declare()
    sent(client, on_stream, "a.paid", "a.paid")
    replay = Replay(dry_run=True)
    replay.old_events("app.hear", since=at(0), until=at(100))
    assert replay.replayed.total() == 2
    assert not HeldDelivery.objects.exists()
    assert not ChannelState.objects.exists()


def test_a_channel_on_pub_sub_has_no_old_events(events_settings: dict[str, Any]) -> None:
    declare()
    with pytest.raises(ReplayError, match="'orders' is on no stream"):
        replay_all()


# ------------------------------------------------------------------ the command

RECEIVERS = """
from pathlib import Path
from redis_events import receives

@receives("orders")
def hear(event):
    with Path("heard").open("a") as file:
        print(event.data, event.replayed, file=file)
"""
KILLED = """
import os, sys, django
django.setup()
from django.core.management import execute_from_command_line
from redis_events.replaying import Replay

note, pages = Replay._note, []
def die_within_the_second_page(self, *arguments):
    note(self, *arguments)
    pages.append(1)
    if len(pages) == 2:
        os.kill(os.getpid(), 9)
Replay._note = die_within_the_second_page
execute_from_command_line(sys.argv)
"""
OLD = (
    "replay_events",
    "--receiver",
    "app.receivers.hear",
    "--since",
    "1970-01-01T00:00Z",
    "--until",
    "1970-01-02T00:00Z",
)


@pytest.fixture
def service(project: Project) -> Project:
    project.write("receivers.py", RECEIVERS)
    project.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    return project


def heard_in(service: Project) -> list[str]:
    file = service.folder / "heard"
    return file.read_text().splitlines() if file.exists() else []


def run_what_is_due(service: Project) -> None:
    """The retries of this service, and nothing of the stream."""
    code = "from redis_events.registry import all_receivers\nfrom redis_events.retrying import Retrier\n"
    service.shell(f"{code}while Retrier(all_receivers()).run_due(): pass", timeout=60)


@pytest.mark.slow
def test_a_replay_of_1000_killed_after_500_and_asked_for_again_gives_each_once(
    service: Project, server: Server, prefix: str
) -> None:
    with server.client() as client, client.pipeline() as pipeline:
        for number in range(1_000):
            pipeline.xadd(f"{prefix}:orders", {"event": document(number)}, id=f"{number + 1}-0")
        pipeline.execute()
    assert service.python("-c", KILLED, *OLD).wait(30) == -9
    run_what_is_due(service)
    assert len(heard_in(service)) == 500
    again = service.manage(*OLD)
    assert again.wait(30) == 0, again.output
    assert "500 events replayed" in again.output
    run_what_is_due(service)
    assert sorted(heard_in(service)) == sorted(f"{number} True" for number in range(1_000))


def test_the_result_is_a_table_or_json(service: Project, server: Server, prefix: str) -> None:
    with server.client() as client:
        client.xadd(f"{prefix}:orders", {"event": document(1, type="a.paid")}, id="1-0")
    shown = service.manage(*OLD, "--dry-run")
    assert shown.wait(20) == 0
    assert [line.split() for line in shown.lines[:2]] == [
        ["RECEIVER", "CHANNEL", "TYPE", "EVENTS"],
        ["app.receivers.hear", "orders", "a.paid", "1"],
    ]
    assert shown.lines[2] == "1 event would be replayed · 0 waiting already"
    as_json = service.manage(*OLD, "--format", "json")
    assert as_json.wait(20) == 0
    row = {"receiver": "app.receivers.hear", "channel": "orders", "type": "a.paid", "events": 1}
    assert json.loads(as_json.output) == {"replayed": 1, "waiting": 0, "left": {}, "dry_run": False, "rows": [row]}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--since", "1970-01-01"],
        ["--since", "yesterday", "--until", "1970-01-02", "--receiver", "app.receivers.hear"],
        ["--since", "1970-01-01", "--until", "1970-01-02", "--receiver", "app.receivers.here"],
        ["--since", "1970-01-01", "--until", "1970-01-02", "--receiver", "app.receivers.hear", "--dead", "1"],
        ["--dead", "1", "--rate", "0"],
        ["--dead", "99999"],
        ["--fingerprint", "nope"],
        ["--receiver", "app.receivers.here"],
        ["--receiver", "app.receivers.hear", "--fingerprint", ""],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], service: Project) -> None:
    process = service.manage("replay_events", *arguments)
    assert process.wait(20) == 2, process.output
    assert "Traceback" not in process.output


def test_a_server_that_is_away_exits_4_and_dead_letters_need_none(service: Project) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    assert service.manage(*OLD, TEST_LOCATION=nowhere).wait(20) == 4
    assert service.manage("replay_events", "--receiver", "app.receivers.hear", TEST_LOCATION=nowhere).wait(20) == 0


def test_without_tables_it_exits_5_and_says_migrate(make_project: Callable[..., Project]) -> None:
    project = make_project("without-tables")
    project.write("receivers.py", RECEIVERS)
    process: Process = project.manage("replay_events", "--dead", "1")
    assert process.wait(20) == 5
    assert "migrate" in process.output
    assert "Traceback" not in process.output
