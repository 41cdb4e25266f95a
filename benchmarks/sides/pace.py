"""Publishes BENCH_EVENTS events at a steady BENCH_RATE a second, each stamped when it is sent."""

import json
import os
import time

import redis

from benchmarks.event import CHANNEL, encoded


def main() -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    client.ping()
    started = time.perf_counter()
    for number in range(int(os.environ["BENCH_EVENTS"])):
        due = started + number / int(os.environ["BENCH_RATE"])
        time.sleep(max(0.0, due - time.perf_counter()))
        client.publish(CHANNEL, encoded(number))
    print(json.dumps({}))


if __name__ == "__main__":
    main()
