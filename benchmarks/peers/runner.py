"""What the runners of all contestants share: `python -m benchmarks.peers.runners.<name> publish|consume`.

BENCH_REDIS_URL says where; BENCH_WARM + BENCH_EVENTS is how many. Consuming prints the meter's line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable

from benchmarks.meter import Meter

URL = os.environ["BENCH_REDIS_URL"]

Hit = Callable[[float], None]


def run(*, publish: Callable[[range], object], consume: Callable[[Hit], object]) -> None:
    """Do what the command line asks for: publish an event for each number, or call `hit` with each one's time."""
    if sys.argv[1] == "consume":
        consume(Meter.from_environment().hit)
        return
    publish(range(int(os.environ["BENCH_WARM"]) + int(os.environ["BENCH_EVENTS"])))
    print(json.dumps({}), flush=True)


def publish_nothing(numbers: Iterable[int]) -> None:
    """For pub/sub, where the events come from `benchmarks.sides.blast` while the contestant listens."""
