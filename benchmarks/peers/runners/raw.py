"""redis-py by hand: XADD of `json.dumps` in pipelines, and the loop of `benchmarks.sides.raw_stream_listener`."""

import json

import redis

from benchmarks.event import STREAM, envelope
from benchmarks.peers.runner import URL, Hit, run
from benchmarks.sides import raw_stream_listener

PIPELINE = 500


def publish(numbers: range) -> None:
    client = redis.Redis.from_url(URL)
    for first in range(0, len(numbers), PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for number in numbers[first : first + PIPELINE]:
            pipeline.xadd(STREAM, {"event": json.dumps(envelope(number))})
        pipeline.execute()


def consume(hit: Hit) -> None:
    raw_stream_listener.main()


if __name__ == "__main__":
    run(publish=publish, consume=consume)
