"""The results as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median

from benchmarks.measurement import Result


def table(results: Sequence[Result], *, other: str = "raw") -> str:
    """A table with one line per row, columns padded to the widest cell; `other` heads what ours is compared with."""
    headings = ("measurement", "ours", other, "figure", "min–max", "goal", "")
    lines = [headings, *(_cells(result) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(_padded(line, widths) for line in lines)


def as_json(results: Sequence[Result]) -> str:
    """Every row with all its samples, as one JSON document."""
    return json.dumps([_document(result) for result in results], indent=2, ensure_ascii=False)


def _cells(result: Result) -> tuple[str, ...]:
    row, figures = result.row, result.figures
    sign = f" {row.unit}" if row.is_difference else "×"
    return (
        row.what,
        f"{_number(median(sample.ours for sample in result.samples))} {row.unit}",
        f"{_number(median(sample.raw for sample in result.samples))} {row.unit}",
        f"{result.figure:.2f}{sign}",
        f"{min(figures):.2f}–{max(figures):.2f}",
        row.goal,
        "ok" if result.is_met else "MISSED",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def _document(result: Result) -> dict[str, object]:
    return {
        "name": result.row.name,
        "what": result.row.what,
        "unit": result.row.unit,
        "goal": result.row.goal,
        "figure": result.figure,
        "figures": result.figures,
        "ours": [sample.ours for sample in result.samples],
        "raw": [sample.raw for sample in result.samples],
        "is_met": result.is_met,
    }
