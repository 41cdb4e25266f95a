"""docs/reliability.md: what the kill harness has measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}

FIGURES = ("trials", "kills", "violations", "seconds")

HEAD = """# Reliability, measured

Written by `make chaos ARGS="--seed N --report docs/reliability.md"`, or by `python -m tests.chaos.report` from the
files of campaigns that had some rows each; nothing in here is typed by hand.

A trial runs a real Valkey with an append-only file and a real database. Publisher, relay and listener are processes of
their own. They meet `kill -9` at a named place of the row, or at any call or return of anything they run (*random*), up
to three times in a row, so that what the first kill leaves is what the second finds; *servers* are killed while all are
at work. Then everything is healed and worked off, and a checker looks for what must not be:

{invariants}.

No violation in n cuts bounds the rate at 3 / n, with 95 % confidence. That is the figure given, not "never".
"""

INVARIANTS = """I1 committed and not dead ⇒ the effect exists · I2 effect ⇒ committed · I3 one database effect per event
and `once` receiver · I4 outside effects ≤ the event's entries and cuts · I5 entries per event ≤ 1 + cuts, and ≤
sendings · I7 nothing is left over · I8 dead letters hold the bytes that were sent · I9 all done within 5 s · I10
nothing is settled that did not commit"""

SHORTENED = """Waits that only let time pass are cut short: the heartbeat of the dead and their claims of retries are
free at once, the seconds of silence that make a listener dead and the head start of a row's own process are 0.
*Violations* are the trials in which the checker found any.
"""


def written(campaigns: Sequence[dict[str, Any]], planted: Sequence[dict[str, Any]]) -> str:
    """The whole document."""
    parts = [HEAD.format(invariants=INVARIANTS), _facts(campaigns), _table(campaigns), SHORTENED]
    return "\n".join([*parts, _planted(planted)] if planted else parts)


def joined(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One campaign for each database out of those that had some of the rows, in the order of the rows."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        whole = found.setdefault(part["database"], {**part, "rows": []})
        whole["rows"] = sorted(_summed([*whole["rows"], *part["rows"]]), key=lambda row: _place(row["row"]))
    return list(found.values())


def _summed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row that was played more than once counts with all its trials."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = found.setdefault(row["row"], {**row, **dict.fromkeys(FIGURES, 0)})
        before.update({figure: before[figure] + row[figure] for figure in FIGURES})
    return list(found.values())


def _place(row: str) -> tuple[int, str]:
    return (int(row), "") if row.isdecimal() else (1_000, row)


def _facts(campaigns: Sequence[dict[str, Any]]) -> str:
    lines = []
    for each in campaigns:
        kills, violations = (sum(row[what] for row in each["rows"]) for what in ("kills", "violations"))
        minutes = sum(row["seconds"] for row in each["rows"]) / 60
        name, bound = NAMES[each["database"]], _bound(kills, violations)
        lines.append(
            f"- {name}, seed {each['seed']}: {kills:,} cuts, {violations} violations, {bound}; {minutes:.0f} minutes."
        )
    return "\n".join([*lines, ""])


def _table(campaigns: Sequence[dict[str, Any]]) -> str:
    head = "".join(f" {NAMES[each['database']]}: trials | cuts | violations | 95 % bound |" for each in campaigns)
    lines = [f"| row | what is cut |{head}", "|---|---|" + "---|" * 4 * len(campaigns)]
    for name in [row["row"] for row in campaigns[0]["rows"]]:
        rows = [next(row for row in each["rows"] if row["row"] == name) for each in campaigns]
        titles = max((row["titles"] for row in rows), key=len)
        cells = "".join(_cells(row) for row in rows)
        lines.append(f"| {name} | {'; '.join(titles)} |{cells}")
    return "\n".join([*lines, ""])


def _cells(row: dict[str, Any]) -> str:
    bound = _bound(row["kills"], row["violations"])
    return f" {row['trials']} | {row['kills']} | {row['violations']} | {bound} |"


def _bound(cuts: int, violations: int) -> str:
    """The rule of three; with violations there is nothing to bound."""
    return f"≤ {300 / cuts:.2g} %" if cuts and not violations else "–"


def _planted(planted: Sequence[dict[str, Any]]) -> str:
    lines = [
        "## The suite tested",
        "",
        "Each of these bugs was planted in a copy of the package; the same seeds pass with the package as it is.",
        "",
        "| planted bug | found by | invariants that broke | database | seed |",
        "|---|---|---|---|---|",
    ]
    for each in planted:
        broke = " ".join(each["invariants"]) or "**missed**"
        name = each["name"].replace("-", " ")
        lines.append(f"| {name} | row {each['row']} | {broke} | {NAMES[each['database']]} | `{each['seed']}` |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    from .planted import hunt_all

    print(written(joined([json.loads(Path(name).read_text()) for name in sys.argv[1:]]), list(hunt_all())), end="")
