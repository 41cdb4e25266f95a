"""edx-event-bus-redis with openedx-events: the producer's `send` and `consume_indefinitely`.

Its events are attrs classes written as Avro, which has no lists of objects: an order's lines are texts here.
"""

import logging
from collections.abc import Iterable

import attr
import django
from django.conf import settings

from benchmarks.event import order
from benchmarks.peers.runner import URL, Hit, run

TOPIC = "orders"


@attr.s(frozen=True, auto_attribs=True)
class Customer:
    id: int
    name: str
    email: str


@attr.s(frozen=True, auto_attribs=True)
class Order:
    id: int
    sent: float
    customer: Customer
    status: str
    currency: str
    total: str
    changed: list[str]
    lines: list[str]


def setup() -> None:
    settings.configure(
        SECRET_KEY="for benchmarks only",
        USE_TZ=True,
        LOGGING_CONFIG=None,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["openedx_events", "edx_event_bus_redis"],
        EVENT_BUS_REDIS_CONNECTION_URL=URL,
        EVENT_BUS_TOPIC_PREFIX="bench",
        EVENT_BUS_REDIS_STREAM_MAX_LEN=10_000_000,
        EVENT_BUS_PRODUCER="edx_event_bus_redis.create_producer",
        EVENT_BUS_PRODUCER_CONFIG={},
        EVENT_BUS_CONSUMER="edx_event_bus_redis.RedisEventConsumer",
    )
    logging.disable(logging.INFO)  # it logs every event
    django.setup()


def paid_signal():
    from openedx_events.tooling import OpenEdxPublicSignal

    return OpenEdxPublicSignal(event_type="org.bench.shop.order.paid.v1", data={"order": Order})


def as_order(number: int) -> Order:
    data = order(number)
    lines = [f"{line['sku']} {line['quantity']} {line['price']} piece" for line in data["lines"]]
    return Order(**data | {"customer": Customer(**data["customer"]), "lines": lines})


def publish(numbers: Iterable[int]) -> None:
    setup()
    from edx_event_bus_redis import create_producer

    producer, paid = create_producer(), paid_signal()
    for number in numbers:
        producer.send(
            signal=paid,
            topic=TOPIC,
            event_key_field="order.id",
            event_data={"order": as_order(number)},
            event_metadata=paid.generate_signal_metadata(),
        )


def consume(hit: Hit) -> None:
    setup()
    from edx_event_bus_redis import RedisEventConsumer

    def count(order: Order, **_: object) -> None:
        hit(order.sent)

    paid_signal().connect(count, weak=False)
    RedisEventConsumer(TOPIC, "group", "one", check_backlog=True).consume_indefinitely()


if __name__ == "__main__":
    run(publish=publish, consume=consume)
