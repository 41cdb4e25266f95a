"""Finds the receivers of events on many channels, among 10 channel patterns and among 10,000, in turn.

Prints the ns per look-up of each.
"""

import json
from statistics import median

import django

from benchmarks.event import TYPE
from benchmarks.timing import seconds_for

FEW, MANY = 10, 10_000
LOOK_UPS = 10_000
TURNS = 20


def main() -> None:
    django.setup()
    from redis_events.registry import Receiver, Table

    def table(patterns: int) -> Table:
        return Table(
            [
                Receiver(function=print, name=str(n), channel=f"live{n}.*", types=None, event_type=None)
                for n in range(patterns)
            ]
        )

    def look_up(patterns: Table) -> None:
        for channel in channels:
            patterns.match(channel, TYPE)

    # The same channels for both: what is looked for is the number of patterns, not the memory that names take.
    channels = [f"live{n % FEW}.orders" for n in range(LOOK_UPS)]
    tables = {"few": table(FEW), "many": table(MANY)}
    seconds: dict[str, list[float]] = {name: [] for name in tables}
    for _ in range(TURNS):
        for name, patterns in tables.items():
            seconds[name].append(seconds_for(lambda patterns=patterns: look_up(patterns)))
    print(json.dumps({name: median(values) / LOOK_UPS * 1e9 for name, values in seconds.items()}))


if __name__ == "__main__":
    main()
