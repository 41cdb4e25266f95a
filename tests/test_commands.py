"""What all commands have in common, and the small ones: publish_event, check_events, tables."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError, SystemCheckError

from redis_events.exceptions import ConfigurationError
from redis_events.management.tables import document, duration, milliseconds, table
from redis_events.models import OutboxEvent
from tests import terminal
from tests.processes import ROOT, Process, Project
from tests.servers import Server, black_hole, free_port

OURS = sorted(name for name, app in get_commands().items() if app == "redis_events")
publish = partial(terminal.run, "publish_event")
BUSY = """
from redis_events import Retry, receives
@receives('live')
def see(event): print('live', event.data, flush=True)
@receives('orders', retry=Retry(attempts=3, delay=0.1))
def hear(event):
    if event.attempt == 1: raise ConnectionError('not yet')
    print('orders', event.data, event.attempt, flush=True)
"""
RECEIVERS = "from redis_events import receives\n@receives('orders')\ndef hear(event): ...\n"


@pytest.fixture
def elsewhere(make_project: Callable[..., Project], migrated: Path) -> Callable[[str], Project]:
    """A migrated project with a stream and a receiver, at another server."""

    def make(location: str) -> Project:
        project = make_project(location=location)
        shutil.copy(migrated, project.folder / "db.sqlite3")
        project.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
        project.write("receivers.py", RECEIVERS)
        return project

    return make


def ended(process: Process, code: int) -> None:
    assert process.wait(30) == code, process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("name", OURS)
def test_every_command_explains_itself_and_each_of_its_options(name: str) -> None:
    parser = load_command_class("redis_events", name).create_parser("manage.py", name)
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_explained_in_the_docs(name: str) -> None:
    page = (ROOT / "docs/commands.md").read_text()
    assert re.search(rf"^## `{name}`$", page, re.MULTILINE)
    section = page.split(f"## `{name}`")[1].split("\n## ")[0]
    parser = load_command_class("redis_events", name).create_parser("manage.py", name)
    of_django = {
        "--version",
        "--settings",
        "--pythonpath",
        "--traceback",
        "--no-color",
        "--force-color",
        "--skip-checks",
    }
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert {option for option in options - of_django - {"--help", "--verbosity"} if option not in section} == set()


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("redis_events.management.commands.check_events.checks", interrupted)
    terminal.run("check_events", code=130)


@pytest.mark.parametrize("name", ["listen_events", "relay_events", "replay_events"])
@pytest.mark.parametrize("error", [SystemCheckError("E001"), ConfigurationError("E001")])
def test_what_the_checks_find_is_a_message_and_5(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    def check(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(BaseCommand, "check", check)
    with pytest.raises(CommandError, match="E001") as caught:
        call_command(name)
    assert caught.value.returncode == 5


# ------------------------------------------------------------------ tables


def test_a_table_keeps_numbers_to_the_right_and_unknown_apart_from_0() -> None:
    text = table(("name", "lag"), [("orders", 1204), ("mails", None), ("live", 0)])
    assert text.splitlines() == ["NAME      LAG", "orders  1,204", "mails       —", "live        0"]


def test_a_cell_is_one_printable_line() -> None:
    assert table(("x",), [("a\x1b[2J\nb",)]).splitlines()[1:] == [r"a\x1b[2J b"]


def test_a_document_is_json_with_moments_in_iso_8601() -> None:
    whole = {"at": datetime(2026, 11, 22, tzinfo=UTC), "raw": b"\xff", "none": None, "tuple": (1, "☃")}
    assert json.loads(document(whole)) == {
        "at": "2026-11-22T00:00:00+00:00",
        "raw": "ff",
        "none": None,
        "tuple": [1, "☃"],
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0, "0 s"), (0.31, "0.3 s"), (12, "12 s"), (150, "2.5 min"), (7200, "2 h"), (864_000, "10 d")],
)
def test_a_duration_has_the_unit_people_would_use(seconds: float | None, text: str | None) -> None:
    assert duration(seconds) == text


def test_a_short_time_is_in_milliseconds() -> None:
    assert (milliseconds(0.000312), milliseconds(None)) == ("0.312 ms", None)


# ------------------------------------------------------------------ publish_event


@pytest.fixture
def shop(events_settings: dict[str, Any], settings: Any, real_transactions: None) -> None:
    channels = {"orders": {"TRANSPORT": "stream"}, "kept": {"OUTBOX": True}}
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": channels}


def newest(server: Server, prefix: str, channel: str) -> dict[str, Any]:
    with server.client() as client:
        (_id, fields) = client.xrevrange(f"{prefix}:{channel}", count=1)[0]
    return dict(json.loads(fields[b"event"]))


@pytest.mark.usefixtures("shop")
def test_an_event_is_published_with_its_id_channel_and_transport_told(server: Server, prefix: str) -> None:
    said = publish("orders", '{"id": 7}', "--type", "shop.order.noted", "--key", "7")
    event = newest(server, prefix, "orders")
    assert said == f"{event['id']} → orders (stream)\n"
    assert (event["type"], event["subject"], event["data"]) == ("shop.order.noted", "7", {"id": 7})


@pytest.mark.usefixtures("shop")
def test_text_without_a_type_is_sent_as_it_is(server: Server, prefix: str) -> None:
    with server.client() as client, client.pubsub() as heard:
        heard.subscribe(f"{prefix}:chat")
        assert heard.get_message(timeout=5)["type"] == "subscribe"
        assert publish("chat", '{"a": 1} Hello ☃') == "Text without an id → chat (pubsub)\n"
        assert heard.get_message(timeout=5)["data"].decode() == '{"a": 1} Hello ☃'


@pytest.mark.usefixtures("shop")
def test_the_data_may_come_from_standard_input(server: Server, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"from": "a pipe"}\n'))
    publish("orders", "-", "--type", "shop.order.noted")
    assert newest(server, prefix, "orders")["data"] == {"from": "a pipe"}


@pytest.mark.usefixtures("shop")
def test_with_an_outbox_it_goes_into_the_table_and_says_so(server: Server, prefix: str) -> None:
    said = publish("kept", "1", "--type", "shop.order.noted")
    row = OutboxEvent.objects.get()
    assert said.startswith(f"{row.event_id} → kept (stream), by the outbox of default\n")
    assert newest(server, prefix, "kept")["id"] == row.event_id
    document = terminal.facts("publish_event", "kept", "1", "--type", "shop.order.noted")
    assert document == {"id": document["id"], "channel": "kept", "transport": "stream", "outbox": "default"}


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("orders", "{not json", "--type", "shop.order.noted"), "is no JSON"),
        (("orders", "[" * 100_000, "--type", "shop.order.noted"), "is no JSON"),
        (("orders", "NaN", "--type", "shop.order.noted"), "nan is not a JSON number"),
        (("or ders", "x"), "or ders"),
        (("orders", "x", "--key", "7"), "a key needs a type"),
        (("orders",), "has to be some text"),
        (("kept", "bare"), "needs a type"),
        (("redis-events:wake:shop", "x"), "redis-events:"),
    ],
)
def test_a_callers_mistake_is_2_and_says_which(arguments: tuple[str, ...], reason: str) -> None:
    assert reason in publish(*arguments, code=2)


def test_what_nobody_could_hear_is_not_published(settings: Any) -> None:
    settings.REDIS_EVENTS = {"LOCATION": "memory://"}
    assert "memory://" in publish("orders", "x", code=2)


def test_a_server_that_is_away_is_4_and_the_outbox_takes_it_all_the_same(elsewhere: Callable[[str], Project]) -> None:
    project = elsewhere(f"redis://127.0.0.1:{free_port()}/0")
    process = project.manage("publish_event", "orders", "1", "--type", "shop.order.noted")
    ended(process, 4)
    (line,) = process.lines
    assert re.search("The event is lost: redis://.*connection refused", line), line
    project.settings = {"CHANNELS": {"orders": {"OUTBOX": True}}}
    process = project.manage("publish_event", "orders", "1", "--type", "shop.order.noted")
    ended(process, 0)
    assert process.find("events wait in the outbox, a relay sends them: redis://.*connection refused")
    assert process.find("orders \\(stream\\), in the outbox of default: a relay sends it$")
    assert "every second" not in process.output


def test_a_server_that_does_not_answer_may_have_the_event(elsewhere: Callable[[str], Project]) -> None:
    with black_hole() as port:
        process = elsewhere(f"redis://127.0.0.1:{port}/0").manage("publish_event", "orders", "1", "--type", "a.b.noted")
        ended(process, 4)
    (line,) = process.lines
    assert re.search("The event is lost, or perhaps sent: redis://.*no answer in time", line), line


def test_a_full_server_refuses_with_4_and_the_check_says_why(elsewhere: Callable[[str], Project]) -> None:
    with Server(extra=("--maxmemory", "100kb")) as full:
        project = elsewhere(full.url)
        process = project.manage("publish_event", "orders", "1", "--type", "shop.order.noted")
        ended(process, 4)
        check = project.manage("check_events")
        ended(check, 5)
    (line,) = process.lines
    assert re.search("The event is lost: redis://.*OOM", line), line
    assert re.search(r"^error +Writes", check.output, re.MULTILINE)


# ------------------------------------------------------------------ check_events


def test_a_fit_server_is_0_and_each_check_one_line(elsewhere: Callable[[str], Project]) -> None:
    with Server(aof=True) as server:
        project = elsewhere(server.url)
        listener = project.manage("listen_events")
        listener.wait_for_line("Listening on", timeout=20)
        process = project.manage("check_events", "--fail-level", "warning")
        ended(process, 0)
    assert process.lines[-1] == "12 ok"
    assert all(line.startswith("ok ") for line in process.lines[:-1])


def test_a_warning_is_0_unless_asked_for(elsewhere: Callable[[str], Project]) -> None:
    with Server() as server:
        project = elsewhere(server.url)
        process = project.manage("check_events")
        ended(process, 0)
        ended(project.manage("check_events", "--fail-level", "warning"), 5)
    assert re.search(r"^warning +Persistence", process.output, re.MULTILINE)
    assert re.search(r"^ +→ .*appendonly", process.output, re.MULTILINE)


@pytest.mark.parametrize("command", ["check_events", "inspect_events", "publish_event orders x"])
@pytest.mark.parametrize("trouble", ["refused", "password", "silent"])
def test_a_server_that_cannot_be_used_is_4_without_a_traceback(
    elsewhere: Callable[[str], Project], command: str, trouble: str
) -> None:
    with Server(password="right") as locked, black_hole() as silent:
        port = {"password": locked.port, "silent": silent, "refused": free_port()}[trouble]
        process = elsewhere(f"redis://:wrong-one@127.0.0.1:{port}/0").manage(*command.split())
        ended(process, 4)
    assert "wrong-one" not in process.output


def test_a_missing_right_is_5_and_named(elsewhere: Callable[[str], Project]) -> None:
    with Server() as server:
        server.client().execute_command(
            "ACL", "SETUSER", "narrow", "on", ">pw", "~*", "&*", "+@all", "-xreadgroup", "-info"
        )
        process = elsewhere(f"redis://narrow:pw@127.0.0.1:{server.port}/0").manage("check_events")
        ended(process, 5)
    assert re.search(r"^error +Rights +user narrow may not: XREADGROUP", process.output, re.MULTILINE)
    assert re.search(r"^unknown +Version", process.output, re.MULTILINE)


NAMES = """
from redis_events import announcements
from redis_events.inspection import rights
announced = announcements.fetch(timeout=2.0)
print(*sorted({each[0].lower() for each in [*rights.needed_by_us(announced), *rights.needed_to_look()]}))
"""


PUBLISH_BOTH = """
from redis_events import publish
publish('live', 1, type='a.b')
publish('orders', 1, type='a.b')
"""


def test_the_rights_asked_for_are_all_that_a_service_uses(elsewhere: Callable[[str], Project]) -> None:
    """Its user may do these and nothing else: the server's log of denials stays empty."""
    with Server() as server, server.client() as client:
        project = elsewhere(server.url)
        project.settings = {"CHANNELS": {"orders": {"OUTBOX": True}, "live": {}}, "POLL": 0.2, "CLAIM_AFTER": 3}
        project.write("receivers.py", BUSY)
        rules = [f"+{name}" for name in project.shell(NAMES).split()]
        keys = (f"~{project.env['TEST_PREFIX']}:*", f"&{project.env['TEST_PREFIX']}:*")
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", *keys, "+select", "+ping", "+acl", *rules)
        project.env["TEST_LOCATION"] = f"redis://narrow:pw@127.0.0.1:{server.port}/0"
        listening = project.manage("listen_events")
        listening.wait_for_line("Listening on", timeout=20)
        project.shell(PUBLISH_BOTH)
        listening.wait_for_line("live 1")
        listening.wait_for_line("orders 1 2")
        listening.kill()
        again = project.manage("listen_events")
        again.wait_for_line("Listening on", timeout=20)
        project.shell("from redis_events import publish; publish('orders', 2, type='a.b')")
        again.wait_for_line("orders 2 2")
        ended(project.manage("check_events"), 0)
        again.terminate()
        assert again.wait() == 0, again.output
        denied = {each["object"] for each in client.acl_log()}
    assert denied == {"config|get"}  # of check_events, which does as well without


def test_the_checks_are_one_document(elsewhere: Callable[[str], Project]) -> None:
    with Server() as server:
        process = elsewhere(server.url).manage("check_events", "--format", "json")
        ended(process, 0)
    found = json.loads(process.output)
    assert found["level"] == "warning"
    assert {each["level"] for each in found["checks"]} == {"ok", "warning"}
    assert len({each["id"] for each in found["checks"]}) == 12


def test_missing_tables_are_5(make_project: Callable[..., Project]) -> None:
    project = make_project()
    project.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    project.write("receivers.py", RECEIVERS)
    process = project.manage("check_events")
    ended(process, 5)
    assert re.search(r"^error +Tables", process.output, re.MULTILINE)


# ------------------------------------------------------------------ words


def test_every_sentence_can_be_translated() -> None:
    """No f-string and no variable goes through gettext: what is not a literal is never extracted."""
    package = ROOT / "redis_events"
    sources = [*(package / "management").rglob("*.py"), *(package / "inspection").glob("*.py")]
    found = [
        f"{path.name}: {call}"
        for path in sources
        for call in re.findall(r"\b(?:_|lazy|ngettext)\(\s*(?![\"'\s])[^)]*\)", path.read_text())
    ]
    assert found == []
