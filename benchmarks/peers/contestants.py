"""Who takes part, in what environment, with how many events; and what we mean to reach beside each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurement import Row
from benchmarks.stage import ROOT


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One consumer: `benchmarks.peers.runners.<runner>` in the environment `.venvs/peers-<environment>`.

    `warm` events go by before the clock starts; `events` are timed.
    """

    runner: str
    environment: str
    events: int
    warm: int
    is_pubsub: bool = False

    @property
    def python(self) -> Path:
        return ROOT / ".venvs" / f"peers-{self.environment}" / "bin" / "python"

    @property
    def is_here(self) -> bool:
        """Whether make could finish its environment."""
        return (self.python.parent.parent / "stamp").exists()


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A contestant that is not us, and the ratio ours ÷ its events/s to reach.

    `needs` says what is missing where its environment is not there.
    """

    contestant: Contestant
    what: str
    at_least: float
    needs: str = "packages that could not be installed"

    @property
    def ours(self) -> Contestant:
        return OURS_PUBSUB if self.contestant.is_pubsub else OURS

    @property
    def rows(self) -> tuple[Row, Row]:
        """What counts, and what stands still where the machine is busy with other things."""
        name = self.contestant.runner
        return (
            Row(name=name, what=f"ours ÷ {self.what}", unit="events/s", at_least=self.at_least),
            Row(name=f"{name}-cpu", what="… CPU per event", unit="µs"),
        )


OURS = Contestant(runner="ours", environment="ours", events=80_000, warm=2_000)
OURS_PUBSUB = Contestant(runner="ours", environment="ours", events=60_000, warm=2_000, is_pubsub=True)

PEERS = (
    Peer(
        contestant=Contestant(runner="raw", environment="ours", events=40_000, warm=2_000),
        what="redis-py by hand, XREADGROUP COUNT 100",
        at_least=1.5,
    ),
    Peer(
        contestant=Contestant(runner="edx", environment="edx", events=8_000, warm=200),
        what="edx-event-bus-redis",
        at_least=30,
    ),
    Peer(
        contestant=Contestant(runner="django_event_bus", environment="django-event-bus", events=16_000, warm=200),
        what="django-event-bus",
        at_least=8,
        needs="Python 3.13 or newer",
    ),
    Peer(
        contestant=Contestant(runner="faststream_stream", environment="faststream", events=8_000, warm=200),
        what="FastStream, stream",
        at_least=30,
    ),
    Peer(
        contestant=Contestant(runner="faststream_batch", environment="faststream", events=20_000, warm=1_000),
        what="FastStream, stream, batch=100",
        at_least=5,
    ),
    Peer(
        contestant=Contestant(runner="celery_solo", environment="celery", events=3_000, warm=200),
        what="celery, solo",
        at_least=80,
    ),
    Peer(
        contestant=Contestant(
            runner="faststream_pubsub", environment="faststream", events=10_000, warm=400, is_pubsub=True
        ),
        what="FastStream, pub/sub",
        at_least=30,
    ),
)
