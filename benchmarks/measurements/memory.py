"""What a listener needs over an idle Django process, and whether it stays there."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, Side, Stage

EVENTS = 50_000
MORE_TIMES = 4


def idle_mib(stage: Stage) -> float:
    with stage.start(("-m", "benchmarks.sides.idle"), without_us=True) as side:
        side.wait_for_line("Idle")
        return side.resident_mib()


def mib_after(stage: Stage, side: Side, *, times: int) -> float:
    """What the listener has after `times` more blasts, worked off one after the other."""
    for _ in range(times):
        stage.run("blast", events=EVENTS)
        side.result()
    return side.resident_mib()


def run_round(stage: Stage) -> dict[str, Sample]:
    idle = idle_mib(stage)
    with stage.listening(OUR_LISTENER, warm=1, events=EVENTS - 1) as side:
        first = mib_after(stage, side, times=1)
        later = mib_after(stage, side, times=MORE_TIMES)
    return {"memory": Sample(ours=first, raw=idle), "memory-growth": Sample(ours=later, raw=first)}


MEMORY = Measurement(
    name="memory",
    rows=(
        Row(
            name="memory",
            what="memory of a listener after 50,000 events − idle Django",
            unit="MiB",
            at_most=25.0,
            is_difference=True,
        ),
        Row(
            name="memory-growth",
            what="… after 250,000 events − after 50,000",
            unit="MiB",
            at_most=1.0,
            is_difference=True,
        ),
    ),
    run_round=run_round,
)
