"""After an outage: a relay empties a full outbox, first alone, then while this process goes on saving, as the web does.

Prints events/s of the relay and the median µs of a save, each alone and together.
"""

import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

import django

from benchmarks.sides.outbox import fill, save
from benchmarks.timing import seconds_for

SAVES = 500
OLD_ENOUGH = 2.5
"""Seconds until a relay takes rows where the database has one writer."""


def drain() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.sides.drain"], stdout=subprocess.PIPE, text=True)


def result_of(relay: subprocess.Popen[str]) -> float:
    output, _ = relay.communicate()
    return float(json.loads(output)["per_second"])


def prepare(events: int) -> None:
    fill(events)
    time.sleep(OLD_ENOUGH)


def saves_until(ended: Any, model: Any) -> float:
    """The median µs of a save."""
    seconds = []
    while not ended(len(seconds)):
        seconds.append(seconds_for(lambda: save(model)))
        time.sleep(0.001)
    return median(seconds) * 1e6


def main() -> None:
    django.setup()
    from benchmarks.project.models import OutboxedOrder

    events = int(os.environ["BENCH_EVENTS"])
    prepare(events)
    relay_alone = result_of(drain())
    saves_alone = saves_until(lambda count: count == SAVES, OutboxedOrder)
    prepare(events)
    relay = drain()
    saves = saves_until(lambda count: relay.poll() is not None, OutboxedOrder)
    print(json.dumps({"relay": result_of(relay), "relay_alone": relay_alone, "save": saves, "save_alone": saves_alone}))


if __name__ == "__main__":
    main()
