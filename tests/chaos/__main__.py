"""make chaos: so many kills for each row, on SQLite and PostgreSQL side by side; --report writes what became of them.

make chaos ARGS="--replay 7:12.1:33 --database postgres" plays one trial again and shows its history.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django

from tests.servers import Postgres, Server

from . import planted, report

NO_FSYNC = ("--appendfsync", "no")
"""What a process has written outlives it; only a power cut asks for more, and is played by cutting the file."""
ROWS = [*map(str, range(1, 21)), "random", "servers"]


def main() -> int:
    options = _options()
    return _side_by_side(options) if options.database == "both" else _one(options)


def _side_by_side(options: argparse.Namespace) -> int:
    """A process for each database, then the report."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        files = {name: Path(folder) / name for name in ("sqlite", "postgres")}
        same = [sys.executable, "-m", "tests.chaos", *sys.argv[1:], "--seed", str(options.seed)]
        started = [subprocess.Popen([*same, "--database", name, "--json", str(files[name])]) for name in files]
        code = max(each.wait() for each in started)
        if options.report:
            campaigns = [json.loads(file.read_text()) for file in files.values()]
            options.report.write_text(report.written(campaigns, list(planted.hunt_all())))
        return code


def _one(options: argparse.Namespace) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.chaos.settings"
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Server(aof=True, extra=NO_FSYNC) as server:
        with _database(options.database, Path(folder)) as (entry, postgres):
            os.environ |= {"CHAOS_DATABASE": json.dumps(entry), "CHAOS_LOCATION": server.url}
            return _play(options, server, Path(folder), postgres)


def _play(options: argparse.Namespace, server: Server, folder: Path, postgres: Postgres | None) -> int:
    django.setup()
    from . import actors
    from .campaign import Campaign
    from .shop import receivers
    from .world import World

    _quiet()
    actors.prepare()
    world = World(server, folder, postgres)
    receivers.history = world.history
    actors.observe(lambda: world.history)
    gc.freeze()  # else each fork's first collection copies all of the heap
    try:
        campaign = Campaign(world, options)
        return campaign.replay(options.replay) if options.replay else campaign.run()
    finally:
        world.close()


def _quiet() -> None:
    import logging

    logging.disable(logging.CRITICAL)


@contextmanager
def _database(name: str, folder: Path) -> Iterator[tuple[dict[str, Any], Postgres | None]]:
    if name == "sqlite":
        options = {"timeout": 10, "init_command": "PRAGMA synchronous=OFF"}
        yield {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3"), "OPTIONS": options}, None
        return
    with Postgres() as postgres:
        yield postgres.create("chaos"), postgres


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is drawn")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help="of docs/reliability.md")
    parser.add_argument("--kills", type=int, default=60, help="for each row")
    parser.add_argument("--random-kills", type=int, help="at random instants; five times as many unless given")
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--replay", metavar="SEED", help="play one trial again and show its history")
    parser.add_argument("--until-broken", action="store_true", help="end with the first trial that breaks something")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was measured, and hunt planted bugs")
    options = parser.parse_args()
    if options.replay and options.database == "both":
        parser.error("--replay needs the --database in which it was found")
    return options


if __name__ == "__main__":
    sys.exit(main())
