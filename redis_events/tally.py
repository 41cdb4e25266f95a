"""Statistics: counted where receivers run, told to Redis with the heartbeat, read for pages.

Two kinds of hashes, shared by all services. Of a minute (``redis-events:stats:<unix minute>``): ``settled <channel>
<group>``, ``done``, ``retry``, ``dead`` and ``added <channel>``, the stream's entries-added. Of an hour
(``…:stats:hour:<unix hour>``): ``done``, ``retry``, ``dead``, ``last`` and ``ms<bucket>``, each followed by
``<service> <receiver>``.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .conf import NAME, conf
from .events import CENTURY
from .retry import Outcome
from .runner import Result
from .transports.base import Delivery
from .transports.client import ONE_CHANNEL_ONLY, Command, ErrorReply, by_name
from .transports.scripts import ADDED

SAMPLE, FEW = 8, 20
"""Of a batch with more than a few results every eighth run is timed: all of them would take as long as the counting."""
MINUTE_KEPT = 7_200
"""Seconds."""
MOST_NAMES = 1_000
"""Channels of one minute that a process counts by name: on pub/sub anybody makes some up."""
MOST_TIMED = 2_000
"""Durations kept between two heartbeats: enough for a percentile, and 1 ms of the keeper's time."""
MOST_TOLD = 1_000
"""Numbers told with one heartbeat; of thousands of receivers the others have their turn with the next."""
MOST_UNTOLD = 50_000
"""Numbers kept while Redis is away; then the oldest go."""
REST = "*"
"""Stands for all other channels; none has that name."""
HOURS = "redis-events:stats:hour:"
NO_SCRIPTS = ("NOPERM", "ERR")
"""Error codes of a server that runs no script for us: not allowed, or EVAL has another name there."""
STEP = math.log(1.2)
"""Durations a fifth apart share no bucket: the middle of one is within 10 % of what is in it."""


