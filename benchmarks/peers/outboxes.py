"""Our outbox beside others', all in turn: what one adds to a save, and how fast its relay empties it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.peers.contestants import Contestant
from benchmarks.stage import Stage

DEADLINE = 300.0
SAVES = 400
PLACES = {"sqlite": "SQLite file", "postgres": "PostgreSQL"}

OURS = Contestant(runner="outbox_ours", environment="ours", events=40_000, warm=SAVES)
THEIRS = tuple(
    Contestant(runner=f"outbox_{name.replace('-', '_')}", environment=name, events=2_000, warm=SAVES)
    for name in ("django-outbox-pattern", "django-jaiminho", "django-broadcaster", "django-domain-events")
)

Measured = dict[str, float]


def beside_those_here() -> Measurement:
    """Ours and every other one whose environment is there."""
    here = [each for each in THEIRS if each.is_here]
    rows = tuple(row for database, place in PLACES.items() for row in rows_of(database, place, here))
    return Measurement(name="outbox", rows=rows if here else (), run_round=partial(run_round, here))


def rows_of(database: str, place: str, peers: Sequence[Contestant]) -> tuple[Row, ...]:
    """What counts is the best of them; then each, to see who that was. None of them sends at a save."""
    return (
        Row(name=f"relay-{database}", what=f"relay, {place} ÷ best of them", unit="events/s", at_least=20),
        *(Row(name=f"relay-{database}-{x.environment}", what=f"… ÷ {x.environment}", unit="events/s") for x in peers),
        Row(name=f"relay-cpu-{database}", what="… CPU per event ÷ least of them", unit="µs"),
        Row(name=f"write-{database}", what=f"added per save, {place} ÷ least of them", unit="µs", at_most=0.6),
        *(Row(name=f"write-{database}-{x.environment}", what=f"… ÷ {x.environment}", unit="µs") for x in peers),
        Row(name=f"sent-{database}", what="… and sent after the commit, theirs not sent", unit="µs", at_most=0.6),
    )


def run_round(peers: Sequence[Contestant], stage: Stage) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for database in stage.databases if peers else ():
        ours = measured(stage, OURS, database)
        theirs = {peer.environment: measured(stage, peer, database) for peer in peers}
        samples |= compared(database, ours, theirs)
    return samples


def measured(stage: Stage, contestant: Contestant, database: str) -> Measured:
    """What its runner prints, with an empty server and an empty database."""
    stage.server.client().flushall()
    with stage.start(
        ("-m", f"benchmarks.peers.runners.{contestant.runner}"),
        database=stage.empty_database(database),
        python=contestant.python,
        warm=contestant.warm,
        events=contestant.events,
        deadline=DEADLINE,
    ) as side:
        return side.result()


def compared(database: str, ours: Measured, theirs: Mapping[str, Measured]) -> dict[str, Sample]:
    rates, added, cpu = (
        {name: each[what] for name, each in theirs.items()} for what in ("per_second", "write", "cpu_us")
    )
    least, write = min(added.values()), ours["write"]
    return {
        f"relay-{database}": Sample(ours=ours["per_second"], raw=max(rates.values())),
        **{f"relay-{database}-{name}": Sample(ours=ours["per_second"], raw=rate) for name, rate in rates.items()},
        f"relay-cpu-{database}": Sample(ours=ours["cpu_us"], raw=min(cpu.values())),
        f"write-{database}": Sample(ours=write, raw=least),
        **{f"write-{database}-{name}": Sample(ours=write, raw=µs) for name, µs in added.items()},
        f"sent-{database}": Sample(ours=ours["sent"], raw=least),
    }
