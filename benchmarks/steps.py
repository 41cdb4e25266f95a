"""Where a listener's time goes: `python -m benchmarks.steps` prints µs of CPU per event and step, in one process.

100 events of the usual kind, over and over. The server and its socket are left out: what they take is the difference
to `stream-listener-cpu`, which has them in.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

import django
import hiredis

from benchmarks.event import STREAM, encoded

BATCH = 100
REPEATS = 200
TRIES = 7


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.project.settings")
    os.environ.setdefault("BENCH_REDIS_URL", "redis://localhost:6379/0")  # nothing connects to it
    os.environ.setdefault("BENCH_DATABASE", json.dumps({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}))
    os.environ.setdefault("BENCH_APPS", "redis_events")
    os.environ["BENCH_EVENTS"] = str(10**12)
    django.setup()
    for what, work in steps():
        print(f"{microseconds(work):7.2f}  {what}")


def steps() -> Iterator[tuple[str, Callable[[], object]]]:
    """Each step, with what it is called in the table of docs/performance.md."""
    from redis_events.codec import ANY, decode
    from redis_events.listening import Listener
    from redis_events.registry import all_receivers
    from redis_events.transports.roads import Road
    from redis_events.transports.stream import StreamTransport

    bodies = [encoded(number) for number in range(BATCH)]
    listener = Listener(
        StreamTransport("redis://localhost:6379/0"), [each for each in all_receivers() if each.channel == STREAM]
    )
    road = Road(None, group=listener.subscriptions[0].group, channels=[STREAM], consumer="one")  # type: ignore[arg-type]
    reply = reply_with(bodies)
    answer = parsed(reply)
    deliveries = road.deliveries(answer)
    runs = listener._match(deliveries)[0]
    event = runs[0].document.read(ANY)
    yield "json.loads, for comparison", lambda: [json.loads(body)["data"]["sent"] for body in bodies]
    yield "parse the server's answer", lambda: parsed(reply)
    yield "make deliveries of it", lambda: road.deliveries(answer)
    yield "decode", lambda: [decode(body, channel=STREAM, is_document=True, with_data=True) for body in bodies]
    yield "decode and match", lambda: listener._match(deliveries)
    yield "run the receivers", lambda: listener._run(runs)
    yield "… of which the receiver itself", lambda: [runs[0].receiver.function(event) for _ in bodies]
    yield "settle, without the server", lambda: listener.transport.settle(deliveries)


def reply_with(bodies: list[bytes]) -> bytes:
    """What the server answers to an XREADGROUP that finds these."""
    entries = b"".join(
        b"*2\r\n$15\r\n1700000000000-%d\r\n*2\r\n$5\r\nevent\r\n$%d\r\n%s\r\n" % (at % 10, len(body), body)
        for at, body in enumerate(bodies)
    )
    return b"*1\r\n*2\r\n$%d\r\n%s\r\n*%d\r\n%s" % (len(STREAM), STREAM.encode(), len(bodies), entries)


def parsed(reply: bytes) -> object:
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


def microseconds(work: Callable[[], object]) -> float:
    """CPU per event, the best of several tries: a busy machine only ever adds."""
    return min(map(_tried, [work] * TRIES))


def _tried(work: Callable[[], object]) -> float:
    before = time.process_time()
    for _ in range(REPEATS):
        work()
    return (time.process_time() - before) / REPEATS / BATCH * 1e6


if __name__ == "__main__":
    main()
