"""The README and docs are tests too: every Python block runs, every heading and link names something that is there."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from redis_events import checks, conf
from redis_events.process import Exit
from redis_events.testing import TransportContract
from tests.processes import ROOT, Process, Project, source_of

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEST = re.compile(r"^ *def (test_\w+)", re.MULTILINE)
RUN_ELSEWHERE = {"settings.md", "checks.md", "transports.md"}
"""Pages whose blocks have tests of their own below."""


@dataclass(frozen=True)
class Block:
    """A fenced block: page and line, language, the heading above it, ``wrong`` or ``right`` if said, and its text."""

    place: str
    language: str
    heading: str
    label: str
    text: str

    @property
    def path(self) -> str:
        """The file it is, as its first line says: ``# shop/events.py``; ``""`` when it says nothing."""
        named = re.match(r"# ([\w/]+\.py)\b", self.text)
        return named[1] if named else ""


def blocks(page: Path, language: str = "python") -> list[Block]:
    return [block for block in _blocks(page) if block.language == language]


def _blocks(page: Path) -> Iterator[Block]:
    lines = iter(enumerate(page.read_text().splitlines(), start=1))
    heading = label = ""
    for number, line in lines:
        if line.startswith("#"):
            heading, label = line.lstrip("# "), ""
        elif line in ("Wrong:", "Right:"):
            label = line.rstrip(":").lower()
        elif line.startswith("```"):
            inside = iter(lambda: next(lines)[1], "```")
            text = "\n".join(inside) + "\n"
            yield Block(f"{page.name}:{number}", line.removeprefix("```"), heading, label, text)


def write(block: Block, folder: Path) -> None:
    """The file a block is, in a package of its folder's name."""
    path = folder / block.path
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(block.text)


def test_the_unit_for_systemd_leaves_what_only_people_can_mend_and_waits_longer_than_we_do() -> None:
    (block,) = blocks(ROOT / "docs/commands.md", "ini")
    unit = configparser.ConfigParser()
    unit.read_string(block.text)
    service = unit["Service"]
    final = {Exit.USAGE, Exit.NOTHING_TO_LISTEN_TO, Exit.NOT_READY}
    assert {Exit(int(code)) for code in service["RestartPreventExitStatus"].split()} == final
    assert service.getint("TimeoutStopSec") > conf.READERS["GRACE"][1]() + 1


# ------------------------------------------------------------------ the ten minutes


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    """Runs a command of the README in an empty folder, with the interpreter of these tests."""
    started: list[Process] = []
    env = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DJANGO_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}", "PYTHONUNBUFFERED": "1"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

    def run(command: str) -> Process:
        started.append(Process(["sh", "-c", f"exec {command}"], cwd=tmp_path, env=env))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def commands(contains: str) -> list[str]:
    """The commands of the README's lines with this in them, one by one."""
    text = "\n".join(block.text for block in blocks(README, "sh"))
    found = [line.split("  #")[0] for line in text.splitlines() if contains in line]
    assert found, f"the README has no command with {contains}"
    return [command.strip() for line in found for command in line.split("&&")]


@pytest.mark.slow
def test_the_first_ten_minutes_of_the_readme_end_with_the_invoice(
    shell: Callable[[str], Process], tmp_path: Path, redis_location: str, prefix: str
) -> None:
    def done(*commands: str) -> None:
        for command in commands:
            process = shell(command)
            assert process.wait(60) == 0, f"{command}:\n{process.output}"

    done(*commands("startproject"))
    for block in (block for block in blocks(README) if block.path):
        put_into_the_project(block, tmp_path)
    with (tmp_path / "mysite/settings.py").open("a") as settings:
        settings.write(f"REDIS_EVENTS |= {{'LOCATION': {redis_location!r}, 'PREFIX': {prefix!r}}}\n")
    done(*commands("migrate"), "python manage.py check")
    (listen,) = commands("listen_events")
    listener = shell(listen)
    listener.wait_for_line(re.escape("Listening on 1 channel with 1 receiver"), timeout=30)
    done(*commands("manage.py shell"))
    listener.wait_for_line("^Invoice for Ada 9.90$")
    listener.terminate()
    assert listener.wait() == 0, listener.output


