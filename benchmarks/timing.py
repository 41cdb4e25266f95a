"""Timing a piece of work, alike on every side."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable


def rate_of(publish_one: Callable[[int], object]) -> None:
    """Call `publish_one` BENCH_WARM times, then BENCH_EVENTS times against the clock, and print the result as JSON."""
    warm, events = int(os.environ["BENCH_WARM"]), int(os.environ["BENCH_EVENTS"])
    for number in range(warm):
        publish_one(number)
    started, cpu_before = time.perf_counter(), time.process_time()
    for number in range(events):
        publish_one(number)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    print(json.dumps({"per_second": events / seconds, "cpu_us": cpu / events * 1e6}))


def seconds_for(work: Callable[[], object]) -> float:
    """How long `work()` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
