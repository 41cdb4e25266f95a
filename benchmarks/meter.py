"""Counts the events a listener has handed over; the same few lines run on both sides of a measurement."""

from __future__ import annotations

import json
import os
import time


class Meter:
    """Prints one JSON line each time `events` events have come after `warm` ones that don't count, and starts again.

    The line has `per_second`, `cpu_us` (of this process, per event) and the latencies `p50_ms` and `p99_ms`, which mean
    something only when the events come one at a time.
    """

    def __init__(self, *, warm: int, events: int) -> None:
        self.warm = warm
        self.last = warm + events
        self.count = 0
        self.latencies: list[float] = []

    @classmethod
    def from_environment(cls) -> Meter:
        """The meter that the runner asked this process for."""
        return cls(warm=int(os.environ.get("BENCH_WARM", "0")), events=int(os.environ.get("BENCH_EVENTS", "0")))

    def hit(self, sent: float) -> None:
        """Count one event that was sent at `sent`, in seconds of the wall clock."""
        self.count = count = self.count + 1
        if count > self.warm:
            self.latencies.append(time.time() - sent)
        elif count == self.warm:
            self.started, self.cpu_before = time.perf_counter(), time.process_time()
        if count == self.last:
            self._report()

    def _report(self) -> None:
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.cpu_before
        events = len(self.latencies)
        latencies = sorted(self.latencies)
        line = {
            "per_second": events / seconds,
            "cpu_us": cpu / events * 1e6,
            "p50_ms": latencies[events // 2] * 1e3,
            "p99_ms": latencies[events * 99 // 100] * 1e3,
        }
        print(json.dumps(line), flush=True)
        self.count, self.latencies = 0, []
