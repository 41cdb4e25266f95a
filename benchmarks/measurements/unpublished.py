"""What having redis_events installed adds to the save of a model that nobody publishes."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import Stage

CHUNKS = 60


def run_round(stage: Stage) -> dict[str, Sample]:
    raw = stage.run("unpublished_saves", chunks=CHUNKS, without_us=True)["us"]
    return {"unpublished": Sample(ours=stage.run("unpublished_saves", chunks=CHUNKS)["us"], raw=raw)}


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
