"""Publishes BENCH_EVENTS events at a steady BENCH_RATE a second, each stamped when it is sent.

To the stream when BENCH_STREAM is set, else to the pub/sub channel.
"""

import json
import os
import time

import redis

from benchmarks.event import CHANNEL, STREAM, encoded


def send(client: redis.Redis, document: bytes) -> None:
    """One event, as anybody would send it."""
    if "BENCH_STREAM" in os.environ:
        client.xadd(STREAM, {"event": document})
    else:
        client.publish(CHANNEL, document)


def main() -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    client.ping()
    started = time.perf_counter()
    for number in range(int(os.environ["BENCH_EVENTS"])):
        due = started + number / int(os.environ["BENCH_RATE"])
        time.sleep(max(0.0, due - time.perf_counter()))
        send(client, encoded(number))
    print(json.dumps({}))


if __name__ == "__main__":
    main()
