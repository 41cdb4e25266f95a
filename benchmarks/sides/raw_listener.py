"""The loop people write by hand: `get_message` and `json.loads`."""

import json
import os

import redis

from benchmarks.event import CHANNEL
from benchmarks.meter import Meter


def main() -> None:
    hit = Meter.from_environment().hit
    subscription = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"]).pubsub()
    subscription.subscribe(CHANNEL)
    while True:
        message = subscription.get_message(timeout=5.0)
        if message is None:
            continue
        if message["type"] == "subscribe":
            print("Listening on", CHANNEL, flush=True)
        elif message["type"] == "message":
            hit(json.loads(message["data"])["data"]["sent"])


if __name__ == "__main__":
    main()
