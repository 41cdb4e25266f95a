"""What one listen_events process runs, and what it takes to bring it down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from redis_events.process import Options, Threads, chosen_receivers
from redis_events.registry import Receiver
from redis_events.routing import listening_plan
from tests.listeners import receiver
from tests.processes import Process, Project, open_descriptors
from tests.proxy import Proxy
from tests.servers import Server, wait_for

BROKEN_TRANSPORT = """
from redis_events.transports.memory import MemoryTransport

class Broken(MemoryTransport):
    def receive(self, *, limit, timeout):
        raise ZeroDivisionError("a bug of its own")
"""
RECEIVERS = """
import asyncio, sys, time
from redis_events import RetryLater, receives

def note(text):
    with open("heard", "a") as file:
        file.write(f"{text}\\n")

@receives("hello")
def hear(event):
    note(event.data)

@receives("exits")
def leave(event):
    sys.exit(7)

@receives("hangs")
async def hang(event):
    note("began")
    await asyncio.sleep(600)

@receives("hangs.later")
def hang_later(event):
    if event.attempt == 1:
        raise RetryLater(after=0)
    note("began")
    time.sleep(600)

@receives("fails.twice")
def fail_twice(event):
    if event.attempt < 3:
        raise RetryLater(after=0)
    note("done")
