"""The lines of the terminal, in both formats."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import make_style, no_style

from redis_events import Event, Retry, console, receives
from redis_events.codec import decode, encode
from redis_events.console import MOST_A_SECOND, Console
from redis_events.exceptions import Unreachable
from redis_events.listening import Listener
from redis_events.registry import all_receivers
from redis_events.retry import DEAD, DONE
from redis_events.runner import Result, Run
from redis_events.signals import event_settled
from redis_events.transports.base import Delivery
from redis_events.transports.memory import MemoryTransport
from tests.processes import Project

pytestmark = pytest.mark.usefixtures("declared")
CLOCK = r"\d\d:\d\d:\d\d\.\d{3}"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A console takes the package's logger; the next test wants it back."""
    logger = logging.getLogger("redis_events")
    kept = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate, logger.level = kept
    event_settled.disconnect(dispatch_uid="redis_events.console")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Screen:
    """A console and what it wrote."""

    def __init__(self, *, tty: bool = False, style: Any = None, **options: Any) -> None:
        self.stream = Terminal() if tty else io.StringIO()
        self.console = Console(OutputWrapper(self.stream), style or no_style(), **options)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def listener() -> Listener:
    return Listener(MemoryTransport("memory://console"), all_receivers())


def result(
    channel: str = "shop.orders", *, verdict: Any = DONE, error: Any = None, body: bytes | None = None
) -> Result:
    if not all_receivers():
        receives("*", name="billing.credit")(lambda event: None)
    raw = encode(Event(data=1, type="shop.order.paid", source="shop")) if body is None else body
    run = Run(
        receiver=all_receivers()[0],
        document=decode(raw, channel=channel),
        delivery=Delivery(channel=channel, body=raw),
    )
    return Result(run=run, verdict=verdict, error=error, seconds=0.0123)


# ------------------------------------------------------------------ the start


