"""What `once=True` costs a receiver that writes one row: a stream worked off with it and without it."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, Stage

WARM = 500
EVENTS = 4_000


def drained(stage: Stage, *, database: str, once: int) -> float:
    """Events a second."""
    with stage.start(OUR_LISTENER, database=database, warm=WARM, events=EVENTS, once=once) as side:
        return side.result()["per_second"]


def once_round(stage: Stage) -> dict[str, Sample]:
    samples = {}
    for database in stage.databases:
        for once in (0, 1):
            stage.run("fill_once", database=database, events=WARM + EVENTS, once=once)
        plain, once_only = (drained(stage, database=database, once=once) for once in (0, 1))
        samples[f"once-{database}"] = Sample(ours=once_only, raw=plain)
    return samples


ONCE = Measurement(
    name="once",
    rows=(
        Row(name="once-postgres", what="once ÷ without it, one INSERT, PostgreSQL", unit="events/s", at_least=0.9),
        Row(name="once-sqlite", what="once ÷ without it, one INSERT, SQLite file", unit="events/s", at_least=0.9),
    ),
    run_round=once_round,
)
