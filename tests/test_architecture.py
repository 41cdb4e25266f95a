"""The house of redis_events: which room stands on which floor, and how large a room may get.

`problems(package)` says what is wrong with a package of that shape; the last tests hand it a bad one.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "redis_events"

# From the ground up. A room imports what stands below it; on the first three floors also its neighbours.
FLOORS = (
    ("exceptions", "conf"),
    ("events", "codec", "names", "retry", "signals", "wording", "transports.base"),
    (
        "registry", "models", "snapshot", "batch", "held", "inbox", "runner", "once", "sender", "routing", "deadlines",
        "announcements", "heartbeat", "floors", "sent", "presence", "outbox", "posting", "departing", "saving",
        "muting", "threads", "stopping", "tally", "pauses",
        "transports", "transports.client", "transports.memory", "transports.pubsub", "transports.stream",
        "transports.claims", "transports.groups", "transports.keeper", "transports.outlet", "transports.pending",
        "transports.roads", "transports.scripts", "transports.trimming", "transports.watching",
    ),
    (
        "publishing", "listening", "retrying", "replaying", "keeping", "cleaning", "subscribing", "relaying", "healing",
        "purging", "readiness",
    ),
    ("console", "inspection"),
    ("process",),
    (
        "__init__", "apps", "admin", "testing", "pytest_plugin", "management",
        "checks", "checks.messages", "checks.shapes", "checks.receivers", "checks.settings", "checks.declarations",
    ),
)  # fmt: skip
NEIGHBOURLY = 3
LEVELS = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
DOORS = FLOORS[-1]
DOOR_TO_DOOR = {
    *(("checks", f"checks.{room}") for room in ("receivers", "settings", "declarations")),
    *((f"checks.{room}", "checks.messages") for room in ("receivers", "settings", "declarations")),
    *((f"checks.{room}", "checks.shapes") for room in ("receivers", "declarations")),
    ("apps", "checks"),  # importing checks registers them
    ("pytest_plugin", "testing"),  # the kit as a fixture
}

SUITES = {"management", "inspection", "admin"}
"""Rooms that are packages whose modules may import one another."""
REDIS_ROOMS = "transports"
FORBIDDEN_NAMES = {"utils", "helpers", "core", "managers", "services"}
LONGEST_FUNCTION, LONGEST_FILE, MEDIAN_FUNCTION, MOST_IGNORES = 40, 400, 8, 5
IGNORE = re.compile(r"#\s*type:\s*ignore")
IGNORE_WITH_REASON = re.compile(r"#\s*type:\s*ignore\[[a-z-]+(, ?[a-z-]+)*\]\s+#\s*\S.+")


class House:
    """The modules of a package by dotted name without the package's own; migrations are Django's, not ours."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.sources = {
            self._module(path): path.read_text()
            for path in sorted(package.rglob("*.py"))
            if "migrations" not in path.relative_to(package).parts
        }
        self.trees = {module: ast.parse(source) for module, source in self.sources.items()}

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.package).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)

    def imports(self, module: str) -> set[str]:
        """The modules of the package that `module` imports, inside functions and for types only, too."""
        return {found for name in self._imported(module) if (found := self._known(name)) and found != module}

    def outside(self, module: str) -> set[str]:
        """The top names of all other packages it imports."""
        own = self.package.name
        return {top for name in self._imported(module) if (top := name.split(".")[0]) != own}

    def _imported(self, module: str) -> Iterator[str]:
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(module, node)
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "__version__")
            elif isinstance(node, ast.Call) and _name(node.func) in {"import_module", "import_string"}:
                yield from (text.value for text in node.args if isinstance(text, ast.Constant) and _is_text(text))

    def _base(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = (self.package / module.replace(".", "/") / "__init__.py").exists()
        here = [self.package.name, *(module.split(".") if module != "__init__" else [])]
        above = node.level - (is_package or module == "__init__")
        return ".".join([*here[: len(here) - above], *filter(None, [node.module])])

    def _known(self, name: str) -> str | None:
        """`redis_events.held.hold` → `held`; `redis_events.publish` → `__init__`; None when it is not ours."""
        top, *parts = name.split(".")
        if top != self.package.name:
            return None
        candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((module for module in candidates if module in self.trees), "__init__")

    def functions(self) -> Iterator[tuple[str, int]]:
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno is not None
                    yield f"{module}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_text(node: ast.Constant) -> bool:
    return isinstance(node.value, str)


def _room(module: str) -> str:
    """The room a module belongs to: `management.commands.listen_events` is part of `management`."""
    head = module.partition(".")[0]
    return head if head in SUITES else module


def unknown_rooms(house: House) -> Iterator[str]:
    for module in house.trees:
        if _room(module) not in LEVELS:
            yield f"{module} has no floor: add it to FLOORS in tests/test_architecture.py"
        if FORBIDDEN_NAMES & set(module.split(".")):
            yield f"{module} is a name that says nothing"


def wrong_imports(house: House) -> Iterator[str]:
    for module in house.trees:
        if module == "__init__":  # the one lazy place, where everything public can be imported from
            continue
        for target in sorted(house.imports(module)):
            yield from _wrong_import(_room(module), _room(target))


def _wrong_import(room: str, target: str) -> Iterator[str]:
    level, below = LEVELS.get(room), LEVELS.get(target)
    if level is None or below is None or room == target:
        return
    if target in DOORS and (room, target) not in DOOR_TO_DOOR:
        yield f"{room} imports the door {target}"
    elif below > level:
        yield f"{room} (floor {level}) imports {target} above it (floor {below})"
    elif below == level and level >= NEIGHBOURLY and room not in DOORS:
        yield f"{room} imports its neighbour {target} on floor {level}"


def cycles(house: House) -> Iterator[str]:
    graph = {module: house.imports(module) for module in house.trees if module != "__init__"}
    while graph:
        leaves = {module for module, targets in graph.items() if not targets & graph.keys()}
        if not leaves:
            yield f"an import cycle among {', '.join(_trimmed(graph))}"
            return
        graph = {module: targets for module, targets in graph.items() if module not in leaves}


def _trimmed(graph: dict[str, set[str]]) -> list[str]:
    """Without the modules that only lead into the cycle."""
    while unused := graph.keys() - set().union(*graph.values()):
        graph = {module: targets for module, targets in graph.items() if module not in unused}
    return sorted(graph)


def redis_outside_its_rooms(house: House) -> Iterator[str]:
    for module in house.trees:
        if "redis" in house.outside(module) and module.split(".")[0] != REDIS_ROOMS:
            yield f"{module} imports redis: only {REDIS_ROOMS} may"


def large_rooms(house: House) -> Iterator[str]:
    for module, source in house.sources.items():
        if (lines := source.count("\n")) > LONGEST_FILE:
            yield f"{module} has {lines} lines, more than {LONGEST_FILE}"
    lengths = dict(house.functions())
    yield from (
        f"{name} has {n} lines, more than {LONGEST_FUNCTION}" for name, n in lengths.items() if n > LONGEST_FUNCTION
    )
    if (median := statistics.median(lengths.values() or [0])) > MEDIAN_FUNCTION:
        yield f"the median function has {median} lines, more than {MEDIAN_FUNCTION}"


def type_ignores(house: House) -> Iterator[str]:
    found = [(module, comment) for module, source in house.sources.items() for comment in _ignores(source)]
    if len(found) > MOST_IGNORES:
        yield f"{len(found)} type ignores, more than {MOST_IGNORES}"
    for module, comment in found:
        if not IGNORE_WITH_REASON.search(comment):
            yield f"{module} ignores a type without its code and a reason: {comment}"


def _ignores(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and IGNORE.search(token.string):
            yield token.string


RULES = [unknown_rooms, wrong_imports, cycles, redis_outside_its_rooms, large_rooms, type_ignores]


def problems(package: Path) -> list[str]:
    house = House(package)
    return [problem for rule in RULES for problem in rule(house)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule) -> None:
    assert list(rule(House(PACKAGE))) == []


def test_the_house_is_seen_at_all() -> None:
    house = House(PACKAGE)
    assert {"conf", "publishing", "transports.base", "management.commands.listen_events"} <= house.trees.keys()
    assert "conf" in house.imports("publishing")
    assert "exceptions" in house.imports("transports.client")
    assert "redis" in house.outside("transports.client")


BAD_HOUSE = {
    "__init__.py": "from .publishing import publish",
    "conf.py": "def late():\n    from . import publishing",
    "publishing.py": "from redis_events.listening import listen\nfrom . import signals\nimport redis",
    "listening.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from redis_events import publish",
    "held.py": "from .batch import add",
    "batch.py": "from django.utils.module_loading import import_string\nimport_string('redis_events.held.hold')",
    "process.py": "from . import admin",
    "admin.py": "x: int = ''  # type: ignore\ny: int = ''  # type: ignore[assignment]  # the reason is here",
    "utils.py": "",
    "codec.py": "def long():\n" + "    x = 1\n" * 41,
    "retry.py": "x = 1\n" * 401,
    "transports/pubsub.py": "import redis\nfrom ..inspection import look\nfrom .base import Transport",
    "transports/base.py": "from .. import signals",
    "signals.py": "",
    "inspection.py": "",
    "management/commands/listen_events.py": "from ...process import run\nfrom ...admin import page",
    "migrations/0001_initial.py": "from redis_events import admin",
}
ITS_PROBLEMS = {
    "conf (floor 0) imports publishing above it (floor 3)",
    "publishing imports its neighbour listening on floor 3",
    "publishing imports redis: only transports may",
    "listening imports the door __init__",
    "process imports the door admin",
    "management imports the door admin",
    "transports.pubsub (floor 2) imports inspection above it (floor 4)",
    "an import cycle among batch, held",
    "admin ignores a type without its code and a reason: # type: ignore",
    "utils has no floor: add it to FLOORS in tests/test_architecture.py",
    "utils is a name that says nothing",
    "codec:1 long has 42 lines, more than 40",
    "retry has 401 lines, more than 400",
    "the median function has 22.0 lines, more than 8",
}


def _build(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        path = folder / "redis_events" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder / "redis_events"


def test_each_thing_wrong_with_a_bad_house_is_named_and_nothing_else(tmp_path: Path) -> None:
    assert set(problems(_build(tmp_path, BAD_HOUSE))) == ITS_PROBLEMS


def test_a_sixth_ignore_is_one_too_many(tmp_path: Path) -> None:
    source = "x: int = ''  # type: ignore[assignment]  # a reason\n"
    assert problems(_build(tmp_path / "five", {"conf.py": source * 5})) == []
    assert problems(_build(tmp_path / "six", {"conf.py": source * 6})) == ["6 type ignores, more than 5"]


def test_a_good_house_has_no_problems(tmp_path: Path) -> None:
    good = {
        "__init__.py": "",
        "conf.py": "from .exceptions import ConfigurationError",
        "exceptions.py": "",
        "publishing.py": "from . import conf",
        "apps.py": "from . import __version__, checks, publishing",
        "checks.py": "from .conf import problems",
    }
    assert problems(_build(tmp_path, good)) == []
