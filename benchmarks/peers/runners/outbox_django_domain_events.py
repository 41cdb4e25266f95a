"""django-domain-events: `fire` with a durable receiver that sends to Redis, and what `deliver_events --once` runs."""

import json
from dataclasses import dataclass

from benchmarks.event import envelope
from benchmarks.peers.outbox_runner import run, send, setup_peer


@dataclass(frozen=True, slots=True)
class OrderPaid:
    number: int
    body: str


def main() -> None:
    setup_peer("django_domain_events")
    from django_domain_events import DURABLE, event, fire, receiver
    from django_domain_events.delivery.deliver import deliver_pending

    event(name="shop.order.paid")(OrderPaid)

    @receiver(OrderPaid, mode=DURABLE, key="bench.to_redis")
    def to_redis(paid: OrderPaid) -> None:
        send(paid.body)

    def write(number: int) -> None:
        fire(OrderPaid(number=number, body=json.dumps(envelope(number))))

    run(relay=deliver_pending, write=write)


if __name__ == "__main__":
    main()
