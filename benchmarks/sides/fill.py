"""Adds BENCH_EVENTS pre-encoded events to the stream, in pipelines of 500.

With BENCH_KINDS their types are that many different ones, from number BENCH_FIRST on.
"""

import json
import os
from itertools import cycle, islice

import redis

from benchmarks.event import STREAM, encoded, kind

PIPELINE = 500


def documents() -> list[bytes]:
    """Each different event once."""
    if "BENCH_KINDS" not in os.environ:
        return [encoded(number) for number in range(PIPELINE)]
    first = int(os.environ.get("BENCH_FIRST", "0"))
    return [encoded(number, type=kind(number)) for number in range(first, first + int(os.environ["BENCH_KINDS"]))]


def main() -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    coming = cycle(documents())
    for _ in range(int(os.environ["BENCH_EVENTS"]) // PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for document in islice(coming, PIPELINE):
            pipeline.xadd(STREAM, {"event": document})
        pipeline.execute()
    print(json.dumps({}))


if __name__ == "__main__":
    main()
