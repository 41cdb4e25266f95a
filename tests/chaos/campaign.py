"""A campaign: trials of every row until it has had its kills, and what is said of them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import redis_events

from .scenarios import SCENARIOS, Scenario
from .trial import Outcome, play
from .world import World

TRIALS_PER_KILL = 3
"""A cut that is never reached is no kill; a row that has had three times as many trials is left as it is."""


@dataclass(slots=True)
class Tally:
    """One row's figures. `broken` names the invariants, each with the seed of a trial that broke it."""

    row: str
    titles: list[str] = field(default_factory=list)
    trials: int = 0
    kills: int = 0
    violations: int = 0
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.trials += 1
        self.kills += outcome.cuts
        self.violations += bool(outcome.violations)
        for violation in outcome.violations:
            self.broken.setdefault(violation.invariant, outcome.seed)


class Campaign:
    """Plays the trials of the chosen rows, each from a seed of its own: SEED:SCENARIO:NUMBER."""

    def __init__(self, world: World, options: argparse.Namespace) -> None:
        self.world = world
        self.options = options

    def run(self) -> int:
        self._introduce()
        tallies: list[Tally] = []
        for row in self.options.rows:
            tallies.append(self._row(row))
            self._write(tallies)
        kills, failed = sum(each.kills for each in tallies), sum(each.violations for each in tallies)
        print(f"{kills} kills and faults, {failed} trials with violations", flush=True)
        return 1 if failed else 0

    def replay(self, seed: str) -> int:
        """Play one trial again; its history and what is wrong with it."""
        self._introduce()
        outcome = play(self.world, SCENARIOS[int(seed.split(":")[1])], seed)
        for line in outcome.lines:
            print(json.dumps(line))
        print(*(outcome.violations or ["no violation"]), sep="\n")
        return 1 if outcome.violations else 0

    def _introduce(self) -> None:
        package = Path(redis_events.__file__).parent.parent
        print(
            f"seed {self.options.replay or self.options.seed}, {self.options.database}, package {package}", flush=True
        )

    def _row(self, row: str) -> Tally:
        chosen = [(at, each) for at, each in enumerate(SCENARIOS) if each.row == row and self._can_play(each)]
        tally, began = Tally(row, [each.title for _, each in chosen]), time.monotonic()
        wanted = self._wanted(row)
        for outcome in self._trials(chosen, TRIALS_PER_KILL * wanted):
            tally.add(outcome)
            self._tell(outcome)
            if tally.kills >= wanted or (tally.broken and self.options.until_broken):
                break
        tally.seconds = time.monotonic() - began
        print(f"{row:>6}  {tally.kills:4} kills  {tally.violations:3} violations  {tally.seconds:5.1f} s", flush=True)
        return tally

    def _trials(self, chosen: list[tuple[int, Scenario]], most: int) -> Iterator[Outcome]:
        for number in range(most):
            at, scenario = chosen[number % len(chosen)]
            yield play(self.world, scenario, f"{self.options.seed}:{at}:{number}")

    def _can_play(self, scenario: Scenario) -> bool:
        vendor = "sqlite" if self.world.is_sqlite else "postgresql"
        return scenario.only in ("", vendor)

    def _wanted(self, row: str) -> int:
        if row != "random":
            return int(self.options.kills)
        given = self.options.random_kills
        return 5 * int(self.options.kills) if given is None else int(given)

    def _tell(self, outcome: Outcome) -> None:
        for violation in outcome.violations:
            what = str(violation).strip().splitlines()
            print(
                f"{outcome.scenario.row} ({outcome.scenario.title}) {what[0]} {what[-1] if what[1:] else ''}",
                flush=True,
            )
        if outcome.violations:
            again = f'make chaos ARGS="--database {self.options.database} --replay {outcome.seed}"'
            print(f"  again: {again}", flush=True)

    def _write(self, tallies: list[Tally]) -> None:
        if self.options.json:
            facts = {"seed": self.options.seed, "database": self.options.database}
            self.options.json.write_text(json.dumps({**facts, "rows": [asdict(each) for each in tallies]}, indent=1))
