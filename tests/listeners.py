"""Receivers and deliveries made by hand, for tests of what happens between a transport and a receiver."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from redis_events.codec import decode, encode
from redis_events.events import Event
from redis_events.listening import Listener
from redis_events.registry import Receiver
from redis_events.runner import Run
from redis_events.transports.base import Delivery
from redis_events.transports.memory import MemoryTransport


def receiver(function: Callable[..., Any], channel: str = "orders", **options: Any) -> Receiver:
    """What `@receives(channel, …)` would register, without registering it."""
    facts = {"name": f"app.{function.__name__}", "types": None, "event_type": None, **options}
    return Receiver(function=function, channel=channel, is_async=inspect.iscoroutinefunction(function), **facts)


def document(data: Any = 1, *, id: str = "", type: str = "shop.order.paid") -> bytes:
    """An event's bytes on the wire."""
    named = {"id": id} if id else {}
    return encode(Event(data=data, type=type, source="shop", channel="orders", key="7", **named))


def delivery(body: bytes, channel: str = "orders") -> Delivery:
    return Delivery(channel=channel, body=body)


def run(of: Receiver, body: bytes) -> Run:
    return Run(receiver=of, document=decode(body, channel="orders"), delivery=delivery(body))


def listener(*receivers: Receiver) -> Listener:
    """A listener on a transport inside this process; `process` is the part that matters here."""
    return Listener(MemoryTransport("memory://listeners"), receivers)
