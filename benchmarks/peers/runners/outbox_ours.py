"""redis_events with an OUTBOX: `publish()`, and the relay of `manage.py relay_events`, which notes each entry's id."""

from typing import Any

import django

from benchmarks.event import TYPE, order
from benchmarks.peers.outbox_runner import STREAM, run


def main() -> None:
    django.setup()
    from redis_events import outbox, publish
    from redis_events.posting import Poster
    from redis_events.relaying import Relay

    outbox.HEAD_START = 0.0  # none of what the relay finds is about to be sent by this process
    post = Poster.send

    def write(number: int, *, after_the_commit: Any = skip) -> None:
        Poster.send = after_the_commit
        publish(STREAM, order(number), type=TYPE, key=number)

    run(relay=Relay(["default"]).drain, write=write, sent=lambda number: write(number, after_the_commit=post))


def skip(poster: Any, batch: Any) -> None:
    """In place of sending."""


if __name__ == "__main__":
    main()
