"""django-outbox-pattern: a `Published` row, and the producer of `manage.py publish`.

It speaks STOMP only: its connection is replaced by one to Redis, which spares it a broker in between.
"""

from typing import Any

from benchmarks.event import envelope
from benchmarks.peers.outbox_runner import STREAM, run, send, setup_peer


class Connection:
    """As much of a STOMP connection as the producer asks for."""

    def __init__(self, **parameters: Any) -> None:
        self.is_open = False

    def is_connected(self) -> bool:
        return self.is_open

    def connect(self, **credentials: Any) -> None:
        self.is_open = True

    def disconnect(self) -> None:
        self.is_open = False

    def send(self, *, body: str, **rest: Any) -> None:
        send(body)


def main() -> None:
    settings = {"DEFAULT_CONNECTION_CLASS": f"{__spec__.name}.Connection", "DEFAULT_PRODUCER_WAITING_TIME": 0}
    setup_peer("django_outbox_pattern", DJANGO_OUTBOX_PATTERN=settings)
    from django_outbox_pattern.factories import factory_producer
    from django_outbox_pattern.models import Published

    def write(number: int) -> None:
        Published(body=envelope(number), destination=STREAM).save()

    run(relay=factory_producer().publish_message_from_database, write=write)


if __name__ == "__main__":
    main()
