"""Whether a long backlog is worked off as fast as a short one."""

from statistics import median

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, Stage

WARM = 2_000
SHORT = 40_000
LONG = 1_000_000
DEADLINE = 600.0


def per_second(stage: Stage, events: int) -> float:
    """How many events a second a listener takes that finds all of them waiting."""
    stage.clear()
    stage.run("fill", events=WARM + events, deadline=DEADLINE)
    with stage.start(OUR_LISTENER, warm=WARM, events=events, deadline=DEADLINE) as side:
        return side.result()["per_second"]


def run_round(stage: Stage) -> dict[str, Sample]:
    """Short ones before and after the long one: each is over in a moment, and a moment can be a slow one."""
    before = [per_second(stage, SHORT) for _ in range(3)]
    long = per_second(stage, stage.long(LONG))
    after = [per_second(stage, SHORT) for _ in range(3)]
    stage.clear()
    return {"backlog": Sample(ours=long, raw=median(before + after))}


BACKLOG = Measurement(
    name="backlog",
    rows=(Row(name="backlog", what="backlog of 1,000,000 ÷ one of 40,000", unit="events/s", at_least=0.95),),
    run_round=run_round,
)
