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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DIFFS = Path(__file__).parent / "planted"
SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A planted bug: where it is looked for, and the invariants of which one must break."""

    name: str
    row: str
    invariants: Sequence[str]
    database: str = "sqlite"
    kills: int = 30


BUGS = (
    Bug(name="ack-before-commit", row="11", invariants=("I1", "I10")),
    Bug(name="ack-in-finally", row="16", invariants=("I1", "I10")),
    Bug(name="reading-only-new", row="9", invariants=("I1", "I7")),
    Bug(name="client-retries", row="6", invariants=("I5",)),
    Bug(name="high-water-cursor", row="4", invariants=("I1", "I7"), database="postgres"),
    Bug(name="inbox-key-without-source", row="12", invariants=("I1",)),
    Bug(name="select-then-insert", row="20", invariants=("I3",), database="postgres"),
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
        apply = ["git", "apply", str(DIFFS / f"{bug.name}.diff")]
        subprocess.run(apply, cwd=copy, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)})
        return _played(bug.row, bug.database, bug.kills, copy)


def whole(row: str, database: str, kills: int = 30) -> Found:
    """The same seeds with the package as it is."""
    return _played(row, database, kills, ROOT)


def _played(row: str, database: str, kills: int, package: Path) -> Found:
    arguments = ["--seed", str(SEED), "--rows", row, "--kills", str(kills), "--database", database, "--until-broken"]
    paths = os.pathsep.join([str(package), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}  # the folder it starts in must not come first
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments], cwd=ROOT, env=env, text=True, capture_output=True, check=False
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode in (0, 1), output
    assert f"package {package}" in output, output
    seed = re.search(r"--replay (\S+)\"", output)
    return Found(tuple(dict.fromkeys(re.findall(r"\) (I\d+):", output))), seed[1] if seed else "", output)


def main() -> int:
    chosen = [bug for bug in BUGS if not sys.argv[1:] or bug.name in sys.argv[1:]]
    missed = 0
    for bug in chosen:
        found = hunt(bug)
        is_caught = not set(found.invariants).isdisjoint(bug.invariants)
        missed += not is_caught
        print(f"{'caught' if is_caught else 'MISSED'}  {bug.name:28} {' '.join(found.invariants):10} seed {found.seed}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
