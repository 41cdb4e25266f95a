"""`once` across processes: listeners that have the same events at the same time, as redelivery and relays make them."""

from __future__ import annotations

import random
import threading

import pytest

from redis_events import Event
from redis_events.codec import encode
from tests.processes import Process, Project
from tests.servers import Postgres, Server, wait_for
from tests.test_streams_crash import Service

SOURCES = ("shop", "crm")
EVENTS = 300
"""Of each source."""
NAMES = sorted(f"{source}:{number}" for source in SOURCES for number in range(EVENTS))
RETRIED = {f"{source}:{number}" for source in SOURCES for number in range(7, EVENTS, 25)}
WINDOW = 40
"""A producer shuffles so many ids at a time: the copies of an event are near each other, and not in one place."""

WRITE = """
import random
from tests.testapp.models import Order, Tag

@receives("orders", once=True, retry=Retry(attempts=2))
def write(event):
    note("write", event)
    Tag.objects.create(name=event.data)
    for pk in random.sample(range(1, 6), COLLISIONS):
        Order.objects.filter(pk=pk).update(note=event.data)
    if event.attempt == 1 and int(event.id) % 25 == 7:
        raise RetryLater(after=0.05)
"""
EFFECTS = """
from redis_events.models import HeldDelivery, InboxEntry
from tests.testapp.models import Tag
print(InboxEntry.objects.count(), HeldDelivery.objects.count(), *Tag.objects.values_list("name", flat=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("collisions", [0, 2], ids=["apart", "business rows in each other's way"])
def test_four_processes_with_the_same_events_lose_and_repeat_nothing_on_postgresql(
    project: Project, server: Server, postgres: Postgres, prefix: str, collisions: int
) -> None:
    entry = postgres.create(prefix)
    project.database({**entry, "OPTIONS": {"options": "-c deadlock_timeout=20ms"}})
    project.migrate()
    before = deadlocks(postgres)
    listeners = work_off(Service(project, server, f"COLLISIONS = {collisions}\n{WRITE}", BATCH=20))
    said = "\n".join(each.output for each in listeners)
    assert "away" not in said, said
    assert bool(deadlocks(postgres) - before) == bool(collisions), said


@pytest.mark.slow
def test_four_processes_with_the_same_events_lose_and_repeat_nothing_on_sqlite(
    project: Project, server: Server
) -> None:
    """With one writer at a time, what one of them was given may have been done by the others before its turn."""
    work_off(Service(project, server, f"COLLISIONS = 2\n{WRITE}", BATCH=20), busy=2)


def work_off(service: Service, *, busy: int = 4) -> list[Process]:
    """Let four listeners have what two producers sent, each event twice; those listeners, once they have stopped.

    At least ``busy`` of them must have run some.
    """
    service.project.shell("from tests.testapp.models import Order\nfor _ in range(5): Order.objects.create()")
    listeners = [service.listen(waits=False) for _ in range(4)]
    for listener in listeners:
        listener.wait_for_line("Listening on ", timeout=30)
    producers = [threading.Thread(target=produce, args=(service, seed)) for seed in range(2)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    wait_for(lambda: service.unsettled() == 0, timeout=30, what="everything to be settled")
    effects = wait_for(lambda: effects_of(service), timeout=15, what="the retries to be done")
    for listener in listeners:
        listener.terminate()
    assert [each.wait(15) for each in listeners] == [0] * 4, [each.output for each in listeners]
    assert effects == NAMES
    assert_only_what_asked_for_it_ran_again(service, busy)
    return listeners


def produce(service: Service, seed: int) -> None:
    """Every event of both sources, in an order of its own."""
    chance = random.Random(seed)
    with service.server.client() as client:
        for start in range(0, EVENTS, WINDOW):
            window = range(start, min(start + WINDOW, EVENTS))
            events = [document(source, number) for source in SOURCES for number in window]
            for each in chance.sample(events, len(events)):
                client.xadd(service.stream, {"event": each})


def document(source: str, number: int) -> bytes:
    facts = {"type": "shop.order.paid", "channel": "orders"}
    return encode(Event(data=f"{source}:{number}", source=source, id=f"{number}", **facts))


def effects_of(service: Service) -> list[str]:
    """The effects, once no held row is left; each has its entry in the inbox."""
    entries, held, *effects = service.project.shell(EFFECTS).split()
    if held != "0":
        return []
    assert int(entries) == len(effects)
    return sorted(effects)


def assert_only_what_asked_for_it_ran_again(service: Service, busy: int) -> None:
    """Whatever conflicts there were: none of them is an attempt."""
    with service.server.client() as client:
        assert client.xlen(service.stream) == 2 * len(NAMES)
    runs = service.runs()
    assert len({pid for *_, pid, _ in runs}) >= busy
    assert {name for _, name, attempt, *_ in runs if attempt > 1} == RETRIED


def deadlocks(postgres: Postgres) -> int:
    """How many the server has told of so far."""
    return postgres.log.read_text(errors="replace").count("deadlock detected")
