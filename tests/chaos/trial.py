"""One trial: a scenario is played, everything is healed and worked off, then the checker has its say."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from . import actors
from .checker import RECOVERS_WITHIN, Violation, check
from .history import Line, of
from .scenarios import Scenario
from .world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial: its seed says all that is needed to play it again."""

    scenario: Scenario
    seed: str
    cuts: int
    violations: list[Violation]
    lines: list[Line]


def play(world: World, scenario: Scenario, seed: str) -> Outcome:
    """Play one trial."""
    world.begin()
    trial = scenario.trial(world, random.Random(seed))
    scenario.play(trial)
    recover(world)
    world.note_end()
    lines = world.history.lines()
    return Outcome(scenario, seed, sum(1 for _ in of(lines, "cut")), check(lines), lines)


def recover(world: World) -> None:
    """A relay and a listener, again and again, until nothing is left to do; a second longer than is allowed at most."""
    began = time.monotonic()
    while time.monotonic() - began < RECOVERS_WITHIN + 1:
        world.pass_time()
        world.run(actors.finish)
        if not world.left():
            break
    world.history.note("recovered", seconds=time.monotonic() - began)
