"""Whether 10,000 patterns are as fast as 10, and what events that nobody wants leave behind."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, Stage

FEW, MANY = 10, 10_000
WARM = 20_000
EVENTS = 60_000
JUNK = 50_000
MORE_TIMES = 4
MARK = 500
DEADLINE = 300.0


def cpu_among(stage: Stage, patterns: int) -> float:
    """µs of CPU per event of a listener with that many patterns of types, the events spread evenly over them."""
    stage.clear()
    stage.run("fill", events=WARM + EVENTS, kinds=patterns)
    with stage.start(OUR_LISTENER, patterns=patterns, warm=WARM, events=EVENTS, deadline=DEADLINE) as side:
        return side.result()["cpu_us"]


def junk(stage: Stage) -> Sample:
    """What a listener has in MiB after events of 250,000 and of 50,000 types that no receiver wants."""
    stage.clear()
    resident = []
    with stage.listening(OUR_LISTENER, patterns=0, warm=1, events=MARK - 1, deadline=DEADLINE) as side:
        for turn in range(1 + MORE_TIMES):
            stage.run("fill", events=JUNK, kinds=JUNK, first=turn * JUNK)
            stage.run("fill", events=MARK)  # wanted ones, which the meter sees: all before them is done
            side.result()
            resident.append(side.resident_mib())
    return Sample(ours=resident[-1], raw=resident[0])


def run_round(stage: Stage) -> dict[str, Sample]:
    few, many = cpu_among(stage, FEW), cpu_among(stage, MANY)
    look_up = stage.run("match")
    return {
        "dispatch": Sample(ours=many, raw=few),
        "dispatch-channels": Sample(ours=look_up["many"], raw=look_up["few"]),
        "dispatch-junk": junk(stage),
    }


DISPATCH = Measurement(
    name="dispatch",
    rows=(
        Row(name="dispatch", what="CPU per event, 10,000 patterns of types ÷ 10", unit="µs", at_most=1.2),
        Row(name="dispatch-channels", what="look-up among 10,000 patterns of channels ÷ 10", unit="ns", at_most=1.2),
        Row(
            name="dispatch-junk",
            what="memory after 250,000 types nobody wants − after 50,000",
            unit="MiB",
            at_most=1.0,
            is_difference=True,
        ),
    ),
    run_round=run_round,
)
