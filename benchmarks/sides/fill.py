"""Adds BENCH_EVENTS pre-encoded events to the stream, in pipelines of 500."""

import json
import os

import redis

from benchmarks.event import STREAM, encoded

PIPELINE = 500


def main() -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    documents = [encoded(number) for number in range(PIPELINE)]
    for _ in range(int(os.environ["BENCH_EVENTS"]) // PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for document in documents:
            pipeline.xadd(STREAM, {"event": document})
        pipeline.execute()
    print(json.dumps({}))


if __name__ == "__main__":
    main()
