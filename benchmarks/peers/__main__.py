"""`python -m benchmarks.peers [names] [--rounds N] [--json] [--check]`; `make bench-peers` makes the environments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator

from benchmarks.measurement import Measurement, run_rounds
from benchmarks.peers import outboxes
from benchmarks.peers.contestants import OURS, PEERS
from benchmarks.peers.race import beside
from benchmarks.report import as_json, table
from benchmarks.stage import Stage

OUTBOX = "outbox"


def parsed() -> argparse.Namespace:
    names = [*(peer.contestant.runner for peer in PEERS), OUTBOX]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="redis_events beside its peers.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"all of these when none is given: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--json", action="store_true", help="all samples as JSON instead of the table")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    options.names = options.names or names
    return options


def measurements(names: Collection[str]) -> Iterator[Measurement]:
    """Those of these names whose environments are there."""
    yield from (beside(peer) for peer in PEERS if peer.contestant.runner in names and peer.contestant.is_here)
    if OUTBOX in names:
        yield outboxes.beside_those_here()


def left_out(names: Collection[str]) -> Iterator[str]:
    """What could not be measured, and why."""
    for peer in PEERS:
        if peer.contestant.runner in names and not peer.contestant.is_here:
            yield f"{peer.what}; it needs {peer.needs}"
    if OUTBOX in names:
        yield from (f"{peer.environment}: it could not be installed" for peer in outboxes.THEIRS if not peer.is_here)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    options = parsed()
    if not OURS.is_here:
        say(f"{OURS.python.parent.parent} is not there: make bench-peers makes it")
        return 2
    with Stage() as stage:
        results = run_rounds(measurements(options.names), stage=stage, rounds=options.rounds, progress=say)
    print(as_json(results) if options.json else table(results, other="peer"))
    for line in left_out(options.names):
        say(f"left out: {line}")
    return int(options.check and not all(result.is_met for result in results))


if __name__ == "__main__":
    sys.exit(main())