class Tally:
    """What this process has done and not told yet. Listeners and the retrier count, the keeper tells."""

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self._settled: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Channels by group."""
        self._runs: Counter[str] = Counter()
        self._failed: Counter[tuple[str, Outcome]] = Counter()
        self._timed: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        """Seconds of runs by receiver, and for how many runs each stands. No tuple for each: what lives on and is
        tracked makes Python's garbage collector run: that took several times as long as all of the counting.
        """
        self._sampled = 0
        self._turn = 0
        self._untold: dict[tuple[str, str, str], int] = {}
        """Numbers by the command, key and field that take them, oldest first."""
        self._minute = 0
        self._names: set[str] = set()
        """The channels of this minute."""
        self._watched: Sequence[str] = ()
        self._runs_scripts = True
        """Whether the server has not refused to."""
        self._asked: list[Command] = []

    # -------------------------------------------------------------- counting

    def note(self, results: Sequence[Result], *, failed: Sequence[Result], settled: Sequence[Delivery] = ()) -> None:
        """Count runs, those of them that ``failed``, and settled deliveries. Safe in any thread.

        A hundred with one channel and one receiver cost 7 µs, with several of each 13 µs.
        """
        receivers = [result.run.receiver.name for result in results]
        step = SAMPLE if len(results) > FEW else 1
        with self._counting:
            _add(self._runs, receivers)
            _add_by_group(self._settled, settled)
            self._turn += 1  # from another one on each time, so that receivers which take turns are all timed
            if self._sampled < MOST_TIMED:
                for result in results[self._turn % step :: step]:
                    self._timed[result.run.receiver.name, step].append(result.seconds)
                    self._sampled += 1
            for result in failed:
                self._failed[result.run.receiver.name, result.verdict.outcome] += 1

    # -------------------------------------------------------------- telling, in one thread

    def watch(self, channels: Sequence[str]) -> None:
        """Ask, with what is told next, how many entries these streams have had since they were made."""
        self._watched = channels[:MOST_NAMES]

    def commands(self, *, at: float | None = None) -> list[Command]:
        """What tells Redis a beat's worth of what was counted; ``at`` is in seconds since 1970.

        ``heard`` is to get the replies. Without them the same is told once more, and counts twice if it was only they
        that were lost.
        """
        self._take(time.time() if at is None else at)
        self._asked = [(*place, number) for place, number in islice(self._untold.items(), MOST_TOLD)]
        keys = dict.fromkeys(key for _, key, _, _ in self._asked)
        return [
            *((verb, conf.redis_name(key), name, number) for verb, key, name, number in self._asked),
            *(("EXPIRE", conf.redis_name(key), _seconds_kept(key)) for key in keys),
            *(self._question(conf.redis_name(channel)) for channel in self._watched),
        ]

    def _question(self, name: str) -> Command:
        return ("EVAL", ADDED, 1, name) if self._runs_scripts else ("XINFO", "STREAM", name)

    @property
    def is_told(self) -> bool:
        """Whether nothing is left to tell."""
        return not (self._untold or self._settled or self._runs)

    def heard(self, answers: Sequence[Any]) -> str:
        """Forget what was told, and note what was asked; the first refusal, ``""`` when there is none.

        What the server refuses for now (out of memory) is kept, and told again.
        """
        told, streams = answers[: len(self._asked)], answers[len(answers) - len(self._watched) :]
        for (verb, key, name, _), answer in zip(self._asked, told, strict=True):
            if not isinstance(answer, ErrorReply) or answer.code in ONE_CHANNEL_ONLY:
                del self._untold[verb, key, name]
        for channel, answer in zip(self._watched, streams, strict=True):
            self._note_added(channel, answer)
        self._watched = ()
        return next((str(answer) for answer in told if isinstance(answer, ErrorReply)), "")

    def _note_added(self, channel: str, answer: Any) -> None:
        """Redis 6.2 does not know it. Where scripts are refused, the next look goes without."""
        self._runs_scripts = self._runs_scripts and not (isinstance(answer, ErrorReply) and answer.code in NO_SCRIPTS)
        added = by_name(answer).get(b"entries-added") if isinstance(answer, list) else answer
        if isinstance(added, int):
            self._untold["HSET", _minute_key(self._minute), f"added {channel}"] = added

    def _take(self, at: float) -> None:
        """Make numbers for Redis of what was counted since the last time."""
        self._turn_to(int(at // 60))
        self._take_settled()
        if len(self._untold) < MOST_TOLD:  # else they wait: there are as many as receivers, however long it takes
            self._take_receivers(at)
        for place in list(self._untold)[: max(0, len(self._untold) - MOST_UNTOLD)]:
            del self._untold[place]

    def _take_settled(self) -> None:
        with self._counting:
            settled, self._settled = self._settled, defaultdict(Counter)
        for group, channels in settled.items():
            for channel, number in channels.items():
                self._increase(_minute_key(self._minute), f"settled {self._shown(channel)} {group}".rstrip(), number)

    def _take_receivers(self, at: float) -> None:
        with self._counting:
            runs, failed, timed = self._runs, self._failed, self._timed
            self._runs, self._failed = Counter(), Counter()
            self._timed, self._sampled = defaultdict(list), 0
        for name, number in runs.items():
            failures = {outcome: failed[name, outcome] for outcome in (Outcome.RETRY, Outcome.DEAD)}
            self._take_runs(name, {Outcome.DONE: number - sum(failures.values()), **failures}, at)
        for (name, weight), times in timed.items():
            self._take_times(name, times, weight, at)

    def _take_runs(self, receiver: str, outcomes: Mapping[Outcome, int], at: float) -> None:
        hour = _hour_key(int(at // 3600))
        for outcome, number in outcomes.items():
            if number:
                self._increase(_minute_key(self._minute), str(outcome), number)
                self._increase(hour, f"{outcome} {conf.SERVICE} {receiver}", number)
        self._untold["HSET", hour, f"last {conf.SERVICE} {receiver}"] = int(at)

    def _take_times(self, receiver: str, times: Sequence[float], weight: int, at: float) -> None:
        """A run that took no time was none: the inbox had its effect already."""
        for bucket, number in Counter(_bucket(seconds) for seconds in times if seconds > 0).items():
            self._increase(_hour_key(int(at // 3600)), f"ms{bucket} {conf.SERVICE} {receiver}", number * weight)

    def _turn_to(self, minute: int) -> None:
        if minute != self._minute:
            self._names.clear()
        self._minute = minute

    def _shown(self, channel: str) -> str:
        """The name a channel is counted under."""
        if channel not in self._names and (len(self._names) >= MOST_NAMES or not NAME.fullmatch(channel)):
            return REST
        self._names.add(channel)
        return channel

    def _increase(self, key: str, name: str, number: int) -> None:
        place = "HINCRBY", key, name
        self._untold[place] = self._untold.get(place, 0) + number


def _add(counter: Counter[str], names: list[str]) -> None:
    """Count names. That all are the same one is found out in a tenth of the time that counting each takes."""
    if names and _are_one(names):
        counter[names[0]] += len(names)
    else:
        counter.update(names)


def _add_by_group(counters: defaultdict[str, Counter[str]], settled: Sequence[Delivery]) -> None:
    """Nearly every batch is of one group."""
    groups = [each.group for each in settled]
    if groups and _are_one(groups):
        _add(counters[groups[0]], [each.channel for each in settled])
        return
    for each in settled:
        counters[each.group][each.channel] += 1


def _are_one(names: list[str]) -> bool:
    return names[0] == names[-1] and names.count(names[0]) == len(names)


def _minute_key(minute: int) -> str:
    return f"redis-events:stats:{minute}"


def _hour_key(hour: int) -> str:
    return f"{HOURS}{hour}"


def _seconds_kept(key: str) -> int:
    return int(min(max(conf.KEEP_DEAD, 1.0), CENTURY)) if key.startswith(HOURS) else MINUTE_KEPT


def _bucket(seconds: float) -> int:
    return max(0, round(math.log(seconds * 1e6) / STEP))


def _seconds(bucket: int) -> float:
    return math.exp(bucket * STEP) / 1e6


# ------------------------------------------------------------------ reading


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteCounts:
    """What all listeners did in the minute that began at ``start`` (seconds since 1970).

    ``settled`` is in deliveries by channel and group (``shop.orders billing``; on pub/sub by channel), with ``*`` for
    channels that have no number of their own; ``added`` how many entries a stream had ever had when a listener last
    looked. ``done``, ``retry`` and ``dead`` are runs.
    """

    start: float
    settled: Mapping[str, int]
    added: Mapping[str, int]
    done: int
    retry: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCounts:
    """What became of a receiver's runs. ``p50`` and ``p95`` are seconds of a run within 10 %, ``last`` since 1970."""

    done: int
    retry: int
    dead: int
    p50: float | None
    p95: float | None
    last: float | None


