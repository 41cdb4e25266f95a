"""`manage.py listen_events` as operators meet it: what it says, what it does with signals, how it exits."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.processes import Process, Project
from tests.proxy import Proxy
from tests.servers import Server, black_hole, free_port, wait_for

RECEIVERS = """
import os, time
from pathlib import Path
from redis_events import Event, Reject, Retry, RetryLater, receives

def note(text):
    with open("heard", "a") as file:
        file.write(f"{text}\\n")

@receives("hello")
def hear(event):
    note(event.data)

@receives("slow")
def dawdle(event):
    note("began")
    time.sleep(float(event.data))
    note("finished")

@receives("broken")
def fail(event):
    raise ValueError("no such thing")

@receives("broken")
def go_on(event):
    note("went on")

@receives("live.*")
async def push(event):
    note(f"async {event.data}")
"""

DEAD_LETTERS = """
from redis_events.models import DeadLetter
print([(each.receiver, bytes(each.raw)) for each in DeadLetter.objects.order_by("id")])
"""

Start = Callable[..., Process]


@pytest.fixture
def service(project: Project) -> Project:
    project.write("receivers.py", RECEIVERS)
    return project


@pytest.fixture
def listen(service: Project) -> Start:
    """Start a listener and wait until it says that it listens."""

    def start(*arguments: str, **env: str) -> Process:
        process = service.manage("listen_events", *arguments, **env)
        process.wait_for_line(r"Listening on ", timeout=20)
        return process

    return start


@pytest.fixture
def say(server: Server, prefix: str) -> Iterator[Callable[[str, str | bytes], int]]:
    """Publish bare bytes, as any Redis client does; returns how many heard it."""
    with server.client() as client:
        yield lambda channel, body: int(client.publish(f"{prefix}:{channel}", body))


def heard(project: Project) -> list[str]:
    file = project.folder / "heard"
    return file.read_text().splitlines() if file.exists() else []


def wait_until_heard(project: Project, *lines: str, timeout: float = 5.0) -> None:
    wait_for(lambda: heard(project)[-len(lines) :] == list(lines), timeout=timeout, what=f"{lines} to be heard")


# ------------------------------------------------------------------ the start


def test_listening_is_said_when_the_server_knows_every_subscription_and_not_before(
    listen: Start, say: Callable[..., int], service: Project
) -> None:
    listen()
    assert [say(channel, "x") for channel in ("hello", "live.a", "nobody")] == [1, 1, 0]


def test_the_first_lines_say_who_listens_to_what_and_where(listen: Start, prefix: str) -> None:
    process = listen()
    title, header, *rows, last = process.lines[: process.lines.index(process.find("Listening on.*").string) + 1]  # type: ignore[union-attr]
    assert re.match(r"redis_events \S+ · shop · (Valkey|Redis) [\d.]+ redis://127\.0\.0\.1:\d+/0 · Django", title)
    assert header.split() == ["CHANNEL", "TYPES", "RECEIVER", "MODE", "RETRY"]
    assert [row.split()[0] for row in rows] == ["hello", "slow", "broken", "broken", "live.*"]
    assert "app.receivers.push" in rows[-1]
    assert "async" in rows[-1]
    assert last == "Listening on 3 channels, 1 pattern with 5 receivers. Ctrl+C to stop."


def test_a_server_that_is_slow_to_confirm_delays_the_line(service: Project, server: Server) -> None:
    with Proxy(server) as proxy:
        proxy.black_hole()
        process = service.manage("listen_events", TEST_LOCATION=proxy.url)
        wait_for(lambda: proxy.connections, what="the listener to connect", timeout=20)
        assert not process.find("Listening")
        proxy.heal()
        process.wait_for_line("Listening on ", timeout=10)


def test_only_the_named_channels_are_listened_to(listen: Start, say: Callable[..., int]) -> None:
    listen("--channels", "hel*", "slow")
    assert [say(channel, "0") for channel in ("hello", "slow", "broken", "live.a")] == [1, 1, 0, 0]


def test_a_dry_run_shows_the_table_and_needs_no_server(service: Project) -> None:
    process = service.manage("listen_events", "--dry-run", TEST_LOCATION=f"redis://127.0.0.1:{free_port()}/0")
    assert process.wait(20) == 0, process.output
    assert process.find("app.receivers.dawdle")
    assert not process.find("Listening")


# ------------------------------------------------------------------ exit codes


def test_nothing_to_listen_to_says_where_receivers_are_looked_for_and_exits_3(project: Project) -> None:
    process = project.manage("listen_events")
    assert process.wait(20) == 3
    assert "receivers.py" in process.output
    assert "INSTALLED_APPS" in process.output


def test_channels_that_match_no_receiver_are_said_and_exit_3(service: Project) -> None:
    process = service.manage("listen_events", "--channels", "helo")
    assert process.wait(20) == 3
    assert "helo" in process.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-events", "many"],
        ["--max-events", "0"],
        ["--max-time", "nan"],
        ["--no-such-flag"],
        ["--log-format", "xml"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], service: Project) -> None:
    process = service.manage("listen_events", *arguments)
    assert process.wait(20) == 2
    assert "usage" in process.output


def test_a_wrong_password_exits_4_within_six_seconds_in_few_lines_without_the_password(service: Project) -> None:
    with Server(password="hunter2") as guarded:
        began = time.monotonic()
        process = service.manage("listen_events", TEST_LOCATION=guarded.url.replace("hunter2", "hunter3"))
        assert process.wait(20) == 4
    assert time.monotonic() - began < 6
    assert_short_and_clean(process)
    assert "password" in process.output


def test_a_missing_password_exits_4(service: Project) -> None:
    with Server(password="hunter2") as guarded:
        process = service.manage("listen_events", TEST_LOCATION=f"redis://127.0.0.1:{guarded.port}/0")
        assert process.wait(20) == 4
    assert_short_and_clean(process)
    assert "NOAUTH" in process.output or "Authentication" in process.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_server_that_is_not_there_exits_4_after_five_seconds(kind: str, service: Project) -> None:
    with black_hole() as port:
        location = f"redis://:hunter2@127.0.0.1:{free_port() if kind == 'refused' else port}/0"
        began = time.monotonic()
        process = service.manage("listen_events", TEST_LOCATION=location)
        assert process.wait(20) == 4
    assert 3 < time.monotonic() - began < 8
    assert_short_and_clean(process)


def assert_short_and_clean(process: Process) -> None:
    assert len(process.lines) <= 8, process.output
    assert "Traceback" not in process.output
    assert "hunter" not in process.output


@pytest.mark.slow
def test_a_server_that_comes_up_in_time_is_listened_to(service: Project) -> None:
    with Server() as own:
        own.kill()
        process = service.manage("listen_events", TEST_LOCATION=own.url)
        wait_for(lambda: own.start(), what="the server")
        process.wait_for_line("Listening on ", timeout=10)


def test_check_errors_exit_5_and_are_shown(service: Project) -> None:
    service.write("events.py", "from redis_events import receives\n@receives('x')\ndef takes_nothing(): ...\n")
    process = service.manage("listen_events")
    assert process.wait(20) == 5, process.output
    assert "redis_events.E002" in process.output
    assert "Traceback" not in process.output


def test_a_wrong_setting_exits_5_and_suggests_the_right_one(service: Project) -> None:
    service.settings = {"CHANNELZ": {}}
    process = service.manage("listen_events")
    assert process.wait(20) == 5, process.output
    assert "CHANNELS" in process.output
    assert "Traceback" not in process.output


def test_max_events_exits_75_once_that_many_are_settled(
    listen: Start, say: Callable[..., int], service: Project
) -> None:
    process = listen("--max-events", "3")
    for number in range(3):
        say("hello", str(number))
    assert process.wait(10) == 75
    assert heard(service) == ["0", "1", "2"]


def test_max_time_exits_75(listen: Start) -> None:
    began = time.monotonic()
    process = listen("--max-time", "1.5")
    assert process.wait(10) == 75
    assert time.monotonic() - began < 6


def test_drain_exits_0_when_there_is_nothing(service: Project) -> None:
    process = service.manage("listen_events", "--drain")
    assert process.wait(20) == 0, process.output


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_idle_it_ends_within_a_second_with_0(number: signal.Signals, listen: Start) -> None:
    process = listen()
    began = time.monotonic()
    process.terminate(number)
    assert process.wait(10) == 0
    assert time.monotonic() - began < 1.0
    assert re.match(r"stopped\. 0 done · 0 retry · 0 dead · 0 abandoned · 00:00:\d\d", process.lines[-1])


def test_busy_it_finishes_the_receiver_first(listen: Start, say: Callable[..., int], service: Project) -> None:
    process = listen()
    say("slow", "1.0")
    wait_until_heard(service, "began")
    process.terminate()
    assert process.wait(10) == 0
    assert heard(service) == ["began", "finished"]
    assert process.find(r"stopping: 1 in flight, up to \S+ s \(again to abort\)")
    assert process.find(r"stopped\. 1 done · 0 retry · 0 dead · 0 abandoned")


def test_a_second_signal_aborts_with_6(listen: Start, say: Callable[..., int], service: Project) -> None:
    process = listen()
    say("slow", "60")
    wait_until_heard(service, "began")
    process.terminate()
    process.wait_for_line("stopping: 1 in flight")
    process.terminate()
    began = time.monotonic()
    assert process.wait(10) == 6
    assert time.monotonic() - began < 1.0
    assert process.find(r"1 abandoned")


def test_work_that_outlasts_the_grace_is_abandoned_with_6(
    listen: Start, say: Callable[..., int], service: Project
) -> None:
    service.settings = {"GRACE": 0.5}
    process = listen()
    say("slow", "60")
    wait_until_heard(service, "began")
    began = time.monotonic()
    process.terminate()
    assert process.wait(10) == 6
    assert 0.4 < time.monotonic() - began < 1.5
    assert "Traceback" not in process.output


def test_asked_to_stop_while_the_server_is_away_it_ends_within_a_second(service: Project) -> None:
    with Server() as own:
        process = service.manage("listen_events", TEST_LOCATION=own.url)
        process.wait_for_line("Listening on ", timeout=20)
        own.kill()
        process.wait_for_line("connection lost")
        began = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 1.5


def test_asked_to_stop_before_it_listens_it_ends_with_0(service: Project) -> None:
    with black_hole() as port:
        process = service.manage("listen_events", TEST_LOCATION=f"redis://127.0.0.1:{port}/0", PYTHONFAULTHANDLER="1")
        wait_for(lambda: _catches(process.pid, signal.SIGTERM), what="the signals to be caught", timeout=20)
        process.terminate()
        assert process.wait(10) == 0, process.output


def _catches(pid: int, number: signal.Signals) -> bool:
    with open(f"/proc/{pid}/status") as status:
        caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
    return bool(caught >> (number - 1) & 1)


# ------------------------------------------------------------------ lines


def test_a_failing_receiver_is_one_line_a_dead_letter_and_stops_nobody(
    listen: Start, say: Callable[..., int], service: Project
) -> None:
    process = listen()
    say("broken", "x")
    say("hello", "after")
    wait_until_heard(service, "went on", "after")
    line = process.wait_for_line(r"dead .*").group()
    assert re.search(r"→ app\.receivers\.fail  after 1 run  ValueError: no such thing \(receivers\.py:\d+\)", line)
    assert "Traceback" not in process.output
    dead = (
        "from redis_events.models import DeadLetter as D; print([(d.receiver, bytes(d.raw)) for d in D.objects.all()])"
    )
    assert service.shell(dead) == "[('app.receivers.fail', b'x')]"


def test_nobody_is_told_of_each_done_run_unless_asked(listen: Start, say: Callable[..., int], service: Project) -> None:
    quiet, talkative = listen(), listen("-v", "2")
    say("hello", "x")
    talkative.wait_for_line(r"done   hello \S+ → app\.receivers\.hear  \d+ ms")
    wait_until_heard(service, "x", "x")
    assert not quiet.find("done  ")


def test_a_flood_is_summed_up(listen: Start, say: Callable[..., int], service: Project) -> None:
    process = listen("-v", "2")
    for number in range(500):
        say("hello", str(number))
    wait_for(lambda: len(heard(service)) == 500, what="all of them")
    process.terminate()
    assert process.wait(10) == 0
    shown = [line for line in process.lines if " done   " in line]
    summed = [int(found.group(1)) for line in process.lines if (found := re.search(r"… (\d+) more done", line))]
    assert len(shown) + sum(summed) == 500
    assert len(shown) <= 60


def test_json_lines_are_json_from_the_first_to_the_last(
    listen: Start, say: Callable[..., int], service: Project
) -> None:
    process = listen("--log-format", "json", "-v", "2")
    say("broken", "x")
    say("hello", "x")
    wait_until_heard(service, "x")
    process.terminate()
    assert process.wait(10) == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in process.lines]
    assert all({"time", "message"} <= set(line) for line in lines)
    assert lines[0]["event"] == "started"
    assert any(line.get("event") == "listening" for line in lines)
    dead = next(line for line in lines if line.get("outcome") == "dead")
    assert dead["receiver"] == "app.receivers.fail"
    assert any(line.get("outcome") == "done" and line["receiver"] == "app.receivers.hear" for line in lines)


def test_the_projects_own_logging_is_left_alone(service: Project, say: Callable[..., int]) -> None:
    """Loggers have no handlers of ours when the project configured them."""
    service.write(
        "settings.py",
        "from tests.settings import *\n"
        "LOGGING = {'version': 1, 'disable_existing_loggers': False,\n"
        "  'formatters': {'own': {'format': 'OWN %(name)s %(message)s'}},\n"
        "  'handlers': {'own': {'class': 'logging.StreamHandler', 'formatter': 'own'}},\n"
        "  'loggers': {'redis_events': {'handlers': ['own'], 'level': 'INFO'}}}\n",
    )
    process = service.manage("listen_events", DJANGO_SETTINGS_MODULE="app.settings")
    process.wait_for_line("Listening on ", timeout=20)
    say("broken", "x")
    process.wait_for_line("OWN redis_events.listen dead")
    process.terminate()
    assert process.wait(10) == 0
    assert len([line for line in process.lines if "dead  " in line]) == 1


def test_names_from_the_wire_cannot_forge_a_line(
    listen: Start, say: Callable[..., int], service: Project, server: Server, prefix: str
) -> None:
    service.write(
        "receivers.py", RECEIVERS + "\n@receives('live.*')\ndef fail_too(event): raise ValueError(event.data)"
    )
    process = listen("-v", "2")
    with server.client() as client:
        client.publish(f"{prefix}:live.\nstopped. forged \x1b[31m", "said\nforged \x1b[31m\u202e")
    process.wait_for_line("dead ")
    wait_until_heard(service, "forged \x1b[31m\u202e")
    process.terminate()
    assert process.wait(10) == 0
    assert not [line for line in process.lines if line.startswith(("stopped. forged", "forged"))]
    assert "\x1b" not in process.output
    assert "\u202e" not in process.output


# ------------------------------------------------------------------ without tables


def test_without_migrate_it_says_so_once_and_runs_receivers_all_the_same(
    make_project: Callable[..., Project], say: Callable[..., int]
) -> None:
    project = make_project("without-tables")
    project.write("receivers.py", RECEIVERS)
    process = project.manage("listen_events")
    process.wait_for_line("Listening on ", timeout=20)
    for _ in range(3):
        say("broken", "x")
    say("hello", "good")
    wait_until_heard(project, "went on", "good")
    wait_for(lambda: sum("dead  " in line for line in process.lines) == 3, what="each failure to be logged")
    assert len([line for line in process.lines if "migrate" in line]) <= 2, process.output
    assert "Traceback" not in process.output
    process.terminate()
    assert process.wait(10) == 0


# ------------------------------------------------------------------ asked through Redis


def test_a_listener_asked_to_stop_through_redis_says_by_whom_finishes_and_exits_0(
    listen: Start, say: Callable[..., int], service: Project, server: Server, prefix: str
) -> None:
    process, other = listen(), listen()
    say("slow", "2.5")
    wait_until_heard(service, "began", "began")
    ask_to_stop(process, server, prefix)
    assert process.wait(15) == 0
    assert process.find("asked to stop by ann")
    assert process.find(r"stopping: 1 in flight, up to \S+ s \(Ctrl\+C twice to abort\)")
    assert process.find("0 abandoned"), "it is asked at each beat and heard once: a second signal would abandon"
    assert other.returncode is None


def ask_to_stop(process: Process, server: Server, prefix: str) -> None:
    with server.client() as client:
        ids = [id.decode() for id in client.zrange(f"{prefix}:redis-events:listeners", 0, -1)]
        (id,) = [id for id in ids if id.split(":")[1] == str(process.pid)]
        client.set(f"{prefix}:redis-events:stop:{id}", "ann", ex=60)


@pytest.mark.parametrize(
    ("signals", "code", "said"),
    [([signal.SIGTERM], 0, "0 abandoned"), ([signal.SIGTERM, signal.SIGINT], 6, "1 abandoned")],
    ids=["one", "two"],
)
def test_a_signal_after_somebody_has_asked_is_the_first_and_the_next_one_aborts(
    listen: Start, say: Callable[..., int], service: Project, server: Server, prefix: str,
    signals: list[signal.Signals], code: int, said: str,
) -> None:  # fmt: skip
    """An operator stops a listener in the admin, and its supervisor ends it in the same moment."""
    process = listen()
    say("slow", "3")
    wait_until_heard(service, "began")
    ask_to_stop(process, server, prefix)
    process.wait_for_line("stopping: 1 in flight")
    for number in signals:
        process.terminate(number)
    assert process.wait(15) == code, process.output
    assert process.find(said)
