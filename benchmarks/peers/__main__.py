"""`python -m benchmarks.peers [names] [--rounds N] [--json] [--check]`; `make bench-peers` makes the environments."""

from __future__ import annotations

import argparse
import sys

from benchmarks.measurement import run_rounds
from benchmarks.peers.contestants import OURS, PEERS
from benchmarks.peers.race import beside
from benchmarks.report import as_json, table
from benchmarks.stage import Stage


def parsed() -> argparse.Namespace:
    names = [peer.contestant.runner for peer in PEERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="redis_events beside its peers.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"all of these when none is given: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--json", action="store_true", help="all samples as JSON instead of the table")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    options = parsed()
    if not OURS.is_here:
        say(f"{OURS.python.parent.parent} is not there: make bench-peers makes it")
        return 2
    chosen = [peer for peer in PEERS if not options.names or peer.contestant.runner in options.names]
    here = [peer for peer in chosen if peer.contestant.is_here]
    with Stage() as stage:
        results = run_rounds(map(beside, here), stage=stage, rounds=options.rounds, progress=say)
    print(as_json(results) if options.json else table(results, other="peer"))
    for peer in chosen:
        if peer not in here:
            say(f"left out: {peer.what}; it needs {peer.needs}")
    return int(options.check and not all(result.is_met for result in results))


if __name__ == "__main__":
    sys.exit(main())
