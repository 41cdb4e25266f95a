"""The demo as people meet it: `manage.py demo` in a process of its own, with a server of its own."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
import redis

from demo_project import server as demo_server
from demo_project.demo import alone_in
from demo_project.report import make_report
from tests.servers import Server, wait_for

ROOT = Path(__file__).resolve().parent.parent
PROMPTLY = 60
"""Seconds a demo may take to start on a busy machine."""
FORGET_PUBLISHED = "DELETE FROM demo_project_publishedevent; DELETE FROM redis_events_outboxevent"
FIVE_ORDERS = {
    "orders": 5,
    "lost": 0,
    "doubled": 0,
    "services": {
        "shop": {"published": 10, "received": 20, "lost": 0},
        "billing": {"published": 5, "received": 5, "lost": 0},
        "notifications": {"published": 15, "received": 30, "lost": 0},
    },
}

pytestmark = pytest.mark.slow


def environment(**more: str) -> dict[str, str]:
    ours = ("REDIS_URL", "DJANGO_SETTINGS_MODULE", "DEMO_DATA", "DEMO_PREFIX")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, **more}


def command(folder: Path, *arguments: str) -> list[str]:
    """Without kills, unless asked for: the counts are exact then."""
    return [sys.executable, "manage.py", "demo", "--data", str(folder), "--kill-every", "0", *arguments]


def run_demo(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments), cwd=ROOT, env=environment(**env), capture_output=True, text=True, timeout=120
    )


@contextmanager
def running_demo(folder: Path, *arguments: str, root: Path = ROOT) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A demo and the file its lines go to."""
    folder.mkdir()
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            command(folder, *arguments),
            cwd=root,
            env=environment(PYTHONPATH=str(ROOT)),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process, output
    finally:
        process.kill()
        process.wait()


def seen(output: Path, pattern: str) -> re.Match[str]:
    return wait_for(lambda: re.search(pattern, output.read_text()), timeout=PROMPTLY, what=pattern)


def processes() -> dict[int, tuple[int, str]]:
    """Every process that runs: its parent and its command line. From /proc where there is one: `ps` may be missing."""
    if Path("/proc/self/stat").exists():
        return dict(filter(None, map(_from_proc, Path("/proc").glob("[0-9]*"))))
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in table.stdout.splitlines()]
    return {int(pid): (int(parent), args) for pid, parent, state, args in rows if not state.startswith("Z")}


def _from_proc(folder: Path) -> tuple[int, tuple[int, str]] | None:
    try:
        state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        args = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return None
    return None if state == "Z" else (int(folder.name), (int(parent), args))


def descendants(pid: int) -> set[int]:
    """Processes that ``pid`` started, and those that these did."""
    parents = {child: parent for child, (parent, _) in processes().items()}
    found, level = set(), {pid}
    while level := {child for child, parent in parents.items() if parent in level}:
        found |= level
    return found


def alive(pids: set[int]) -> set[int]:
    return pids & processes().keys()


# ------------------------------------------------------------------ runs that end by themselves


def test_fifty_orders_are_carried_through_and_the_next_run_counts_its_own(tmp_path: Path) -> None:
    as_table = run_demo(tmp_path, "--orders", "50", "--exit")
    assert as_table.returncode == 0, as_table.stdout + as_table.stderr
    assert re.search(r"^shop +100 +200 +0$", as_table.stdout, re.MULTILINE)
    assert re.search(r"^billing +50 +50 +0$", as_table.stdout, re.MULTILINE)
    assert re.search(r"^notifications +150 +300 +0$", as_table.stdout, re.MULTILINE)

    as_json = run_demo(tmp_path, "--orders", "5", "--exit", "--format", "json")
    assert as_json.returncode == 0, as_json.stdout + as_json.stderr
    assert json.loads(as_json.stdout) == FIVE_ORDERS


