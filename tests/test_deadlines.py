"""A receiver that outlasts its timeout is shown, and its process makes room for a new one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from redis_events import receives
from redis_events.exceptions import ConfigurationError
from redis_events.registry import all_receivers
from tests.processes import Process, Project
from tests.servers import Server, wait_for

RECEIVERS = """
import asyncio, threading, time
from pathlib import Path
from redis_events import receives, RetryLater

@receives("orders", name="app.hear")
def hear(event):
    with Path("heard").open("a") as file:
        print(event.data, file=file)

@receives("orders", types="order.hung", timeout=0.5)
def hang(event):
    wait_for_a_lock_nobody_gives_back()

def wait_for_a_lock_nobody_gives_back():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

@receives("async", timeout=0.5)
async def hang_async(event):
    await never()

async def never():
    await asyncio.Event().wait()

@receives("async.blocked", timeout=0.5)
async def block(event):
    time.sleep(600)

@receives("retried", timeout=0.5)
def hang_in_the_retry(event):
    if event.attempt == 1:
        raise RetryLater(after=0)
    wait_for_a_lock_nobody_gives_back()

@receives("quick", timeout=0.5)
def quick(event):
    time.sleep(0.2)
"""
HELD = """
from redis_events.events import now
from redis_events.models import HeldDelivery
HeldDelivery.objects.create(source="shop", event_id="1", group="shop", receiver="app.receivers.hang_in_the_retry",
    channel="retried", state="waiting", attempt=1, due=now(), raw=b"1", created_at=now(), updated_at=now())
"""
SECRET = "payload-that-no-log-shows"


@pytest.fixture
def service(project: Project) -> Project:
    project.write("receivers.py", RECEIVERS)
    return project


@pytest.fixture
def listen(service: Project) -> Callable[[], Process]:
    def start() -> Process:
        process = service.manage("listen_events")
        process.wait_for_line("Listening on ", timeout=20)
        return process

    return start


def publish(service: Project, channel: str, type: str = "order.hung") -> None:
    service.shell(f"from redis_events import publish; publish({channel!r}, {SECRET!r}, type={type!r})")


@pytest.mark.parametrize("timeout", [0, -1, "30", True, timedelta(0)])
def test_a_timeout_that_is_none_is_refused_at_the_decorator(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"@receives\('orders'\): timeout="):
        receives("orders", timeout=timeout)(print)


@pytest.mark.usefixtures("declared")
def test_a_timeout_may_be_a_timedelta() -> None:
    receives("orders", timeout=timedelta(minutes=1))(print)
    assert [receiver.timeout for receiver in all_receivers()] == [60.0]


@pytest.mark.parametrize(
    ("channel", "functions"),
    [
        ("orders", ["hang", "wait_for_a_lock_nobody_gives_back"]),
        ("async", ["hang_async", "never"]),
        ("async.blocked", ["block"]),
        ("retried", ["hang_in_the_retry", "wait_for_a_lock_nobody_gives_back"]),
    ],
)
def test_its_stack_is_logged_without_the_payload_and_the_process_exits_75(
    channel: str, functions: list[str], service: Project, listen: Callable[[], Process]
) -> None:
    process = listen()
    publish(service, channel)
    late = rf"app\.receivers\.{functions[0]} over order\.hung \S+ has outrun its timeout of 0\.5 s"
    process.wait_for_line(f"{late}; this process ends with 75, to be started anew")
    began = time.monotonic()
    assert process.wait(10) == 75
    assert time.monotonic() - began < 5
    frames = re.findall(r'File ".*app/receivers\.py", line \d+, in (\w+)', process.output)
    assert frames == functions
    assert not process.find(r'File ".*/redis_events/'), process.output
    assert SECRET not in process.output


def test_a_retry_that_hangs_while_draining_is_seen_too(service: Project) -> None:
    service.shell(HELD)
    process = service.manage("listen_events", "--drain")
    assert process.wait(20) == 75, process.output
    assert process.find("outrun its timeout"), process.output


def test_a_run_within_its_timeout_is_left_alone(service: Project, listen: Callable[[], Process]) -> None:
    process = listen()
    for _ in range(4):
        publish(service, "quick")
    process.terminate()
    assert process.wait(10) == 0
    assert process.find("4 done"), process.output
    assert not process.find("outrun")


@pytest.mark.slow
def test_on_a_stream_the_hung_run_counts_as_a_start_and_ends_as_a_dead_letter(
    service: Project, listen: Callable[[], Process], server: Server, prefix: str
) -> None:
    service.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}, "MAX_DELIVERIES": 1}
    publish(service, "orders")
    publish(service, "orders", "order.fine")
    for _ in range(2):  # in its batch, which says nothing; then alone
        assert listen().wait(20) == 75
    process = listen()
    with server.client() as client:
        wait_for(lambda: client.xpending(f"{prefix}:orders", "shop")["pending"] == 0, timeout=15, what="all settled")
    process.terminate()
    assert process.wait(10) == 0
    dead = "from redis_events.models import HeldDelivery as H; print(sorted(H.objects.values_list('type', 'receiver')))"
    assert service.shell(dead) == "[('order.hung', 'app.hear'), ('order.hung', 'app.receivers.hang')]"
