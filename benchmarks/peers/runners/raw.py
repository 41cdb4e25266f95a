"""redis-py by hand: XADD of `json.dumps`, and the loop of `benchmarks.sides.raw_stream_listener`."""

import json
from collections.abc import Iterable

import redis

from benchmarks.event import STREAM, envelope
from benchmarks.peers.runner import URL, Hit, run
from benchmarks.sides import raw_stream_listener


def publish(numbers: Iterable[int]) -> None:
    client = redis.Redis.from_url(URL)
    for number in numbers:
        client.xadd(STREAM, {"event": json.dumps(envelope(number))})


def consume(hit: Hit) -> None:
    raw_stream_listener.main()


if __name__ == "__main__":
    run(publish=publish, consume=consume)