@pytest.fixture(scope="module")
def two_orders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a finished demo of two orders said, and its databases."""
    folder = tmp_path_factory.mktemp("two_orders")
    finished = run_demo(folder, "--orders", "2", "--exit")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout, folder


def test_every_event_is_a_readable_line_of_the_service_it_happened_in(two_orders: tuple[str, Path]) -> None:
    for line in (
        r"shop          │ \S+ order 1: \d × \w+ for \w+, [\d.]+",
        r"billing       │ \S+ shop.order.created → invoice \d over [\d.]+ for order 1",
        r"shop          │ \S+ billing.invoice.created → order 1 is invoiced",
        r"notifications │ \S+ billing.invoice.created → toast for order 1: “please pay [\d.]+”",
        r"notifications │ \S+ notifications.toast.shown → pushed “please pay [\d.]+”",
    ):
        assert re.search(line, two_orders[0]), f"{line}\n{two_orders[0]}"


def test_a_listener_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    finished = run_demo(tmp_path, "--orders", "60", "--rate", "6", "--exit", "--kill-every", "4")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("billing's listener was killed (kill -9)") >= 2
    assert re.search(r"^billing +\d+ +60 +0$", finished.stdout, re.MULTILINE)


def test_a_server_named_by_redis_url_is_used_under_a_prefix_and_left_as_it_was(tmp_path: Path) -> None:
    with Server() as canary, canary.client() as client, client.pubsub() as everything:
        client.mset({"canary": "sings", "shop.orders": "mine"})
        everything.psubscribe("*")
        finished = run_demo(tmp_path, "--orders", "3", "--exit", "--format", "json", REDIS_URL=canary.url)
        assert finished.returncode == 0, finished.stderr
        assert json.loads(finished.stdout)["lost"] == 0
        assert client.mget("canary", "shop.orders") == [b"sings", b"mine"]
        assert set(client.scan_iter()) == {b"canary", b"shop.orders"}
        channels = {message["channel"] for message in iter(lambda: everything.get_message(timeout=0.1), None)}
        assert {name.partition(b":")[2] for name in channels - {b"*"}} == {b"live.toasts"}


def test_a_listener_that_cannot_start_ends_the_demo_with_its_words(tmp_path: Path) -> None:
    with Server(password="secret") as server:
        finished = run_demo(tmp_path, "--orders", "1", "--exit", REDIS_URL=server.url.replace("secret", "wrong"))
    assert finished.returncode == 1
    assert "ended with exit code 4" in finished.stderr
    assert "wrong" not in finished.stdout + finished.stderr.replace("wrong password", "")


def test_exit_without_orders_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    finished = run_demo(tmp_path, "--exit")
    assert finished.returncode == 2
    assert "--exit needs --orders" in finished.stderr


# ------------------------------------------------------------------ runs that are ended


def test_ctrl_c_counts_what_arrived_and_exits_0(tmp_path: Path) -> None:
    with running_demo(tmp_path / "demo", "--orders", "3") as (process, output):
        page = seen(output, r"Storefront +(\S+)")[1]
        wait_for(lambda: orders_invoiced(page) == 3, timeout=PROMPTLY, what="three invoices on the page")
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PROMPTLY) == 0, output.read_text()
        assert re.search(r"^billing +3 +3 +0$", output.read_text(), re.MULTILINE)
        assert len(started) >= 5
        assert not alive(started)


def orders_invoiced(page: str) -> int:
    with urlopen(page, timeout=10) as answer:
        return answer.read().decode().count("<b>billing</b>")


def test_ctrl_c_while_it_starts_exits_130_and_leaves_nothing(tmp_path: Path) -> None:
    with running_demo(tmp_path / "demo") as (process, _output):
        started = wait_for(lambda: descendants(process.pid), timeout=PROMPTLY)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PROMPTLY) == 130
        assert not alive(started)


def test_kill_9_leaves_nothing_running_for_5_seconds(tmp_path: Path) -> None:
    with running_demo(tmp_path / "demo") as (process, output):
        seen(output, "order 1 is invoiced")
        started = descendants(process.pid)
        assert len(started) >= 6  # server, web, three listeners, customers
        process.kill()
        wait_for(lambda: not alive(started), timeout=5, what="the demo's programs to end")


def test_a_program_that_dies_ends_the_demo_with_1(tmp_path: Path) -> None:
    with running_demo(tmp_path / "demo") as (process, output):
        seen(output, "order 1 is invoiced")
        listener = next(pid for pid in descendants(process.pid) if "listen_events" in processes()[pid][1])
        os.kill(listener, signal.SIGKILL)
        assert process.wait(timeout=PROMPTLY) == 1
        assert "ended with exit code -9" in output.read_text()


def test_when_nobody_reads_its_lines_any_more_it_stops(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("order 1: " in line for line in process.stdout)
        started = descendants(process.pid)
        process.stdout.close()
        process.wait(timeout=PROMPTLY)
        assert not alive(started)


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        finished = run_demo(tmp_path, "--orders", "1", "--exit")
    assert finished.returncode == 1
    assert "Another demo is running" in finished.stderr


# ------------------------------------------------------------------ its parts


def test_the_count_misses_no_event_that_did_not_arrive(two_orders: tuple[str, Path], tmp_path: Path) -> None:
    shutil.copytree(two_orders[1], tmp_path, dirs_exist_ok=True)
    for service, statement, lost in (
        ("billing", "DELETE FROM billing_invoice WHERE order_id = 1", {"shop": 0, "billing": 1, "notifications": 0}),
        ("shop", "DELETE FROM shop_reaction WHERE source = 'billing'", {"shop": 2, "billing": 1, "notifications": 0}),
        ("shop", FORGET_PUBLISHED, {"shop": 6, "billing": 0, "notifications": 0}),
    ):
        execute(tmp_path / f"{service}.sqlite3", statement)
        assert {name: tally.lost for name, tally in make_report(tmp_path).services.items()} == lost, statement


def execute(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript(statement)


@pytest.mark.parametrize("service", ["shop", "billing", "notifications"])
def test_each_service_passes_its_checks_and_has_its_migrations(service: str) -> None:
    for arguments in (["check", "--fail-level", "WARNING"], ["makemigrations", "--check", "--dry-run"]):
        finished = subprocess.run(
            [sys.executable, "manage.py", *arguments, "--settings", f"demo_project.settings.{service}"],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PROMPTLY,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stdout + finished.stderr


def test_without_prctl_a_watching_process_ends_the_program_with_its_parent() -> None:
    """What ``tether`` does on systems other than Linux, tried here: a parent that is killed takes its program along."""
    program = "import time; print('up', flush=True); time.sleep(600)"
    parent = f"""
