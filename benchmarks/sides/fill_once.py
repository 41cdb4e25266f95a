"""Adds BENCH_EVENTS events to the stream of the `once` measurement, each with an id of its own."""

import json
import os

import redis

from benchmarks.event import ONCE, encoded

PIPELINE = 500


def main() -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    for at in range(0, int(os.environ["BENCH_EVENTS"]), PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for number in range(at, at + PIPELINE):
            pipeline.xadd(f"{ONCE}.{os.environ['BENCH_ONCE']}", {"event": encoded(number)})
        pipeline.execute()
    print(json.dumps({}))


if __name__ == "__main__":
    main()
