"""The invariants, each a function from the lines of a history to what contradicts it.

I1 committed and not dead ⇒ effect exists · I2 effect ⇒ committed · I3 one database effect per (event, receiver) ·
I4 outside effects ≤ 1 + cuts · I5 stream entries per event ≤ 1 + cuts, and one per sending · I7 nothing is left over ·
I8 dead letters hold the bytes that were sent · I9 consuming again within 5 s · I10 nothing settled that did not commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .history import Line, of

ONCE = ("first", "third")
OUTSIDE = ("second",)
RECEIVERS = ("first", "second", "third")
RECOVERS_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant: which, and what broke it."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def check(lines: list[Line]) -> list[Violation]:
    """Everything that is wrong with a trial."""
    return [Violation(name, what) for name, find in INVARIANTS.items() for what in find(lines)]


def no_loss(lines: list[Line]) -> Iterator[str]:
    """I1. A dead letter is an end as well, but only for what its receiver cannot do."""
    effects = {(line["order"], line["receiver"]) for line in of(lines, "effect")}
    dead = {(int(line["key"]), line["receiver"]) for line in of(lines, "held", state="dead") if line["receiver"]}
    for order, kind in _promised(lines).items():
        for receiver in RECEIVERS:
            if (order, receiver) not in effects | dead:
                yield f"order {order} is committed and {receiver} did nothing about it"
            if (order, receiver) in dead and kind not in ("bad", "poison"):
                yield f"order {order} is a dead letter of {receiver} and nothing was wrong with it"


def no_ghosts(lines: list[Line]) -> Iterator[str]:
    """I2."""
    promised = _promised(lines)
    for line in of(lines, "effect"):
        if line["order"] not in promised:
            yield f"{line['receiver']} did something about order {line['order']}, which was never committed"


def one_effect(lines: list[Line]) -> Iterator[str]:
    """I3."""
    counts = Counter((line["source"], line["event"], line["receiver"]) for line in of(lines, "effect"))
    for (_, event, receiver), count in counts.items():
        if receiver in ONCE and count > 1:
            yield f"{receiver} has {count} effects of event {event}"


def bounded_runs(lines: list[Line]) -> Iterator[str]:
    """I4. Each entry of an event and each replay may run it once, each cut once more, and what failed is run again."""
    extra = _cuts(lines, "listener", "redis", "database") + sum(1 for _ in of(lines, "replay"))
    entries = Counter((line["source"], line["event"]) for line in of(lines, "entry"))
    runs = Counter((line["source"], line["event"]) for line in of(lines, "ran", receiver="second"))
    failed = Counter((line["source"], line["event"]) for line in of(lines, "failed", receiver="second"))
    for event, count in runs.items():
        if count > max(1, entries[event]) + extra + failed[event]:
            yield f"second ran {count} times over event {event[1]}: {entries[event]} entries, {extra} cuts or replays"


def bounded_entries(lines: list[Line]) -> Iterator[str]:
    """I5. An entry more than there were sendings is one that a client sent again behind our back."""
    cuts = _cuts(lines, "publisher", "relay", "redis", "database")
    begun = Counter(event for line in of(lines, "sending") for event in line["events"])
    for (source, event), count in Counter((line["source"], line["event"]) for line in of(lines, "entry")).items():
        if source == "shop" and count > 1 + cuts:
            yield f"event {event} is {count} entries with {cuts} cuts"
        if source == "shop" and count > begun[event]:
            yield f"event {event} is {count} entries and was sent {begun[event]} times"


def nothing_left(lines: list[Line]) -> Iterator[str]:
    """I7."""
    for line in of(lines, "left"):
        yield f"{line['count']} left in {line['where']}"


def whole_dead_letters(lines: list[Line]) -> Iterator[str]:
    """I8."""
    sent = {line["body"] for line in of(lines, "entry")}
    for line in of(lines, "held", state="dead"):
        if line["body"] not in sent:
            yield f"the dead letter of event {line['event']} has bytes that nobody sent"


def quick_recovery(lines: list[Line]) -> Iterator[str]:
    """I9."""
    for line in of(lines, "recovered"):
        if line["seconds"] > RECOVERS_WITHIN:
            yield f"it took {line['seconds']:.1f} s until everything was done"


def honest_settling(lines: list[Line]) -> Iterator[str]:
    """I10. At the moment of a cut, what is settled has its effect or its held row for each receiver."""
    for snapshot in of(lines, "snapshot"):
        done = {tuple(each) for each in snapshot["done"]}
        for source, event in snapshot["settled"]:
            lacking = [receiver for receiver in RECEIVERS if (source, event, receiver) not in done]
            if lacking:
                yield f"event {event} was settled with nothing committed by {', '.join(lacking)}"


def no_crash(lines: list[Line]) -> Iterator[str]:
    """What nobody planned: an actor that raised or hung."""
    for line in of(lines, "crashed"):
        yield line["error"]


INVARIANTS: dict[str, Callable[[list[Line]], Iterable[str]]] = {
    "I1": no_loss,
    "I2": no_ghosts,
    "I3": one_effect,
    "I4": bounded_runs,
    "I5": bounded_entries,
    "I7": nothing_left,
    "I8": whole_dead_letters,
    "I9": quick_recovery,
    "I10": honest_settling,
    "crash": no_crash,
}


def _promised(lines: list[Line]) -> dict[int, str]:
    """The committed orders, and what another service has sent; with their kinds."""
    return {line["order"]: line["kind"] for what in ("order", "sent") for line in of(lines, what)}


def _cuts(lines: list[Line], *who: str) -> int:
    return sum(line["who"] in who for line in of(lines, "cut"))