"""


def hear(event: Any) -> None: ...


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> Sequence[Receiver]:
    made = tuple(receiver(hear, channel, name=channel) for channel in ("shop.orders", "shop.carts", "live.*"))
    monkeypatch.setattr("redis_events.process.all_receivers", lambda: made)
    return made


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ((), ["shop.orders", "shop.carts", "live.*"]),
        (("shop.*",), ["shop.orders", "shop.carts"]),
        (("shop.carts", "live.*"), ["shop.carts", "live.*"]),
        (("shop.order",), []),
        (("*",), ["shop.orders", "shop.carts", "live.*"]),
    ],
    ids=repr,
)
def test_channels_choose_receivers(wanted: Sequence[str], chosen: list[str], receivers: Sequence[Receiver]) -> None:
    assert [each.channel for each in chosen_receivers(wanted)] == chosen


def test_receivers_are_listened_to_on_the_transport_of_their_channel(
    settings: Any, receivers: Sequence[Receiver]
) -> None:
    entry = {"TRANSPORT": "app.transports.Own"}
    settings.REDIS_EVENTS = {"LOCATION": "redis://localhost", "CHANNELS": {"shop.*": entry}}
    names = {name: [each.channel for each in found] for name, found in listening_plan(receivers, []).items()}
    assert names == {"app.transports.Own": ["shop.orders", "shop.carts"], "pubsub": ["live.*"]}


def test_a_thread_has_ended_by_the_time_the_bell_rings() -> None:
    """Whoever is woken looks once, and then not for a minute."""
    threads = Threads()
    seen: list[bool] = []
    threads.start("one", lambda: None, lambda: seen.append(threads.are_alive))
    wait_for(lambda: seen, what="the bell")
    assert seen == [False]


def test_options_are_what_the_command_takes() -> None:
    assert Options() == Options(channels=(), drain=False, max_events=None, max_time=None, dry_run=False)


# ------------------------------------------------------------------ real processes


@pytest.fixture
def service(project: Project) -> Project:
    project.write("receivers.py", RECEIVERS)
    return project


def listening(project: Project) -> Process:
    process = project.manage("listen_events")
    process.wait_for_line("Listening on ", timeout=20)
    return process


def heard(project: Project) -> list[str]:
    file = project.folder / "heard"
    return file.read_text().splitlines() if file.exists() else []


def test_a_bug_in_a_transport_ends_the_process_with_1_and_its_traceback(service: Project) -> None:
    """Unexpected is not hidden: a supervisor starts it anew."""
    service.write("transports.py", BROKEN_TRANSPORT)
    service.settings = {"CHANNELS": {"hello": {"TRANSPORT": "app.transports.Broken"}}}
    process = service.manage("listen_events")
    assert process.wait(20) == 1
    assert "ZeroDivisionError: a bug of its own" in process.output
    assert process.find("stopped. ")


def test_a_transport_that_does_not_exist_exits_5_without_a_traceback(service: Project) -> None:
    service.settings = {"CHANNELS": {"hello": {"TRANSPORT": "app.nowhere.Transport"}}}
    process = service.manage("listen_events")
    assert process.wait(20) == 5, process.output
    assert "app.nowhere.Transport" in process.output
    assert "Traceback" not in process.output


def test_sys_exit_in_a_receiver_is_its_own_failure_only(service: Project, server: Server, prefix: str) -> None:
    process = listening(service)
    with server.client() as client:
        client.publish(f"{prefix}:exits", "x")
        client.publish(f"{prefix}:hello", "after")
    wait_for(lambda: heard(service) == ["after"], what="the next event")
    process.wait_for_line("dead .* → app.receivers.leave  after 1 run  SystemExit: 7")
    process.terminate()
    assert process.wait(10) == 0


def test_an_async_receiver_that_hangs_is_abandoned_too(service: Project, server: Server, prefix: str) -> None:
    service.settings = {"GRACE": 0.5}
    process = listening(service)
    with server.client() as client:
        client.publish(f"{prefix}:hangs", "x")
    wait_for(lambda: heard(service) == ["began"], what="the receiver")
    process.terminate()
    assert process.wait(10) == 6
    assert process.find("1 abandoned")
    assert process.find(r"abandoned  hangs \S+ → app\.receivers\.hang  on hangs, in run 1$")


def test_a_retry_that_hangs_is_in_flight_waited_for_and_named(service: Project, server: Server, prefix: str) -> None:
    service.settings = {"GRACE": 0.5, "CHANNELS": {"hangs.later": {"TRANSPORT": "stream"}}}
    process = listening(service)
    publish = "from redis_events import publish; print(publish('hangs.later', 1, type='thing.done').id)"
    event_id = service.shell(publish).strip()
    wait_for(lambda: heard(service) == ["began"], what="the second run")
    look = "from redis_events import inspection; print([each.in_flight for each in inspection.listeners()])"
    wait_for(lambda: service.shell(look) == "[1]", what="a heartbeat that says so")
    process.terminate()
    process.wait_for_line("stopping: 1 in flight")
    assert process.wait(10) == 6
    name, last = process.lines[-2:]
    assert f"abandoned  thing.done {event_id} → app.receivers.hang_later  on hangs.later, in run 2" in name
    assert "1 abandoned" in last


def test_the_last_line_counts_retries_too(service: Project, server: Server, prefix: str) -> None:
    service.settings = {"CHANNELS": {"fails.twice": {"TRANSPORT": "stream"}}}
    process = listening(service)
    service.shell("from redis_events import publish; publish('fails.twice', 1, type='thing.done')")
    wait_for(lambda: heard(service) == ["done"], what="the third run")
    process.terminate()
    assert process.wait(10) == 0
    assert process.find(r"stopped\. 1 done · 2 retry · 0 dead · 0 abandoned"), process.output


def test_a_database_that_is_away_at_the_start_is_a_warning(service: Project, server: Server, prefix: str) -> None:
    service.database({"ENGINE": "django.db.backends.sqlite3", "NAME": str(service.folder / "no" / "such" / "folder")})
    process = listening(service)
    assert process.find("Warning: failures cannot be kept until the database is back: unable to open")
    with server.client() as client:
        client.publish(f"{prefix}:hello", "x")
    wait_for(lambda: heard(service) == ["x"], what="the event")
    assert "Traceback" not in process.output


@pytest.mark.slow
def test_fifty_lost_connections_leave_nothing_behind(service: Project, server: Server) -> None:
    """Descriptors and threads of the process are what they were."""
    service.settings = {"RECONNECT_MAX": 0.1}
    with Proxy(server) as proxy:
        service.env["TEST_LOCATION"] = proxy.url
        process = listening(service)

        def lose(times: int) -> tuple[int, int]:
            for _ in range(times):
                before = returns()
                proxy.cut(reset=True)
                wait_for(lambda before=before: returns() > before, what="the listener to be back")
            return open_descriptors(process.pid), _threads(process.pid)

        def returns() -> int:
            return sum("listening again" in line for line in list(process.lines))

        few, many = lose(3), lose(50)
        assert many == pytest.approx(few, abs=2), "the keeper may be between two connections; fifty would show"


def _threads(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads"))


def test_two_listeners_of_one_service_each_hear_everything_on_pubsub(
    service: Project, server: Server, prefix: str
) -> None:
    first, second = listening(service), listening(service)
    with server.client() as client:
        assert client.publish(f"{prefix}:hello", "x") == 2
    wait_for(lambda: heard(service) == ["x", "x"], what="both")
    for process in (first, second):
        process.terminate()
        assert process.wait(10) == 0


def test_a_killed_listener_is_replaced_and_misses_only_what_came_between(
    service: Project, server: Server, prefix: str
) -> None:
    process = listening(service)
    with server.client() as client:
        client.publish(f"{prefix}:hello", "before")
        wait_for(lambda: heard(service) == ["before"], what="the first")
        process.kill()
        client.publish(f"{prefix}:hello", "between")
        listening(service)
        client.publish(f"{prefix}:hello", "after")
    wait_for(lambda: heard(service) == ["before", "after"], what="the last")


def test_a_stream_without_tables_is_not_listened_to_and_pubsub_is(make_project: Any) -> None:
    """What fails on a stream is a row before it is settled; without tables nothing could ever be."""
    unmigrated = make_project("bare")
    unmigrated.write("receivers.py", RECEIVERS)
    unmigrated.settings = {"CHANNELS": {"hello": {"TRANSPORT": "stream"}}}
    refused = unmigrated.manage("listen_events")
    assert refused.wait(20) == 5
    assert refused.find("hello is a stream, and the tables of redis_events are missing: run `manage.py migrate`")
    unmigrated.settings = {}
    assert listening(unmigrated).find("Warning: the tables of redis_events are missing")