import os, subprocess, sys
from demo_project import tether
if os.fork() == 0:
    tether.start_watching(os.getppid())
    os.execv(sys.executable, [sys.executable, "-c", {program!r}])
os.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "up\n"
        started = descendants(process.pid)
        assert len(started) == 2  # the program and who watches it
        process.kill()
        process.wait()
        wait_for(lambda: not alive(started), timeout=5, what="the program to end")


def test_the_imitation_serves_where_no_server_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_server, "find_server", lambda: None)
    imitation, url = demo_server.start_server(tmp_path)
    try:
        assert redis.Redis.from_url(url).ping()
    finally:
        imitation.kill()


def test_a_socket_whose_path_would_be_too_long_is_made_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    valkey, url = demo_server.start_server(folder)
    try:
        assert redis.Redis.from_url(url).ping()
    finally:
        valkey.kill()


# ------------------------------------------------------------------ its tutorial


def tutorial(language: str, *, holding: str) -> str:
    """The README's one block in this language that holds a text."""
    text = (ROOT / "demo_project" / "README.md").read_text()
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if holding in block]
    return found


@pytest.mark.parametrize(
    ("holding", "file"), [("OrderPublisher", "shop/events.py"), ("write_invoice", "billing/receivers.py")]
)
def test_the_tutorial_shows_the_code_that_runs(holding: str, file: str) -> None:
    assert tutorial("python", holding=holding) in (ROOT / "demo_project" / file).read_text()


def test_what_the_tutorial_says_to_try_works_as_written(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    copy.mkdir()
    shutil.copy(ROOT / "manage.py", copy)
    shutil.copytree(ROOT / "demo_project", copy / "demo_project", ignore=shutil.ignore_patterns("var", "__pycache__"))
    with (copy / "demo_project" / "notifications" / "receivers.py").open("a") as receivers:
        receivers.write("\n\n" + tutorial("python", holding="def welcome"))

    with running_demo(tmp_path / "demo", root=copy) as (_process, output):
        joined = dict(pair.split("=", 1) for pair in seen(output, r"Join in +export (.*)")[1].split())
        seen(output, "order 1: ")
        script = tutorial("python", holding="xrevrange")
        said = subprocess.check_output([sys.executable, "-c", script], env=environment(**joined), text=True, timeout=30)
        assert json.loads(said)["type"].startswith("shop.order.")

        hello = tutorial("sh", holding="shell -c").replace("python", shlex.quote(sys.executable), 1)
        subprocess.run(hello, shell=True, cwd=copy, env=environment(**joined, PYTHONPATH=str(ROOT)), check=True)
        seen(output, "demo.hello.said → pushed “Hello from outside”")
        seen(output, r"notifications │ \S+ shop.order.created → welcome, \w+")


def test_a_service_runs_by_hand_as_in_any_project(tmp_path: Path, server: Server, prefix: str) -> None:
    env = environment(REDIS_URL=server.url, DEMO_PREFIX=prefix, DEMO_DATA=str(tmp_path), PYTHONUNBUFFERED="1")
    billing = ["--settings", "demo_project.settings.billing"]
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0", *billing], cwd=ROOT, env=env, check=True)
    listener = subprocess.Popen(
        [sys.executable, "manage.py", "listen_events", *billing], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    with listener.stdout as lines:
        assert any(line.startswith("Listening on ") for line in lines)
        listener.terminate()
        assert listener.wait(timeout=5) == 0
