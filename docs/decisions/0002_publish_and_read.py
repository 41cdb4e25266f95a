"""What one PUBLISH, and one message read from pub/sub, cost through redis-py's client, its connection and our Wire.

    python docs/decisions/0002_publish_and_read.py redis://localhost:6379/0

µs of this process's CPU per call, medians of 15 rounds that alternate between the three: a busy machine changes that
less than the time by the clock.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import redis

from redis_events.transports.client import Wire

LOCATION, CHANNEL, BODY, ROUNDS, CALLS = sys.argv[1], "publish-and-read", b"x" * 550, 15, 2_000

client = redis.Redis.from_url(LOCATION)
connection, reading = (redis.Redis.from_url(LOCATION).connection_pool.get_connection() for _ in range(2))
wire, reading_wire = Wire(LOCATION, timeout=5.0), Wire(LOCATION, timeout=5.0)
pubsub = client.pubsub()


def through_connection() -> None:
    connection.send_command("PUBLISH", CHANNEL, BODY)
    connection.read_response()


def from_pubsub() -> None:
    for _ in range(CALLS):
        while not pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0):
            pass


def from_connection() -> None:
    for _ in range(CALLS):
        reading.read_response(push_request=True)


def from_wire() -> None:
    count = 0
    while count < CALLS:
        count += len(reading_wire.read(5.0))


def measure(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / CALLS * 1e6


def publish_round() -> Iterator[tuple[str, float]]:
    yield "client", measure(lambda: [client.publish(CHANNEL, BODY) for _ in range(CALLS)])
    yield "connection", measure(lambda: [through_connection() for _ in range(CALLS)])
    yield "Wire", measure(lambda: [wire.call([("PUBLISH", CHANNEL, BODY)]) for _ in range(CALLS)])


def read_round() -> Iterator[tuple[str, float]]:
    for name, read in (("client", from_pubsub), ("connection", from_connection), ("Wire", from_wire)):
        wire.call([("PUBLISH", f"{CHANNEL}-{name}", BODY)] * CALLS)
        yield name, measure(read)


pubsub.subscribe(f"{CHANNEL}-client")
pubsub.get_message(timeout=5.0)
reading.send_command("SUBSCRIBE", f"{CHANNEL}-connection")
reading.read_response(push_request=True)
reading_wire.call([("SUBSCRIBE", f"{CHANNEL}-Wire")])
for what, one_round in (("publish", publish_round), ("read", read_round)):
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, spent in one_round():
            took.setdefault(name, []).append(spent)
    print(what, " · ".join(f"{name} {statistics.median(rounds):.1f} µs" for name, rounds in took.items()))
