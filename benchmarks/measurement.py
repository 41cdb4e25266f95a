"""What a measurement is: rows with a goal each, and a function that runs one round of both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.stage import Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One round's figure of each side, in the row's unit."""

    ours: float
    raw: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table.

    `unit` is the sides' unit. The row compares them as ours ÷ raw, or as ours − raw where `is_difference`; `at_least`
    and `at_most` are the goal for that figure.
    """

    name: str
    what: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    is_difference: bool = False

    def compare(self, sample: Sample) -> float:
        """The figure the goal speaks of."""
        return sample.ours - sample.raw if self.is_difference else sample.ours / sample.raw

    def is_met(self, figure: float) -> bool:
        """Whether `figure` reaches the goal; a row without one is always met."""
        too_low = self.at_least is not None and figure < self.at_least
        return not (too_low or (self.at_most is not None and figure > self.at_most))

    @property
    def goal(self) -> str:
        """The goal as the table shows it."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "–" if self.at_most is None else f"≤ {self.at_most:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A named group of rows that one function measures together."""

    name: str
    rows: tuple[Row, ...]
    run_round: Callable[[Stage], dict[str, Sample]]


@dataclass(slots=True)
class Result:
    """The samples of one row, one per round."""

    row: Row
    samples: list[Sample] = field(default_factory=list)

    @property
    def figures(self) -> list[float]:
        return [self.row.compare(sample) for sample in self.samples]

    @property
    def figure(self) -> float:
        """The median of the per-round comparisons."""
        return median(self.figures)

    @property
    def is_met(self) -> bool:
        return self.row.is_met(self.figure)


def run_rounds(
    chosen: Iterable[Measurement], *, stage: Stage, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    """Run every chosen measurement once per round, so that a slow minute hits all of them.

    Rows that got no sample, for want of a database, are left out.
    """
    chosen = list(chosen)
    results = {row.name: Result(row) for measurement in chosen for row in measurement.rows}
    for number in range(1, rounds + 1):
        for measurement in chosen:
            progress(f"round {number}/{rounds}: {measurement.name}")
            for name, sample in measurement.run_round(stage).items():
                results[name].samples.append(sample)
                progress(f"  {name}: {results[name].row.compare(sample):.3g}")
    return [result for result in results.values() if result.samples]
