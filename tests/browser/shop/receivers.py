"""What the shop does with events: some of it fails, some waits, some hangs."""

from __future__ import annotations

import time
from pathlib import Path

from redis_events import Event, Reject, Retry, RetryLater, receives
from tests.browser.naughty import CHINESE, XSS

NOW_OR_NEVER = Retry(attempts=1)


def note(event: Event) -> None:
    """A line for each run, for the tests to count."""
    with Path("ran").open("a") as file:
        file.write(f"{event.type} {event.key}\n")


@receives("shop.orders", types="shop.order.placed", once=True, retry=NOW_OR_NEVER, name="shop.receivers.charge")
def charge(event: Event) -> None:
    note(event)
    if event.replayed:
        return
    if event.data.get("card") == "refused":
        raise ConnectionError(f"gateway refused {XSS}")


@receives("shop.orders", types="shop.order.placed", retry=NOW_OR_NEVER, name="shop.receivers.pack")
def pack(event: Event) -> None:
    if event.data.get("weight", 1) <= 0:
        raise ValueError(f"weighs nothing: {CHINESE}")
    if event.data.get("address") == "":
        raise Reject("no address to send it to")


@receives("shop.orders", types="shop.order.placed", name="shop.receivers.remind")
def remind(event: Event) -> None:
    if event.data.get("unpaid"):
        raise RetryLater(after=3600)


@receives("shop.orders", types="shop.order.placed", group="search", name="shop.receivers.index")
def index(event: Event) -> None:
    """Paused in this world: its rows are parked."""


ERRORS = {"lost": LookupError, "torn": RuntimeError}


@receives("trial.*", types="trial.*", retry=NOW_OR_NEVER, name="shop.receivers.attempt")
def attempt(event: Event) -> None:
    """Fails as its data says, until somebody replays it."""
    note(event)
    if event.data.get("error") and not event.replayed:
        raise ERRORS[event.data["error"]](XSS)


@receives("steady.work", types="steady.*", name="shop.receivers.work")
def work(event: Event) -> None:
    note(event)


@receives("hanging.work", name="shop.receivers.hang")
def hang(event: Event) -> None:
    """For a listener of its own: it stops at nothing while the file is there."""
    note(event)
    while Path("hang").exists():
        time.sleep(0.05)


@receives("live.*", name="shop.receivers.push")
async def push(event: Event) -> None:
    """Pub/sub: every listener runs it."""
