"""Whether a long backlog is worked off as fast as a short one."""

from statistics import median

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, Stage

WARM = 2_000
SHORT = 40_000
LONG = 1_000_000
DEADLINE = 600.0


def drained(stage: Stage, events: int) -> dict[str, float]:
    """What the meter of a listener says that finds all of the events waiting."""
    stage.clear()
    stage.run("fill", events=WARM + events, deadline=DEADLINE)
    with stage.start(OUR_LISTENER, warm=WARM, events=events, deadline=DEADLINE) as side:
        return side.result()


def run_round(stage: Stage) -> dict[str, Sample]:
    """Short ones before and after the long one: each is over in a moment, and a moment can be a slow one."""
    short = [drained(stage, SHORT) for _ in range(2)]
    long = drained(stage, stage.long(LONG))
    short += [drained(stage, SHORT) for _ in range(2)]
    stage.clear()
    rows = {"backlog": "per_second", "backlog-cpu": "cpu_us"}
    return {name: Sample(ours=long[key], raw=median(each[key] for each in short)) for name, key in rows.items()}


BACKLOG = Measurement(
    name="backlog",
    rows=(
        Row(name="backlog", what="backlog of 1,000,000 ÷ one of 40,000", unit="events/s", at_least=0.95),
        # Stands still where the machine is busy with other things.
        Row(name="backlog-cpu", what="… CPU per event", unit="µs", at_most=1.05),
    ),
    run_round=run_round,
)
