"""What the signals that redis_events connects add to the save of a model that nobody publishes."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import Stage

SAVES = 2_000


def run_round(stage: Stage) -> dict[str, Sample]:
    result = stage.run("unpublished_saves", saves=SAVES)
    return {"unpublished": Sample(ours=result["with_us"], raw=result["without_us"])}


UNPUBLISHED = Measurement(
    name="unpublished",
    rows=(
        Row(
            name="unpublished",
            what="save of a model nobody publishes − the same with no signals",
            unit="µs",
            at_most=2.0,
            is_difference=True,
        ),
    ),
    run_round=run_round,
)
