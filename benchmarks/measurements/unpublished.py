"""What having redis_events installed adds to the save of a model that nobody publishes."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import Stage

SAVES = 1_500
# Where a process happens to lie in memory moves a save by more than what is looked for: the fastest of a few.
PROCESSES = 3


def run_round(stage: Stage) -> dict[str, Sample]:
    raw, ours = [], []
    for _ in range(PROCESSES):
        raw.append(stage.run("unpublished_saves", saves=SAVES, without_us=True)["us"])
        ours.append(stage.run("unpublished_saves", saves=SAVES)["us"])
    return {"unpublished": Sample(ours=min(ours), raw=min(raw))}


UNPUBLISHED = Measurement(
    name="unpublished",
    rows=(
        Row(
            name="unpublished",
            what="save of a model nobody publishes − the same without redis_events",
            unit="µs",
            at_most=2.0,
            is_difference=True,
        ),
    ),
    run_round=run_round,
)