def put_into_the_project(block: Block, folder: Path) -> None:
    """Files as they are; what the README says of the settings comes behind what startproject wrote."""
    if block.path != "mysite/settings.py":
        write(block, folder)
        return
    with (folder / block.path).open("a") as settings:
        settings.write(block.text)


def test_the_readme_says_the_line_the_listener_prints() -> None:
    assert "`Listening on 1 channel with 1 receiver`" in README.read_text()
    assert "`Invoice for Ada 9.90`" in README.read_text()


# ------------------------------------------------------------------ every other block


def _scripts() -> list[Block]:
    pages = [README, *(page for page in DOCS if page.name not in RUN_ELSEWHERE)]
    return [block for page in pages for block in blocks(page) if not block.path]


@pytest.mark.parametrize("block", _scripts(), ids=lambda block: block.place)
def test_the_block_runs_as_a_script_of_a_project(block: Block, make_project: Callable[..., Project]) -> None:
    project = make_project()
    project.write("script.py", block.text)
    output = project.shell("import app.script")
    assert "publish" not in output, output  # no line of the logger about events that could not be sent


# ------------------------------------------------------------------ settings


def test_every_setting_has_its_heading_and_every_heading_its_setting() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(conf.READERS)


def test_every_setting_is_read_somewhere() -> None:
    sources = {path: path.read_text() for path in (ROOT / "redis_events").rglob("*.py")}
    read = {name for name in conf.READERS for text in sources.values() if re.search(rf"\b(conf|self)\.{name}\b", text)}
    assert read == conf.READERS.keys()


@pytest.mark.parametrize("block", blocks(ROOT / "docs/settings.md"), ids=lambda block: block.heading)
def test_the_example_of_a_setting_is_right_and_changes_it(block: Block, settings: Any) -> None:
    names: dict[str, Any] = {}
    exec(compile(block.text, block.place, "exec"), names)
    settings.REDIS_EVENTS = names["REDIS_EVENTS"]
    assert list(conf.problems()) == []
    if block.heading in conf.READERS:
        default = conf.READERS[block.heading]
        assert getattr(conf.conf, block.heading) != default[0](default[1]())


# ------------------------------------------------------------------ checks

CHECKS = blocks(ROOT / "docs/checks.md")
ORDER = """
from django.db import models

class Order(models.Model):
    status = models.CharField(max_length=20)
"""


def test_every_check_has_its_heading_and_every_heading_its_check() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/checks.md").read_text(), re.MULTILINE)
    source = source_of(checks)
    assert sorted(headings) == sorted(set(re.findall(r'\bmessage\(\w+, "(\w+)"', source)))
    assert [block.heading for block in CHECKS if not block.label] == []


