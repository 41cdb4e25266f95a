"""After an outage of the server: 100,000 unsent events leave while the web goes on saving."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.measurements.outbox import PLACES
from benchmarks.stage import Stage

EVENTS = 100_000
DEADLINE = 300.0


def run_round(stage: Stage) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for database in stage.databases:
        side = ("-m", "benchmarks.sides.outage")
        with stage.start(side, database=database, events=EVENTS, deadline=DEADLINE) as process:
            result = process.result()
        samples[f"outage-relay-{database}"] = Sample(ours=result["relay"], raw=result["relay_alone"])
        samples[f"outage-save-{database}"] = Sample(ours=result["save"], raw=result["save_alone"])
    return samples


def rows(database: str, place: str) -> tuple[Row, ...]:
    relay, save = f"relay beside saves ÷ alone, {place}", f"save beside that relay ÷ alone, {place}"
    return (
        Row(name=f"outage-relay-{database}", what=relay, unit="events/s", at_least=0.8),
        Row(name=f"outage-save-{database}", what=save, unit="µs", at_most=1.5),
    )


OUTAGE = Measurement(
    name="outage",
    rows=tuple(row for database, place in PLACES.items() for row in rows(database, place)),
    run_round=run_round,
)
