"""For the tests of projects that use redis_events, and for the authors of transports.

``capture_events()`` sees what would be published, in ``SimpleTestCase``, ``TestCase`` and async tests alike; the pytest
fixture ``captured_events`` is the same object::

    with capture_events() as captured:
        order.pay()
    captured.assert_published("shop.order.paid", key=7)
    captured.deliver()   # runs this project's receivers, and raises what they raise
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import transaction
from django.test.utils import override_settings

from . import batch, held
from .codec import decode
from .events import Event, current_event, new_id
from .registry import Receiver, Table, all_receivers
from .routing import replaced
from .transports.base import Delivery, Outgoing, Subscription, Transport


class RecordingTransport(Transport):
    """Keeps what is sent instead of sending it."""

    durable: ClassVar[bool] = False
    grouped: ClassVar[bool] = False

    def __init__(self, location: str = "memory://capture") -> None:
        super().__init__(location)
        self.sent: list[Outgoing] = []

    def send(self, batch: Sequence[Outgoing]) -> None:
        self.sent += batch

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        raise NotImplementedError("captured events are delivered with captured.deliver()")

    def receive(self, *, limit: int, timeout: float) -> list[Delivery]:
        return []

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


class CapturedEvents:
    """What was published in the block, in order."""

    def __init__(self, transport: RecordingTransport) -> None:
        self._transport = transport
        self._delivered: dict[int, Outgoing] = {}

    @property
    def events(self) -> list[Event[Any]]:
        """The events. In a ``TestCase``, which never commits, those that a commit would send count too."""
        return [decode(outgoing.body, channel=outgoing.channel).read() for outgoing in self._outgoing()]

    def _outgoing(self) -> list[Outgoing]:
        ours = [outgoing for way, outgoing in batch.uncommitted() if getattr(way, "transport", None) is self._transport]
        return [*self._transport.sent, *ours]

    def __len__(self) -> int:
        return len(self._outgoing())

    def __iter__(self) -> Iterator[Event[Any]]:
        return iter(self.events)

    def assert_published(self, type: str = "", *, count: int | None = None, **attributes: Any) -> Event[Any]:
        """The first event of this type with these attributes (``key=7``, ``channel=…``, ``data=…``).

        Raises AssertionError when there is none, or with ``count`` when there are not that many.
        """
        found = [event for event in self.events if _fits(event, type, attributes)]
        wanted = f"{type or 'an event'} with {attributes}" if attributes else type or "an event"
        if not found or count not in (None, len(found)):
            number = "" if count is None else f"{count} × "
            raise AssertionError(f"expected {number}{wanted}; published: {self._summary()}")
        return found[0]

    def assert_nothing_published(self) -> None:
        """Raises AssertionError when anything was published."""
        if len(self):
            raise AssertionError(f"expected no event; published: {self._summary()}")

    def _summary(self) -> str:
        return ", ".join(f"{event.type or event.channel} key={event.key!r}" for event in self.events) or "nothing"

    def deliver(self) -> int:
        """Run this project's receivers for what was published and not delivered yet; how many runs that were.

        What a receiver publishes is delivered too. Raises what a receiver raises.
        """
        table, runs = Table(all_receivers()), 0
        while outgoing := self._next_undelivered():
            self._delivered[id(outgoing)] = outgoing
            document = decode(outgoing.body, channel=outgoing.channel)
            for receiver in table.match(outgoing.channel, document.envelope.type):
                _run(receiver, document.read(receiver.data_type))
                runs += 1
        return runs

    def _next_undelivered(self) -> Outgoing | None:
        return next((each for each in self._outgoing() if id(each) not in self._delivered), None)

    async def adeliver(self) -> int:
        """``deliver`` for async tests."""
        return await sync_to_async(self.deliver)()


def _fits(event: Event[Any], type: str, attributes: dict[str, Any]) -> bool:
    wanted = {**attributes, **({"key": str(attributes["key"])} if "key" in attributes else {})}
    return (not type or event.type == type) and all(getattr(event, name) == wanted[name] for name in wanted)


def _run(receiver: Receiver, event: Event[Any]) -> None:
    token = current_event.set(event)
    try:
        if receiver.is_async:
            async_to_sync(receiver.function)(event)
        elif receiver.once:
            with transaction.atomic(using=receiver.using or held.default_alias()):
                receiver.function(event)
        else:
            receiver.function(event)
    finally:
        current_event.reset(token)


@contextmanager
def capture_events() -> Iterator[CapturedEvents]:
    """Capture what is published in this block instead of sending it, in every thread."""
    transport = RecordingTransport()
    with replaced(transport):
        yield CapturedEvents(transport)


@contextmanager
def _prefix(prefix: str) -> Iterator[None]:
    with override_settings(REDIS_EVENTS={**getattr(settings, "REDIS_EVENTS", {}), "PREFIX": prefix}):
        yield


class TransportContract:
    """What every transport must do. Subclass it in pytest, and say how to make one::

        class TestMine(TransportContract):
            def make(self) -> Transport:
                return MyTransport("mine://…")

    ``make`` is called once for each side, sending or receiving; ``channel`` names a channel nobody else uses.
    """

    patience: ClassVar[float] = 5.0
    """Seconds a delivery may take before it counts as lost."""
    silence: ClassVar[float] = 0.2
    """Seconds without a delivery after which there is none."""

    def make(self) -> Transport:
        """A new transport, not yet connected."""
        raise NotImplementedError

    @property
    def channel(self) -> str:
        return f"contract.{new_id()}"

    @contextmanager
    def receiving(self, *channels: str, group: str = "contract") -> Iterator[Transport]:
        """A transport that is subscribed."""
        transport = self.make()
        transport.subscribe([Subscription(channel=channel, group=group) for channel in channels])
        try:
            yield transport
        finally:
            transport.close()

    def send(self, channel: str, *bodies: bytes) -> None:
        """Send bare bodies through a transport of their own."""
        sender = self.make()
        sender.send([Outgoing(channel=channel, body=body, plain=True) for body in bodies])
        sender.close()

    def receive(self, transport: Transport, count: int) -> list[Delivery]:
        """Exactly ``count`` deliveries, settled; fails when fewer or more come."""
        found: list[Delivery] = []
        deadline = time.monotonic() + self.patience
        while len(found) < count and time.monotonic() < deadline:
            batch = transport.receive(limit=100, timeout=0.1)
            transport.settle(batch)
            found += batch
        found += transport.receive(limit=100, timeout=self.silence)
        assert len(found) == count, f"{len(found)} deliveries instead of {count}"
        return found

    def test_bytes_arrive_as_they_were_sent(self) -> None:
        bodies = (b"Hello", b'{"a":1}', "中文 🎉".encode(), b"\x00\xff\r\n", b"")
        channel = self.channel
        with self.receiving(channel) as transport:
            self.send(channel, *bodies)
            assert [delivery.body for delivery in self.receive(transport, len(bodies))] == list(bodies)

    def test_a_delivery_says_its_channel_without_prefix(self) -> None:
        channel = self.channel
        with self.receiving(channel) as transport:
            self.send(channel, b"x")
            assert self.receive(transport, 1)[0].channel == channel

    def test_two_prefixes_do_not_hear_each_other(self) -> None:
        channel = self.channel
        with _prefix("contract-a"), self.receiving(channel, f"{channel}*") as transport:
            for prefix in ("contract-b", ""):
                with _prefix(prefix):
                    self.send(channel, prefix.encode())
            self.send(channel, b"contract-a")
            assert [(each.channel, each.body) for each in self.receive(transport, 1)] == [(channel, b"contract-a")]

    def test_order_is_kept_over_many_batches(self) -> None:
        channel = self.channel
        bodies = [str(number).encode() for number in range(500)]
        with self.receiving(channel) as transport:
            for at in range(0, 500, 50):
                self.send(channel, *bodies[at : at + 50])
            assert [delivery.body for delivery in self.receive(transport, 500)] == bodies

    def test_other_channels_do_not_arrive(self) -> None:
        channel = self.channel
        with self.receiving(channel) as transport:
            self.send(f"{channel}.other", b"x")
            self.receive(transport, 0)

    def test_a_pattern_covers_any_characters_and_dots(self) -> None:
        channel = self.channel
        with self.receiving(f"{channel}.*") as transport:
            self.send(f"{channel}.", b"none")
            self.send(f"{channel}.a.b", b"dots")
            self.send(f"{channel}", b"too short")
            assert {delivery.body for delivery in self.receive(transport, 2)} == {b"none", b"dots"}

    def test_only_the_star_is_special_in_a_pattern(self) -> None:
        channel = self.channel
        with self.receiving(f"{channel}.[ab]?*") as transport:
            self.send(f"{channel}.ab", b"x")
            self.receive(transport, 0)

    def test_overlapping_subscriptions_bring_one_delivery(self) -> None:
        channel = self.channel
        with self.receiving(f"{channel}*", channel, f"{channel[:-3]}*") as transport:
            self.send(channel, b"x")
            self.receive(transport, 1)

    def test_receive_gives_at_most_its_limit(self) -> None:
        channel = self.channel
        with self.receiving(channel) as transport:
            self.send(channel, *[b"x"] * 25)
            sizes = [len(transport.receive(limit=10, timeout=1.0)) for _ in range(3)]
            assert sum(sizes) == 25
            assert max(sizes) <= 10

    def test_receive_returns_empty_handed_after_its_timeout(self) -> None:
        with self.receiving(self.channel) as transport:
            began = time.monotonic()
            assert transport.receive(limit=10, timeout=0.2) == []
            assert 0.15 < time.monotonic() - began < 1.0

    def test_wake_ends_a_wait(self) -> None:
        with self.receiving(self.channel) as transport:
            timer = threading.Timer(0.1, transport.wake)
            timer.start()
            began = time.monotonic()
            assert transport.receive(limit=10, timeout=5.0) == []
            assert time.monotonic() - began < 2.0
            timer.join()

    def test_it_can_be_subscribed_again(self) -> None:
        channel = self.channel
        with self.receiving(channel) as transport:
            transport.subscribe([Subscription(channel=channel, group="contract")])
            self.send(channel, b"x")
            self.receive(transport, 1)

    def test_events_wait_for_listeners_exactly_when_it_is_durable(self) -> None:
        channel = self.channel
        self.send(channel, b"early")
        with self.receiving(channel) as transport:
            self.receive(transport, 1 if transport.durable else 0)

    def test_a_group_shares_exactly_when_it_is_grouped(self) -> None:
        channel = self.channel
        with self.receiving(channel) as first, self.receiving(channel) as second:
            self.send(channel, b"x")
            found = [len(each.receive(limit=10, timeout=self.silence)) for each in (first, second)]
            assert sum(found) == (1 if first.grouped else 2)

    def test_what_was_not_settled_comes_again_exactly_when_it_is_durable(self) -> None:
        channel = self.channel
        with self.receiving(channel) as transport:
            self.send(channel, b"x")
            assert len(transport.receive(limit=10, timeout=self.patience)) == 1
            transport.subscribe([Subscription(channel=channel, group="contract")])
            self.receive(transport, 1 if transport.durable else 0)

    def test_old_events_can_be_browsed_exactly_when_it_is_durable(self) -> None:
        channel = self.channel
        transport = self.make()
        transport.send([Outgoing(channel=channel, body=b"x", plain=True)])
        assert len(transport.browse(channel)) == (1 if transport.durable else 0)
        transport.close()