@pytest.fixture
def service(make_project: Callable[..., Project]) -> Project:
    """A project of the apps shop, which has a model Order, and billing, with settings of its own in mysite."""
    project = make_project()
    write(Block("", "", "", "", f"# shop/models.py\n{ORDER}"), project.folder)
    write(Block("", "", "", "", "# billing/models.py\n"), project.folder)
    (project.folder / "mysite").mkdir()
    project.env |= {"TEST_APPS": "shop,billing", "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    return project


def ids_found(service: Project, written: list[Block], *more: str) -> set[str]:
    """The ids of the checks that complain once these files are there."""
    for block in written:
        write(block, service.folder)
    package, settings = service.folder / "mysite", service.folder / "mysite/settings.py"
    (package / "__init__.py").touch()
    own = settings.read_text() if settings.exists() else ""
    settings.write_text(f"from tests.settings import *\n{own}")
    process = service.manage("check", "--deploy", *more)
    process.wait(30)
    assert "Traceback" not in process.output, process.output
    return set(re.findall(r"\(redis_events\.(\w+)\)", process.output))


@pytest.mark.slow
@pytest.mark.parametrize("label", ["wrong", "right"])
@pytest.mark.parametrize("id", sorted({block.heading for block in CHECKS}))
def test_the_check_complains_of_its_wrong_example_only(service: Project, id: str, label: str) -> None:
    written = [block for block in CHECKS if (block.heading, block.label) == (id, label)]
    assert written
    more = ("--database", "default") if id == "W013" else ()
    assert ids_found(service, written, *more) == ({id} if label == "wrong" else set())


# ------------------------------------------------------------------ transports

BASE = """
from pathlib import Path
from tests.settings import *
BASE_DIR = Path(__file__).parent
ours = REDIS_EVENTS
"""
SHOW = """
from redis_events import receives

@receives("local.*")
def show(event):
    print("got", event.data)
"""
CONTRACT = [name for name in dir(TransportContract) if name.startswith("test_")]


@pytest.fixture
def with_file_transport(project: Project) -> Project:
    """A project that has what docs/transports.md shows."""
    for block in blocks(ROOT / "docs/transports.md"):
        write(block, project.folder)
    settings = project.folder / "mysite/settings.py"
    settings.write_text(f"{BASE}{settings.read_text()}REDIS_EVENTS = ours | REDIS_EVENTS\n")
    (project.folder / "tests").rename(project.folder / "mytests")  # ours are called tests already
    project.env["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    return project


@pytest.mark.slow
def test_the_transport_of_the_docs_keeps_the_contract(with_file_transport: Project) -> None:
    arguments = ("-q", "-p", "no:cacheprovider", "--rootdir", str(with_file_transport.folder), "mytests")
    process = with_file_transport.python("-m", "pytest", *arguments)
    assert process.wait(120) == 0, process.output
    process.wait_for_line(rf"^{len(CONTRACT)} passed")
    process.wait_for_line(rf"TestFileTransport: {len(CONTRACT)} of {len(CONTRACT)} executed, 0 skipped")


@pytest.mark.slow
def test_the_transport_of_the_docs_carries_a_channel_between_processes(with_file_transport: Project) -> None:
    with_file_transport.write("receivers.py", SHOW)
    with_file_transport.migrate()
    listener = with_file_transport.manage("listen_events")
    listener.wait_for_line("Listening on 1 pattern", timeout=30)
    with_file_transport.shell("from redis_events import publish; publish('local.orders', 'Hello')")
    listener.wait_for_line("got Hello")
    listener.terminate()
    assert listener.wait() == 0, listener.output


# ------------------------------------------------------------------ guarantees


def test_every_promise_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    promises = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(promises) > 10
    there = {name for file in (ROOT / "tests").rglob("*.py") for name in TEST.findall(file.read_text())}
    unproven = [promise for promise, proof in promises if not set(re.findall(r"`(\w+)`", proof))]
    assert unproven == []
    assert {name for _, proof in promises for name in re.findall(r"`(\w+)`", proof)} - there == set()


# ------------------------------------------------------------------ links and words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    broken = [link for link in links if not link.startswith("https://") and not _leads_somewhere(page, link)]
    assert broken == []


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_linked_from_the_readme_or_another_page() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if not link.startswith("https://")
    }
    assert [page for page in PAGES if page != README and not {page, page.parent} & linked] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_package_index_or_a_path_of_somebodys_machine(page: Path) -> None:
    machines = r"pypi\.org|pythonhosted|/simple\b|index-url|/(home|root|work|tmp|Users)/|TODO|FIXME"
    assert re.findall(machines, page.read_text()) == []


def test_how_it_works_inside_names_every_room() -> None:
    page = (ROOT / "docs/internals.md").read_text()
    package = ROOT / "redis_events"
    rooms = {path.stem for path in (*package.glob("*.py"), *(package / "transports").glob("*.py"))}
    assert [room for room in sorted(rooms) if not re.search(rf"`[\w.]*\b{room}`", page)] == []


def test_the_versions_of_the_changelog_begin_with_this_one() -> None:
    from redis_events import __version__

    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == __version__


def test_the_decision_with_figures_has_a_script_that_runs(redis_location: str) -> None:
    source = (ROOT / "docs/decisions/0002_publish_and_read.py").read_text()
    quick = source.replace("15, 2_000", "1, 20")
    assert quick != source
    done = subprocess.run(
        [sys.executable, "-c", quick, redis_location], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(publish|read) client", done.stdout, re.MULTILINE) == ["publish", "read"]
