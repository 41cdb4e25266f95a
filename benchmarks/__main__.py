"""`python -m benchmarks [names] [--rounds N] [--quick] [--json] [--check]`."""

from __future__ import annotations

import argparse
import sys

from benchmarks.measurement import run_rounds
from benchmarks.measurements import LONG, MEASUREMENTS, USUAL
from benchmarks.report import as_json, table
from benchmarks.stage import Stage


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="redis_events against redis-py by hand.")
    usual, long = (", ".join(each.name for each in some) for some in (USUAL, LONG))
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"all of these when none is given: {usual}; only by name: {long}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the events in those that are only run by name")
    parser.add_argument("--json", action="store_true", help="all samples as JSON instead of the table")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MEASUREMENTS):
        parser.error(f"no measurement is called {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    return options


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    options = parsed()
    chosen = [MEASUREMENTS[name] for name in options.names] or USUAL
    with Stage(is_quick=options.quick) as stage:
        results = run_rounds(chosen, stage=stage, rounds=options.rounds, progress=say)
    print(as_json(results) if options.json else table(results))
    return int(options.check and not all(result.is_met for result in results))


if __name__ == "__main__":
    sys.exit(main())
