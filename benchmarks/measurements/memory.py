"""What a listener needs over an idle Django process, and whether it stays there, also over a million events."""

from dataclasses import dataclass
from typing import Self

import psycopg

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, Side, Stage

EVENTS = 50_000
MORE_TIMES = 4
LONG = 1_000_000
DEADLINE = 900.0
# The thread that looks after old rows makes a round a minute; its connection is there from the first one on.
OLD_ENOUGH = 65.0
FIRST, LAST = slice(1, 4), slice(7, 10)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdings:
    """What a listener holds at one moment. `connections` are those of PostgreSQL, None without it."""

    mib: float
    descriptors: int
    connections: int | None

    @classmethod
    def of(cls, side: Side, stage: Stage) -> Self:
        return cls(mib=side.resident_mib(), descriptors=side.descriptors(), connections=database_connections(stage))


def database_connections(stage: Stage) -> int | None:
    """How many connections the server of the database counts, without the one that asks."""
    database = stage.databases.get("postgres")
    if database is None:
        return None
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    with psycopg.connect(host=database["HOST"], user=database["USER"], dbname=database["NAME"]) as connection:
        return connection.execute(others, [database["NAME"]]).fetchone()[0]


def held_over_a_stream(stage: Stage) -> list[Holdings]:
    """After each tenth of the long run, which a listener works off as it comes."""
    events = stage.long(LONG) // 10
    where = "postgres" if "postgres" in stage.databases else "sqlite"
    held = []
    with stage.listening(OUR_LISTENER, database=where, deadline=DEADLINE, warm=1, events=events - 1) as side:
        for tenth in range(10):
            stage.run("fill", events=events, deadline=DEADLINE)
            side.result()
            if tenth == FIRST.start:
                side.wait_until_old(OLD_ENOUGH)
            held.append(Holdings.of(side, stage))
    return held


def stream_round(stage: Stage) -> dict[str, Sample]:
    """The most that was seen early and late: a connection may just be between its closing and its opening, and the
    allocator gives a MiB or so back and takes it again.
    """
    stage.clear()
    held = held_over_a_stream(stage)
    stage.clear()
    samples = {
        "stream-memory": most(held, "mib"),
        "stream-descriptors": most(held, "descriptors"),
    }
    if "postgres" in stage.databases:
        samples["stream-connections"] = most(held, "connections")
    return samples


def most(held: list[Holdings], what: str) -> Sample:
    first, last = ([getattr(each, what) for each in held[part]] for part in (FIRST, LAST))
    return Sample(ours=max(last), raw=max(first))


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
STREAM_MEMORY = Measurement(
    name="stream-memory",
    rows=(
        Row(
            name="stream-memory",
            what="memory of a stream listener, 800,000 to 1,000,000 events − 200,000 to 400,000",
            unit="MiB",
            at_most=1.0,
            is_difference=True,
        ),
        Row(
            name="stream-descriptors",
            what="… its open files and sockets",
            unit="open",
            at_most=0.0,
            is_difference=True,
        ),
        Row(
            name="stream-connections",
            what="… its connections to PostgreSQL",
            unit="open",
            at_most=0.0,
            is_difference=True,
        ),
    ),
    run_round=stream_round,
)
