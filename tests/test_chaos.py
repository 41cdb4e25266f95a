"""The kill harness in a bounded form, the checker it relies on, and the bugs it must catch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import checker, planted
from tests.chaos.history import History, Line, of
from tests.chaos.report import written
from tests.servers import needs

ROOT = Path(__file__).parent.parent
KILLS, AT_RANDOM = 5, 25


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history")
    yield history
    history.close()


@pytest.fixture
def good(history: History) -> list[Line]:
    """The history of one order, a publisher killed after XADD, and three receivers: nothing is wrong with it."""
    history.note("sending", events=["e1"])
    history.note("cut", who="publisher", at="somewhere")
    history.note("sending", events=["e1"])
    history.note("ran", receiver="second", source="shop", event="e1", attempt=1)
    history.note("snapshot", settled=[["shop", "e1"]], done=[["shop", "e1", each] for each in checker.RECEIVERS])
    history.note("recovered", seconds=0.1)
    history.note("order", order=1, kind="good")
    for receiver in checker.RECEIVERS:
        history.note("effect", source="shop", event="e1", order=1, receiver=receiver)
    for _ in range(2):
        history.note("entry", source="shop", event="e1", body="the bytes")
    return history.lines()


def broken(lines: list[Line]) -> set[str]:
    return {violation.invariant for violation in checker.check(lines)}


def without(lines: list[Line], what: str, **facts: Any) -> list[Line]:
    gone = list(of(lines, what, **facts))
    assert gone
    return [line for line in lines if line not in gone]


# ------------------------------------------------------------------ the checker


def test_a_good_history_breaks_nothing(good: list[Line]) -> None:
    assert checker.check(good) == []


def dead(kind: str = "good", body: str = "the bytes") -> Callable[[list[Line]], list[Line]]:
    """The history with a dead letter in place of an effect."""

    def change(lines: list[Line]) -> list[Line]:
        facts = {"state": "dead", "receiver": "first", "key": "1", "event": "e1", "body": body}
        changed = [{**line, "kind": kind} if line["what"] == "order" else line for line in lines]
        return [*without(changed, "effect", receiver="first"), {"what": "held", **facts}]

    return change


def more(what: str, **facts: Any) -> Callable[[list[Line]], list[Line]]:
    return lambda lines: [*lines, {"what": what, **facts}]


def less(what: str, **facts: Any) -> Callable[[list[Line]], list[Line]]:
    return lambda lines: without(lines, what, **facts)


EFFECT = {"source": "shop", "event": "e1", "order": 1}
RAN = {"receiver": "second", "source": "shop", "event": "e1", "attempt": 1}
BROKEN = {
    "an effect is missing": (less("effect", receiver="third"), {"I1"}),
    "a dead letter of nothing wrong": (dead(), {"I1"}),
    "an effect of what was never committed": (less("order"), {"I2"}),
    "a second effect of a once receiver": (more("effect", **EFFECT, receiver="first"), {"I3"}),
    "a third run for two entries": (lambda lines: [*lines, *[{"what": "ran", **RAN}] * 2], {"I4"}),
    "a third entry with one cut": (more("entry", source="shop", event="e1", body="the bytes"), {"I5"}),
    "an entry nobody sent": (lambda lines: lines[1:], {"I5"}),
    "something left over": (more("left", where="outbox", count=1), {"I7"}),
    "other bytes in a dead letter": (dead("bad", "other bytes"), {"I8"}),
    "a slow recovery": (more("recovered", seconds=5.1), {"I9"}),
    "settled without an effect": (more("snapshot", settled=[["shop", "e1"]], done=[]), {"I10"}),
    "an actor that crashed": (more("crashed", error="Traceback"), {"crash"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_history_breaks_its_invariant_and_no_other(name: str, good: list[Line]) -> None:
    change, invariants = BROKEN[name]
    assert broken(change(good)) == invariants


ALLOWED = {
    "a dead letter of a bad order": dead("bad"),
    "a second effect of a plain receiver": more("effect", **EFFECT, receiver="second"),
    "a second run for a second entry": more("ran", **RAN),
    "a run that failed is run again": lambda lines: [
        *lines,
        *[{"what": "ran", **RAN}] * 2,
        {"what": "failed", **RAN, "error": "database is locked"},
    ],
    "another service's event with its effects": lambda lines: [
        *lines,
        {"what": "sent", "order": 1001, "kind": "good"},
        *({"what": "effect", **EFFECT, "source": "x", "order": 1001, "receiver": r} for r in checker.RECEIVERS),
    ],
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_was_never_promised_is_no_violation(name: str, good: list[Line]) -> None:
    assert broken(ALLOWED[name](good)) == set()


def test_a_history_outlives_the_process_that_wrote_it(history: History) -> None:
    pid = os.fork()
    if not pid:
        history.note("ran", receiver="first")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert [(line["what"], line["pid"]) for line in history.lines()] == [("ran", pid)]


# ------------------------------------------------------------------ the report


def test_the_report_says_the_bound_and_what_was_missed() -> None:
    row = {"row": "1", "titles": ["before COMMIT"], "trials": 40, "kills": 60, "violations": 0, "seconds": 60.0}
    campaign = {"seed": 7, "database": "sqlite", "rows": [row, {**row, "row": "2", "violations": 1}]}
    bug = {"name": "ack-before-commit", "row": "11", "database": "sqlite", "seed": "", "invariants": []}
    text = written([campaign], [bug])
    assert "| 1 | before COMMIT | 40 | 60 | 0 | ≤ 5 % |" in text
    assert "| 2 | before COMMIT | 40 | 60 | 1 | – |" in text
    assert "**missed**" in text


# ------------------------------------------------------------------ kills


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_no_kill_breaks_a_promise(database: str) -> None:
    if database == "postgres":
        needs("postgres")
    arguments = ["--database", database, "--kills", str(KILLS), "--random-kills", str(AT_RANDOM), "--seed", "1"]
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=600)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("bug", planted.BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught_by_a_seed_that_the_package_passes(bug: planted.Bug) -> None:
    if bug.database == "postgres":
        needs("postgres")
    found = planted.hunt(bug)
    assert not set(found.invariants).isdisjoint(bug.invariants), found.output
    assert planted.is_clean(found, bug)


@pytest.mark.slow
def test_a_command_is_launched_with_a_failpoint(tmp_path: Path) -> None:
    launched = ["-m", "tests.chaos.launch", "django.core.management.commands.check.Command.handle:before:1", "check"]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "CHAOS_HISTORY": str(tmp_path / "history")}
    ended = subprocess.run([sys.executable, *launched], cwd=ROOT, env=env, capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr
    assert '"what": "cut"' in (tmp_path / "history").read_text()
