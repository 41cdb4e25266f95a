"""Facts as a table for a terminal, or as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from ..wording import one_line

UNKNOWN = "—"
WIDEST = 120
"""Characters of one cell."""
UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Columns under their heads; those of numbers stand to the right. What is None is unknown, and never 0."""
    columns = range(len(heads))
    texts = [[str(head).upper() for head in heads], *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in columns]
    numeric = [bool(rows) and all(_is_number(row[column]) for row in rows) for column in columns]
    lines = (
        "  ".join(
            row[column].rjust(widths[column]) if numeric[column] else row[column].ljust(widths[column])
            for column in columns
        )
        for row in texts
    )
    return "\n".join(line.rstrip() for line in lines)


def cell(value: object) -> str:
    """One value as people read it: one line, printable."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, tuple | list):
        return one_line(", ".join(map(str, value)), limit=WIDEST)
    return one_line(value, limit=WIDEST)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def moment(value: datetime) -> str:
    """In the project's time zone, to the second."""
    return timezone.localtime(value).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str | None:
    """``0.3 s``, ``12 s``, ``3 min``, ``2.5 h``, ``4 d``; None for what is unknown."""
    if seconds is None:
        return None
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), UNITS[-1])
    number = seconds / size
    return f"{number:.1f} {unit}" if number < 10 and number != int(number) else f"{number:.0f} {unit}"


def milliseconds(seconds: float | None) -> str | None:
    """``0.31 ms``; None for what is unknown."""
    return None if seconds is None else f"{seconds * 1e3:.3g} ms"


def written(data: object) -> str:
    """What an event says: text as it is, else JSON as people read it."""
    return data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, default=str)


def document(value: object) -> str:
    """One JSON document: moments in ISO 8601, durations in seconds, bytes as hexadecimal, null for what is unknown."""
    return json.dumps(_plain(value), indent=2)


def line(value: object) -> str:
    """The same on one line."""
    return json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
