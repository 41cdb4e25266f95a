"""What an outbox adds to a save, and how fast a relay empties it, against a loop written by hand."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import Stage

SAVES = 500
EVENTS = 5_000
PLACES = {"sqlite": "SQLite file", "postgres": "PostgreSQL"}


def run_round(stage: Stage) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for database in stage.databases:
        result = stage.run("outbox", database=database, saves=SAVES, events=EVENTS)
        samples[f"outbox-write-{database}"] = Sample(ours=result["written"], raw=result["nobody"])
        added, bare = result["written"] - result["nobody"], result["inserted"] - result["nobody"]
        samples[f"outbox-row-{database}"] = Sample(ours=added, raw=bare)
        samples[f"outbox-save-{database}"] = Sample(ours=result["sent"], raw=result["nobody"])
        samples[f"outbox-relay-{database}"] = Sample(ours=result["relay"], raw=result["by_hand"])
    return samples


def rows(database: str, place: str) -> tuple[Row, ...]:
    write, save = f"save with its outbox row, {place} − unpublished", f"… and sent after the commit, {place}"
    return (
        Row(name=f"outbox-write-{database}", what=write, unit="µs", is_difference=True),
        Row(name=f"outbox-row-{database}", what=f"… ÷ a ready-made INSERT of that row, {place}", unit="µs"),
        Row(name=f"outbox-save-{database}", what=save, unit="µs", is_difference=True),
        Row(name=f"outbox-relay-{database}", what=f"relay, {place} ÷ loop by hand", unit="events/s", at_least=1.0),
    )


OUTBOX = Measurement(
    name="outbox",
    rows=tuple(row for database, place in PLACES.items() for row in rows(database, place)),
    run_round=run_round,
)
