"""What the measured listener runs: it looks into the data, as the raw loop does, and counts."""

import os

from benchmarks.event import CHANNEL, ONCE, STREAM, TYPE
from benchmarks.meter import Meter
from benchmarks.project.models import Note
from redis_events import Event, receives

hit = Meter.from_environment().hit


@receives(CHANNEL, types=TYPE)
def count(event: Event) -> None:
    hit(event.data["sent"])


@receives(STREAM, types=TYPE)
def count_stream(event: Event) -> None:
    hit(event.data["sent"])


if kind := os.environ.get("BENCH_ONCE"):

    @receives(f"{ONCE}.{kind}", types=TYPE, once=kind == "1")
    def write(event: Event) -> None:
        Note.objects.create(number=event.data["id"], status=event.data["status"])
        hit(event.data["sent"])


def count_kind(event: Event) -> None:
    hit(event.data["sent"])


for number in range(int(os.environ.get("BENCH_PATTERNS", "0"))):
    receives(STREAM, types=f"shop.kind{number}.*", name=f"kind{number}")(count_kind)
