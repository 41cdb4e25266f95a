"""What the forked processes of a trial do: the product's own objects, each driven until nothing is left to do."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import OutputWrapper
from django.core.management.color import no_style
from django.db import OperationalError, transaction

from redis_events import outbox, posting
from redis_events.cleaning import Cleaner
from redis_events.codec import decode
from redis_events.conf import conf
from redis_events.console import Console
from redis_events.healing import Healer
from redis_events.listening import Listener
from redis_events.process import Options, Process
from redis_events.registry import all_receivers
from redis_events.relaying import Relay
from redis_events.replaying import Replay
from redis_events.retrying import Retrier
from redis_events.transports import claims
from redis_events.transports.base import Outgoing
from redis_events.transports.client import Wire
from redis_events.transports.stream import StreamTransport
from redis_events.transports.trimming import Trimmer

from .failpoints import Cut, arm, wrap
from .history import History
from .shop.models import Order

Work = Callable[[], object]


def prepare() -> None:
    """Waits that are there to spare others are over at once: nothing else shares a trial's server or database."""
    claims.SILENCE = 0.0
    outbox.HEAD_START = 0.0


def observe(history: Callable[[], History]) -> None:
    """Note what is about to be sent, each time it is."""

    def note(_: object, batch: Sequence[Outgoing], *__: object) -> None:
        ids = [decode(each.body, channel=each.channel).envelope.id for each in batch]
        history().note("sending", events=ids)

    wrap("redis_events.transports.outlet.Outlet.exchange", before=note)


def doomed(work: Work, cut: Cut, history: History, who: str) -> Work:
    """The same work by a process that is to be cut."""

    def run() -> None:
        arm(cut, history, who)
        work()

    return run


# ------------------------------------------------------------------ publishing


def publish(kinds: Sequence[str], shape: str) -> None:
    """Save an order of each kind: `lone` in autocommit, `each` in a transaction of its own, or `all` in one."""
    if shape == "all":
        with transaction.atomic():
            publish(kinds, "lone")
        return
    for kind in kinds:
        if shape == "lone":
            Order.objects.create(kind=kind)
        else:
            publish([kind], "all")


def leave_unsent(kinds: Sequence[str], shape: str) -> None:
    """The same where nobody is woken: the process ends after each commit, before it could send."""
    posting.Poster.send = lambda self, batch: None  # type: ignore[method-assign]
    publish(kinds, shape)


def relay() -> None:
    """Send what is unsent, after looking for what the server has lost."""
    Healer("default").poll()
    Relay(["default"]).drain()


# ------------------------------------------------------------------ listening


def listen() -> None:
    """Work off the stream, then what is due."""
    Listener(StreamTransport(conf.LOCATION), all_receivers()).run(drain=True)
    Retrier(all_receivers()).drain()


def finish() -> None:
    """What a relay and a listener find to do."""
    relay()
    listen()


def listen_and_stop() -> None:
    """All that listen_events runs; asked to stop at the second effect."""
    effects = itertools.count(1)

    def ask(*_: Any) -> None:
        if next(effects) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    wrap("tests.chaos.shop.receivers.have_effect", after=ask)
    with open(os.devnull, "w") as nowhere:
        Process(all_receivers(), Options(drain=True), Console(OutputWrapper(nowhere), no_style())).run()


def listen_and_give_up() -> None:
    """A listener that is asked to stop while the table of held deliveries cannot be written to."""
    listener = Listener(StreamTransport(conf.LOCATION), all_receivers())

    def fail(*_: Any) -> None:
        listener.stop()
        raise OperationalError("the harness says that the database is gone")

    wrap("redis_events.held.hold", before=fail)
    listener.run(drain=True)


def clean_up() -> None:
    """Everything that removes something: trimming, the outbox, old held rows and inbox entries."""
    wire = Wire(conf.LOCATION, timeout=1.0)
    Healer("default").poll()
    Trimmer().trim(wire, ["orders"])
    outbox.delete_some("orders", using="default", older_than=conf.RETENTION, limit=1_000)
    Cleaner(all_receivers(), alive=lambda: {each.name for each in all_receivers()}).clean()


def replay(until: datetime) -> None:
    """Hand the receiver that is not `once` all that is in the stream again; goes on where a replay was cut."""
    Replay().old_events("tests.chaos.shop.receivers.second", since=until - timedelta(hours=1), until=until)