def last_minutes(count: int, *, at: float) -> range:
    """The numbers of the last minutes, oldest first, the one of ``at`` (seconds since 1970) included."""
    return range(int(at // 60) - count + 1, int(at // 60) + 1)


def last_hours(count: int, *, at: float) -> range:
    """The numbers of the last hours, oldest first, the one of ``at`` (seconds since 1970) included."""
    return range(int(at // 3600) - count + 1, int(at // 3600) + 1)


def asked_minutes(minutes: Sequence[int]) -> list[Command]:
    """What asks for minutes; the replies are for ``read_minutes``."""
    return [("HGETALL", conf.redis_name(_minute_key(minute))) for minute in minutes]


def asked_hours(hours: Sequence[int]) -> list[Command]:
    """What asks for hours; the replies are for ``read_hours``."""
    return [("HGETALL", conf.redis_name(_hour_key(hour))) for hour in hours]


def read_minutes(minutes: Sequence[int], *, answers: Sequence[Any]) -> list[MinuteCounts | None]:
    """What the server knows of each minute: None where it did not say, zeros where nothing was noted."""
    return [_minute_counts(minute, answer) for minute, answer in zip(minutes, answers, strict=True)]


def _minute_counts(minute: int, answer: Any) -> MinuteCounts | None:
    if not isinstance(answer, list):
        return None
    numbers = dict(_numbers(answer))
    by_kind: dict[str, dict[str, int]] = {"settled": {}, "added": {}}
    for name, number in numbers.items():
        kind, _, channel = name.partition(" ")
        if channel and kind in by_kind:
            by_kind[kind][channel] = number
    runs = {str(outcome): numbers.get(str(outcome), 0) for outcome in Outcome}
    return MinuteCounts(start=minute * 60.0, settled=by_kind["settled"], added=by_kind["added"], **runs)


def read_hours(answers: Sequence[Any]) -> dict[tuple[str, str], RunCounts] | None:
    """The runs of each service and receiver in all these hours together; None when the server did not say."""
    if not any(isinstance(answer, list) for answer in answers):
        return None
    found: dict[tuple[str, str], Counter[str]] = {}
    for answer in answers:
        for name, number in _numbers(answer if isinstance(answer, list) else ()):
            kind, service, receiver = (*name.split(" ", 2), "", "")[:3]
            counts = found.setdefault((service, receiver), Counter())
            counts[kind] = number if kind == "last" else counts[kind] + number
    return {who: _run_counts(counts) for who, counts in found.items() if who[1]}


def _run_counts(counts: Counter[str]) -> RunCounts:
    timed = [(kind[2:], number) for kind, number in counts.items() if kind.startswith("ms")]
    buckets = sorted((int(bucket), number) for bucket, number in timed if bucket.isdecimal() and len(bucket) < 4)
    runs = {str(outcome): counts[str(outcome)] for outcome in Outcome}
    last = float(counts["last"]) or None
    return RunCounts(**runs, p50=_percentile(buckets, 0.50), p95=_percentile(buckets, 0.95), last=last)


def _percentile(buckets: Sequence[tuple[int, int]], part: float) -> float | None:
    left = part * sum(number for _, number in buckets)
    for bucket, number in buckets:
        left -= number
        if left <= 0:
            return _seconds(bucket)
    return None


def _numbers(answer: Sequence[bytes]) -> Iterator[tuple[str, int]]:
    """The fields that hold a number: anybody may write others."""
    for name, value in zip(answer[::2], answer[1::2], strict=True):
        if value.isdigit() and len(value) < 20:
            yield name.decode(errors="replace"), int(value)
