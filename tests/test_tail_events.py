"""`manage.py tail_events`: what comes is shown as it comes, once, also across a lost connection."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from redis_events.management.tailing import Line
from tests.processes import Process, Project
from tests.servers import Server, free_port, wait_for

STREAM = {"orders": {"TRANSPORT": "stream"}}
PUBLISH = """
from redis_events import publish
for number in range({start}, {end}):
    publish("orders", {{"id": number}}, type="shop.order.paid", key=number, strict=True)
"""


@pytest.fixture
def shop(project: Project) -> Project:
    """A service with a stream, announced."""
    project.settings = {"CHANNELS": STREAM}
    publish(project, 0, 3)
    return project


def publish(project: Project, start: int, end: int) -> None:
    project.shell(PUBLISH.format(start=start, end=end))


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def say(client: redis.Redis, prefix: str) -> Callable[[str, str], int]:
    """Publish a bare text on pub/sub; returns how many heard it."""
    return lambda channel, text: int(client.publish(f"{prefix}:{channel}", text))


def heard(say: Callable[[str, str], int], process: Process, channel: str, text: str) -> None:
    """Say it until the tail, which is subscribed at some moment from now on, shows it."""
    wait_for(lambda: say(channel, text), timeout=20)
    process.wait_for_line(text)


def ended(process: Process, code: int = 0) -> None:
    assert process.wait(30) == code, process.output
    assert "Traceback" not in process.output


def test_streams_and_pubsub_are_shown_as_they_come_and_ctrl_c_says_how_many(
    shop: Project, say: Callable[[str, str], int]
) -> None:
    tail = shop.manage("tail_events", "orders", "live.*")
    heard(say, tail, "live.chat", "Hello there")
    publish(shop, 3, 4)
    line = tail.wait_for_line("shop.order.paid")
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3}  orders  shop\.order\.paid  3  \w{8}…\w{4}  \{"id": 3\}', line.string
    ), line.string
    tail.terminate(signal.SIGINT)
    ended(tail)
    assert tail.lines[-1] == "2 events"


def test_since_shows_what_streams_have_oldest_first_and_goes_on(shop: Project) -> None:
    tail = shop.manage("tail_events", "ord*", "--since", "2020-01-01", "--limit", "4", "--format", "json")
    tail.wait_for_line('"id": 2')
    publish(shop, 3, 4)
    ended(tail)
    lines = [json.loads(line) for line in tail.lines]
    assert [each["data"]["id"] for each in lines] == [0, 1, 2, 3]
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo
    assert lines[0].keys() == {"time", "channel", "type", "key", "id", "source", "data"}


def test_only_what_has_the_text_is_shown_and_its_data_only_if_wanted(shop: Project) -> None:
    arguments = ("orders", "--since", "2020-01-01", "--filter", '"ID": 1', "--limit", "1")
    tail = shop.manage("tail_events", *arguments, "--no-data")
    ended(tail)
    (line,) = tail.lines
    assert "  1  " in line
    assert "{" not in line


def test_control_characters_stay_text(shop: Project, say: Callable[[str, str], int]) -> None:
    tail = shop.manage("tail_events", "chat", "--limit", "2")
    heard(say, tail, "chat", "one")
    say("chat", "\x1b[2Jtwo\nthree\u202e")
    ended(tail)
    assert tail.lines[-1].endswith(r"  \x1b[2Jtwo three\x202e")


def test_messages_of_our_own_are_nobodys_events(shop: Project, say: Callable[[str, str], int]) -> None:
    tail = shop.manage("tail_events", "*", "--limit", "2")
    heard(say, tail, "chat", "one")
    say("redis-events:wake:shop", "x")
    say("chat", "two")
    ended(tail)
    assert "wake" not in tail.output


# ------------------------------------------------------------------ the connection


def test_a_lost_connection_is_made_again_says_how_long_it_was_and_streams_lose_nothing(
    make_project: Callable[..., Project], tmp_path: Any
) -> None:
    with Server(aof=True) as server:
        project = make_project(location=server.url)
        project.settings = {"CHANNELS": STREAM}
        publish(project, 0, 1)
        tail = project.manage("tail_events", "orders", "--format", "json")
        wait_until_watching(server, tail)
        publish(project, 1, 2)
        tail.wait_for_line('"id": 1')
        server.kill()
        tail.wait_for_line("connection lost, trying again: .*127.0.0.1")
        tail.terminate(signal.SIGSTOP)
        server.start()
        publish(project, 2, 3)
        tail.terminate(signal.SIGCONT)
        tail.wait_for_line(r"connected again after \d+(\.\d)? s", timeout=20)
        tail.wait_for_line('"id": 2')
        publish(project, 3, 4)
        tail.wait_for_line('"id": 3')
        tail.terminate(signal.SIGINT)
        ended(tail)
    shown = [json.loads(line)["data"]["id"] for line in tail.lines if line.startswith("{")]
    assert shown == [1, 2, 3]
    assert tail.lines[-1] == "3 events"


def wait_until_watching(server: Server, tail: Process) -> None:
    with server.client() as client:
        wait_for(
            lambda: any(each["cmd"] == "xread" for each in client.client_list()), timeout=20, what="the tail to read"
        )


def test_who_cannot_begin_ends_with_4(make_project: Callable[..., Project]) -> None:
    tail = make_project(location=f"redis://127.0.0.1:{free_port()}/0").manage("tail_events", "orders")
    ended(tail, 4)
    assert "connection refused" in tail.output
    assert len(tail.lines) == 1


def test_a_wrong_password_ends_with_4(make_project: Callable[..., Project]) -> None:
    with Server(password="right") as server:
        tail = make_project(location=f"redis://:wrong-one@127.0.0.1:{server.port}/0").manage("tail_events", "orders")
        ended(tail, 4)
    assert "wrong-one" not in tail.output


def test_what_stays_in_a_process_cannot_be_watched_from_another(make_project: Callable[..., Project]) -> None:
    ended(make_project(location="memory://").manage("tail_events", "orders"), 2)


# ------------------------------------------------------------------ a line


def line(**changes: Any) -> Line:
    whole = {
        "time": datetime.now(UTC),
        "channel": "orders",
        "type": "shop.order.paid",
        "key": "7",
        "id": "01a20575-0000-7000-8000-00000000bf00",
        "source": "shop",
        "data": {"note": "x" * 500},
    }
    return Line(**(whole | changes))


def test_a_line_is_as_wide_as_the_terminal_and_says_that_it_was_cut() -> None:
    text = line().text(width=80)
    assert len(text) == 80
    assert text.endswith("xxx…")
    assert not line(data={}).text(width=80).endswith("…")


def test_what_an_event_does_not_have_takes_no_room() -> None:
    text = line(type="", key="", data="Hello").text(width=80)
    assert re.fullmatch(r"\S+  orders  01a20575…bf00  Hello", text)


def test_another_day_is_named() -> None:
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:", line(time=datetime.now(UTC) - timedelta(days=2)).text(width=80))
