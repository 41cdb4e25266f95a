"""The suite tested: each planted bug, a diff applied to a copy of the package, must be caught by its seed.

python -m tests.chaos.planted [NAME …]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
DIFFS = Path(__file__).parent / "planted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A planted bug: where it is looked for, and the invariants of which one must break."""

    name: str
    row: str
    invariants: Sequence[str]
    database: str = "sqlite"
    kills: int = 30
    seed: int = 7


BUGS = (
    Bug(name="ack-before-commit", row="11", invariants=("I1", "I10")),
    Bug(name="ack-in-finally", row="16", invariants=("I1", "I10")),
    Bug(name="reading-only-new", row="9", invariants=("I1", "I7")),
    Bug(name="client-retries", row="6", invariants=("I5",)),
    Bug(name="high-water-cursor", row="4", invariants=("I1", "I7"), database="postgres"),
    Bug(name="inbox-key-without-source", row="12", invariants=("I1",)),
    Bug(name="select-then-insert", row="20", invariants=("I3",), database="postgres", seed=6),
    Bug(name="group-at-the-end", row="10", invariants=("I1",)),
    Bug(name="delconsumer-on-exit", row="16", invariants=("I1",)),
    Bug(name="maxlen-on-xadd", row="12", invariants=("I1",)),
    Bug(name="on-commit-instead-of-outbox", row="4", invariants=("I1",)),
    Bug(name="batch-claim", row="15", invariants=("I1",)),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What the suite said: the invariants it named, and the seed to see them broken again."""

    invariants: tuple[str, ...]
    seed: str
    output: str


def hunt(bug: Bug) -> Found:
    """Let the suite look at a copy of the package that has this bug."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "redis_events", copy / "redis_events", ignore=shutil.ignore_patterns("__pycache__"))
        plant((DIFFS / f"{bug.name}.diff").read_text(), copy)
        return _played(bug, copy)


def plant(diff: str, folder: Path) -> None:
    """Apply a unified diff, each hunk at the one place that reads like it, wherever that has moved to."""
    for part in re.split(r"^--- a/", diff, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition("\n")
        file = folder / name
        text = file.read_text()
        for hunk in re.split(r"^@@.*\n", hunks, flags=re.MULTILINE)[1:]:
            old, new = ("".join(line[1:] for line in hunk.splitlines(True) if line[0] != sign) for sign in "+-")
            assert text.count(old) == 1, f"{name} does not read like this any more:\n{old}"
            text = text.replace(old, new)
        file.write_text(text)


def is_clean(found: Found, bug: Bug) -> bool:
    """Whether the seed that found a bug finds nothing in the package as it is."""
    return _run(["--replay", found.seed, "--database", bug.database], ROOT).returncode == 0


def _played(bug: Bug, package: Path) -> Found:
    arguments = ["--seed", str(bug.seed), "--rows", bug.row, "--kills", str(bug.kills), "--database", bug.database]
    ended = _run([*arguments, "--until-broken"], package)
    seed = re.search(r"--replay (\S+)\"", ended.stdout)
    broken = dict.fromkeys(re.findall(r"\) (I\d+):", ended.stdout))
    return Found(tuple(broken), seed[1] if seed else "", ended.stdout)


def _run(arguments: Sequence[str], package: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(package), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}  # the folder it starts in must not come first
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False, timeout=600)
    assert ended.returncode in (0, 1), ended.stderr
    assert f"package {package}\n" in ended.stdout, ended.stdout
    return ended


def hunt_all(names: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Hunt the bugs with these names, or all; what became of each."""
    for bug in BUGS:
        if not names or bug.name in names:
            found = hunt(bug)
            facts = {"row": bug.row, "database": bug.database, "seed": found.seed, "invariants": found.invariants}
            yield {"name": bug.name, **facts, "caught": not set(found.invariants).isdisjoint(bug.invariants)}


def main() -> int:
    missed = 0
    for each in hunt_all(sys.argv[1:]):
        missed += not each["caught"]
        verdict = "caught" if each["caught"] else "MISSED"
        print(f"{verdict}  {each['name']:28} {' '.join(each['invariants']):10} seed {each['seed']}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
