"""What publishing adds to a model's save, against a hand-written post_save receiver with on_commit and PUBLISH."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import Stage

SAVES_ALONE = 600
TRANSACTIONS = 10
PLACES = {"sqlite": "SQLite file", "postgres": "PostgreSQL"}


def added(per_save: dict[str, float]) -> Sample:
    """What each way of publishing costs on top of a save that nobody publishes, in µs."""
    return Sample(ours=per_save["ours"] - per_save["nobody"], raw=per_save["hand"] - per_save["nobody"])


def run_round(stage: Stage) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for database in stage.databases:
        result = stage.run("saves", database=database, saves=SAVES_ALONE, transactions=TRANSACTIONS)
        samples |= {f"save-{how}-{database}": added(per_save) for how, per_save in result.items()}
    return samples


def rows(database: str, place: str) -> tuple[Row, Row]:
    return (
        Row(name=f"save-alone-{database}", what=f"added per save, {place} ÷ by hand", unit="µs", at_most=1.0),
        Row(
            name=f"save-together-{database}",
            what=f"added per save, 100 in a transaction, {place} ÷ by hand",
            unit="µs",
            at_most=0.4,
        ),
    )


SAVES = Measurement(
    name="saves",
    rows=tuple(row for database, place in PLACES.items() for row in rows(database, place)),
    run_round=run_round,
)
