"""How much is going on: what listeners counted, by minute and by receiver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from .. import tally
from ..tally import MinuteCounts, RunCounts
from .facts import Minute
from .scene import noted, scene
from .server import Server, at

DAY = 24
"""Hours that the numbers of a receiver are for."""
RECENT = 5
"""Minutes that the speed of a channel or group is of."""
MINUTES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What became of a receiver's runs in the last 24 hours. ``p50`` and ``p95`` are seconds of a run."""

    done: int | None = None
    retried: int | None = None
    dead: int | None = None
    p50: float | None = None
    p95: float | None = None
    last: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What was counted, oldest minute first. The last minute is not over yet."""

    minutes: Sequence[MinuteCounts | None]
    receivers: dict[tuple[str, str], RunCounts] | None

    def published(self, channel: str) -> float | None:
        """Events a stream takes a minute, over the last five; None where no listener noted it."""
        noted = [(each.start, each.added[channel]) for each in self._recent() if channel in each.added]
        if len(noted) < 2 or noted[-1][1] < noted[0][1]:  # a stream that was lost counts from 0 again
            return None
        return (noted[-1][1] - noted[0][1]) / ((noted[-1][0] - noted[0][0]) / 60)

    def settled(self, channel: str, group: str) -> float | None:
        """Deliveries a group settles a minute, over the last five that are over; None where nobody says."""
        whole = self._recent()[:-1]
        if not whole:
            return None
        return sum(each.settled.get(f"{channel} {group}", 0) for each in whole) / len(whole)

    def _recent(self) -> list[MinuteCounts]:
        return [each for each in self.minutes[-RECENT - 1 :] if each]

    def runs(self, service: str, receiver: str) -> Runs:
        """A receiver's last 24 hours: zeros where nothing ran, None where the server does not say."""
        if self.receivers is None:
            return Runs()
        counts = self.receivers.get((service, receiver))
        if counts is None:
            return Runs(done=0, retried=0, dead=0)
        last = noted(counts.last) if counts.last else None
        return Runs(done=counts.done, retried=counts.retry, dead=counts.dead, p50=counts.p50, p95=counts.p95, last=last)


def rates(server: Server) -> Rates:
    """What was counted in the last hour and the last day: one round trip at the first question of a look."""
    if "rates" not in server.memo:
        server.memo["rates"] = _ask(server)
    found: Rates = server.memo["rates"]
    return found


def _ask(server: Server) -> Rates:
    moment = scene(server).moment.timestamp()
    minutes, hours = tally.last_minutes(MINUTES, at=moment), tally.last_hours(DAY, at=moment)
    answers = server.ask(*tally.asked_minutes(minutes), *tally.asked_hours(hours))
    return Rates(
        minutes=tally.read_minutes(minutes, answers=answers[:MINUTES]),
        receivers=tally.read_hours(answers[MINUTES:]),
    )


def throughput(minutes: int = MINUTES, *, server: Server | None = None) -> list[Minute]:
    """What all services did in each of the last minutes (60 at most), oldest first; the last one is not over yet."""
    with at(server) as asked:
        known, start = rates(asked), scene(asked).moment
    first = tally.last_minutes(MINUTES, at=start.timestamp())[0]
    pairs = zip(known.minutes, _published(known.minutes), strict=True)
    return [_minute(number, counts, published) for number, (counts, published) in enumerate(pairs, first)][-minutes:]


def _minute(number: int, counts: MinuteCounts | None, published: int | None) -> Minute:
    return Minute(
        start=datetime.fromtimestamp(number * 60, tz=UTC),
        published=published,
        settled=sum(counts.settled.values()) if counts else None,
        done=counts.done if counts else None,
        retried=counts.retry if counts else None,
        dead=counts.dead if counts else None,
    )


def _published(minutes: Sequence[MinuteCounts | None]) -> list[int | None]:
    """By how much the streams' counters went up from minute to minute; None where no listener noted any."""
    last: dict[str, int] = {}
    found: list[int | None] = []
    for counts in minutes:
        noted = counts.added if counts else {}
        growth = [max(0, number - last[channel]) for channel, number in noted.items() if channel in last]
        last.update(noted)
        found.append(sum(growth) if growth else None)
    return found