def test_the_table_says_who_listens_to_what_and_the_last_line_that_it_does(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": "memory://"}

    @receives("shop.orders", types=("shop.order.paid", "x"), name="billing.invoice", retry=Retry(attempts=3, delay=0.5))
    def invoice(event: Any) -> None: ...

    @receives("live.*", name="billing.push")
    async def push(event: Any) -> None: ...

    screen = Screen()
    screen.console.listening(all_receivers(), [])
    title, head, first, second, last = screen.text.splitlines()
    assert re.fullmatch(r"redis_events \S+ · shop · memory:// · Django \S+ · pid \d+", title)
    assert head.split() == ["CHANNEL", "TYPES", "RECEIVER", "MODE", "RETRY"]
    assert re.split(r"\s{2,}", first.strip()) == [
        "shop.orders (memory)",
        "shop.order.paid, x",
        "billing.invoice",
        "every listener",
        "3, 0.5–600 s",
    ]
    assert re.split(r"\s{2,}", second.strip()) == [
        "live.* (memory)",
        "*",
        "billing.push",
        "async, every listener",
        "–",
    ]
    assert last == "Listening on 1 channel, 1 pattern with 2 receivers. Ctrl+C to stop."
    assert first.index("billing.invoice") == second.index("billing.push") == head.index("RECEIVER")


def test_the_title_masks_the_password(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": "redis://:secret@localhost:1/0?password=secret"}
    receives("c")(lambda event: None)
    screen = Screen()
    screen.console.table(all_receivers(), [])
    assert "redis://:***@localhost:1/0" in screen.text
    assert "secret" not in screen.text


def test_nothing_to_listen_to_shows_the_lines_that_would_change_that() -> None:
    screen = Screen()
    screen.console.nothing_to_listen_to((), ())
    assert "receivers.py and events.py of every app in INSTALLED_APPS" in screen.text
    assert '@receives("channel")' in screen.text


def test_channels_that_match_nothing_are_named_beside_those_there_are() -> None:
    screen = Screen()
    screen.console.nothing_to_listen_to(["shpo.*"], ["shop.orders"])
    assert screen.text == "Nothing to listen to: none of the channels shop.orders matches --channels shpo.*.\n"


def test_trouble_at_the_start_is_one_line() -> None:
    screen = Screen()
    screen.console.cannot_connect(Unreachable("redis://h: connection refused"))
    screen.console.warn("the tables are missing")
    assert screen.text == "Cannot start: redis://h: connection refused\nWarning: the tables are missing\n"


def test_a_terminal_that_is_not_utf8_is_no_reason_to_fail(project: Project) -> None:
    project.write("receivers.py", "from redis_events import receives\n@receives('c')\ndef r(event): ...")
    process = project.manage("listen_events", "--dry-run", PYTHONIOENCODING="ascii")
    assert process.wait() == 0, process.output
    assert "app.receivers.r" in process.output


# ------------------------------------------------------------------ while it runs


def test_finished_runs_are_shown_on_a_terminal_and_on_request_only() -> None:
    for options, shown in [({}, False), ({"tty": True}, True), ({"verbosity": 2}, True)]:
        event_settled.disconnect(dispatch_uid="redis_events.console")
        screen = Screen(**options)
        event_settled.send_robust(Listener, results=[result()])
        assert bool(screen.text) is shown


def test_a_finished_run_is_one_line_with_its_time() -> None:
    screen = Screen(verbosity=2)
    screen.console.on_settled(None, [result()])
    pattern = rf"{CLOCK} done   shop\.order\.paid [0-9a-f]{{8}}…[0-9a-f]{{4}} → billing\.credit  12 ms\n"
    assert re.fullmatch(pattern, screen.text)


def test_failures_are_left_to_the_log() -> None:
    screen = Screen(verbosity=2)
    screen.console.on_settled(None, [result(verdict=DEAD, error=ValueError("x"))])
    assert screen.text == ""


def test_at_most_twenty_lines_a_second_then_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    screen = Screen(verbosity=2)
    screen.console.on_settled(None, [result()] * 5000)
    assert len(screen.text.splitlines()) == MOST_A_SECOND
    clock[0] += 1.1
    screen.console.on_settled(None, [result()])
    lines = screen.text.splitlines()
    assert lines[MOST_A_SECOND] == "… 4,980 more done"
    assert len(lines) == MOST_A_SECOND + 2
    screen.console.on_settled(None, [result()] * MOST_A_SECOND)
    screen.console.stopped({}, 0)
    assert "… 1 more done" in screen.text


NAMES = ["a\nb", "a\r\n20:14:03.112 done   forged", "\x1b[2J", "\x9b2J", "\u2028x", "x" * 10_000, "\x00"]


@pytest.mark.parametrize("channel", NAMES, ids=lambda name: ascii(name)[:20])
def test_other_clients_channel_names_cannot_break_a_line(channel: str) -> None:
    screen = Screen(verbosity=2)
    screen.console.on_settled(None, [result(channel, body=b"plain")])
    assert len(screen.text.splitlines()) == 1
    assert len(screen.text) < 300
    assert screen.text.rstrip("\n").isprintable()


# ------------------------------------------------------------------ the end


def test_where_nobody_has_pressed_ctrl_c_yet_once_is_not_enough_to_abort() -> None:
    screen = Screen()
    screen.console.stopping(2, signals_left=2)
    assert screen.text == "stopping: 2 in flight, up to 30 s (Ctrl+C twice to abort) …\n"


def test_the_end_counts_what_was_done() -> None:
    screen = Screen()
    screen.console.stopping(2, signals_left=1)
    screen.console.stopping(0, signals_left=1)
    screen.console.stopped({DONE.outcome: 1204, DEAD.outcome: 1}, 2)
    first, last = screen.text.splitlines()
    assert first == "stopping: 2 in flight, up to 30 s (again to abort) …"
    assert re.fullmatch(r"stopped\. 1,204 done · 0 retry · 1 dead · 2 abandoned · 00:00:0\d", last)


# ------------------------------------------------------------------ log lines


def log(message: str, level: int = logging.INFO, **extra: Any) -> None:
    logging.getLogger("redis_events.listen").log(level, message, extra=extra)


def test_log_lines_go_to_the_terminal_when_nobody_else_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    screen = Screen()
    log("connection lost", logging.ERROR)
    assert re.fullmatch(rf"{CLOCK} connection lost\n", screen.text)


def test_a_projects_own_logging_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(theirs)])
    screen = Screen()
    log("connection lost", logging.ERROR)
    assert (screen.text, theirs.getvalue()) == ("", "connection lost\n")


def test_colour_tells_warnings_from_errors_and_is_off_without_a_style() -> None:
    screen = Screen(style=make_style("error=red;warning=yellow"), log_format="text")
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        log("x", level)
    plain, warning, error = screen.text.splitlines()
    assert "\x1b" not in plain
    assert warning.startswith("\x1b[33m")
    assert error.startswith("\x1b[31m")


def test_json_lines_are_objects_whatever_happens() -> None:
    receives("c", name="r")(lambda event: None)
    screen = Screen(log_format="json", verbosity=2)
    screen.console.listening(all_receivers(), [])
    screen.console.on_settled(None, [result()] * 30)
    screen.console.warn("two\nlines \x1b[31m \ud800")
    screen.console.nothing_to_listen_to((), ())
    screen.console.cannot_connect(Unreachable("gone"))
    log("retry", logging.WARNING, facts={"receiver": "r", "attempt": 1})
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("redis_events.listen").exception("oh")
    screen.console.stopping(1, signals_left=1)
    screen.console.stopped({}, 1)
    objects = screen.objects
    assert {each["event"] for each in objects if "event" in each} == {
        "started", "receiver", "listening", "warning", "nothing", "unreachable", "stopping", "stopped", "more",
    }  # fmt: skip
    assert all({"time", "message"} <= each.keys() for each in objects)
    done = next(each for each in objects if each.get("outcome") == "done")
    assert (done["type"], done["receiver"], done["ms"]) == ("shop.order.paid", "r", 12.3)
    retry = next(each for each in objects if each["message"] == "retry")
    assert (retry["level"], retry["attempt"], retry["logger"]) == ("WARNING", 1, "redis_events.listen")
    assert "ZeroDivisionError" in next(each for each in objects if each["message"] == "oh")["traceback"]
    assert objects[-1]["abandoned"] == 1
