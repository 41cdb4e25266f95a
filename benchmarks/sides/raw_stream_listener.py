"""The loop people write by hand: XREADGROUP of 100, `json.loads`, one XACK a batch."""

import json
import os
from contextlib import suppress

import redis

from benchmarks.event import STREAM
from benchmarks.meter import Meter


def entries(answer: object) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of one stream, in whichever of its shapes redis-py answers."""
    if not answer:
        return []
    found = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
    return found[0] if found and isinstance(found[0], list) else found


def main() -> None:
    hit = Meter.from_environment().hit
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    with suppress(redis.ResponseError):  # the group is there already
        client.xgroup_create(STREAM, "raw", id="0", mkstream=True)
    print("Listening on", STREAM, flush=True)
    while True:
        batch = entries(client.xreadgroup("raw", "one", {STREAM: ">"}, count=100, block=5000))
        for _, fields in batch:
            hit(json.loads(fields[b"event"])["data"]["sent"])
        if batch:
            client.xack(STREAM, "raw", *(entry_id for entry_id, _ in batch))


if __name__ == "__main__":
    main()
