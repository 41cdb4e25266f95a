"""Publishing by hand, one event at a time: build the envelope, `json.dumps`, PUBLISH."""

import json
import os

import redis

from benchmarks.event import CHANNEL, envelope
from benchmarks.timing import rate_of


def main() -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    rate_of(lambda number: client.publish(CHANNEL, json.dumps(envelope(number))))


if __name__ == "__main__":
    main()
