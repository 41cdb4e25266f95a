"""The lines of the terminal: plain text with Django's styles, or one JSON object a line."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import django
from django.core.management.base import OutputWrapper
from django.core.management.color import Style

from . import __version__
from .announcements import Announcement
from .conf import conf, mask
from .exceptions import TransportError
from .registry import Receiver
from .retry import Outcome, default_retry
from .routing import is_memory, transport_name
from .runner import Result
from .signals import event_settled
from .transports.client import server_name
from .wording import counted, one_line, short_id

MOST_A_SECOND = 20
"""Lines for finished runs: faster than anybody reads, slow enough not to slow the listener."""
WATCHED = "redis_events"


class Console:
    """Writes what one listen_events process has to say. ``verbosity`` is Django's; ``as_json`` writes JSON objects."""

    def __init__(self, out: OutputWrapper, style: Style, *, verbosity: int = 1, log_format: str | None = None) -> None:
        self.out = out
        self.style = style
        self.verbosity = verbosity
        self.as_json = log_format == "json"
        self._began = time.monotonic()
        self._shown: deque[float] = deque()
        self._unshown = 0
        # A terminal that is not UTF-8 shows escapes instead of ending the listener.
        if isinstance(stream := getattr(out, "_out", None), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if log_format or not logging.getLogger(WATCHED).hasHandlers():
            self._take_log_lines()
        if verbosity > 1 or out.isatty():
            event_settled.connect(self.on_settled, weak=False, dispatch_uid="redis_events.console")

    # -------------------------------------------------------------- the start

    def listening(self, receivers: Sequence[Receiver], announced: Sequence[Announcement]) -> None:
        """The table, and the line others wait for: everything is subscribed."""
        self.table(receivers, announced)
        channels = {receiver.channel: transport_name(receiver.channel, announced) for receiver in receivers}
        exact = Counter(name for channel, name in channels.items() if "*" not in channel)
        kinds = ((exact.pop("stream", 0), "stream"), (exact.total(), "channel"))
        patterns = sum("*" in channel for channel in channels)
        on = ", ".join(counted(number, noun) for number, noun in (*kinds, (patterns, "pattern")) if number)
        self._say(f"Listening on {on} with {counted(len(receivers), 'receiver')}. Ctrl+C to stop.", event="listening")

    def table(self, receivers: Sequence[Receiver], announced: Sequence[Announcement]) -> None:
        """Which receivers listen to what."""
        self._say(self._title(), event="started")
        rows = [("CHANNEL", "TYPES", "RECEIVER", "MODE", "RETRY")]
        rows += [_row(receiver, transport_name(receiver.channel, announced)) for receiver in receivers]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self._say(f"  {'  '.join(cells)}  {row[4]}", event="receiver")

    def _title(self) -> str:
        parts = [f"redis_events {__version__}", conf.SERVICE or "unnamed service", _server()]
        return " · ".join([*parts, f"Django {django.get_version()}", f"pid {os.getpid()}"])

    def relaying(self, aliases: Sequence[str]) -> None:
        """The line others wait for: the relay is connected."""
        self._say(self._title(), event="started")
        self._say(f"Relaying the outbox of {', '.join(aliases)}. Ctrl+C to stop.", event="relaying")

    def nothing_to_relay(self) -> None:
        """There is no server to send to."""
        self._say(f"Nothing to relay: LOCATION is {mask(conf.LOCATION)}.", event="nothing")

    def not_ready(self, what: str) -> None:
        """Something must be done first."""
        self._say(f"Cannot start: {what}: run `manage.py migrate`.", style="ERROR", event="not_ready")

    def contradiction(self, what: str) -> None:
        """Two services say different things of one channel."""
        self._say(f"Cannot start: {what}. Make their CHANNELS agree.", style="ERROR", event="contradiction")

    def nothing_to_listen_to(self, wanted: Sequence[str], known: Sequence[str]) -> None:
        """Nothing is registered, or nothing matches: say where receivers are looked for."""
        if known:
            text = f"none of the channels {', '.join(known)} matches --channels {' '.join(wanted)}."
            self._say(f"Nothing to listen to: {text}", event="nothing")
            return
        self._say(
            "Nothing to listen to: no receiver is registered. They are looked for in receivers.py and events.py of "
            "every app in INSTALLED_APPS:\n\n"
            "    from redis_events import receives\n\n"
            '    @receives("channel")\n'
            "    def receiver(event): ...\n",
            event="nothing",
        )

    def cannot_connect(self, error: TransportError) -> None:
        """The server is not there, or will not have us."""
        self._say(f"Cannot start: {error}", style="ERROR", event="unreachable")

    def warn(self, message: str) -> None:
        """Something that does not keep us from listening."""
        self._say(f"Warning: {message}", style="WARNING", event="warning")

    # -------------------------------------------------------------- while it runs

    def on_settled(self, sender: object, results: Sequence[Result], **_: object) -> None:
        """A line for each finished run, at most 20 a second, then their number."""
        done = [result for result in results if result.verdict.outcome is Outcome.DONE]
        self._flush_unshown()
        for result in done:
            if self._may_show():
                self._say(_done_line(result), style="SUCCESS", **_facts(result))
            else:
                self._unshown += 1

    def _may_show(self) -> bool:
        moment = time.monotonic()
        while self._shown and moment - self._shown[0] > 1.0:
            self._shown.popleft()
        if len(self._shown) >= MOST_A_SECOND:
            return False
        self._shown.append(moment)
        return True

    def _flush_unshown(self) -> None:
        if self._unshown and (not self._shown or time.monotonic() - self._shown[0] > 1.0):
            self._say(f"… {self._unshown:,} more done", event="more", count=self._unshown)
            self._unshown = 0

    # -------------------------------------------------------------- the end

    def stopping(self, in_flight: int, *, signals_left: int) -> None:
        """Asked to stop: what is still in hand, and how many signals end the wait for it."""
        if in_flight:
            how = "again" if signals_left < 2 else "Ctrl+C twice"  # twice: nobody has pressed it yet
            text = f"stopping: {in_flight} in flight, up to {conf.GRACE:g} s ({how} to abort) …"
            self._say(text, event="stopping", in_flight=in_flight)

    def stopped(self, counts: Mapping[Outcome, int], abandoned: int, *, relayed: int = 0) -> None:
        """The last line: what was done, and what was left. ``counts`` are runs by outcome."""
        self._shown.clear()
        self._flush_unshown()
        outcomes: dict[str, Any] = {str(outcome): counts.get(outcome, 0) for outcome in Outcome}
        outcomes["abandoned"] = abandoned
        outcomes |= {"relayed": relayed} if relayed else {}
        parts = " · ".join(f"{count:,} {name}" for name, count in outcomes.items())
        self._say(f"stopped. {parts} · {_clock(time.monotonic() - self._began)}", event="stopped", **outcomes)

    # -------------------------------------------------------------- writing

    def _say(self, text: str, *, style: str = "", **facts: Any) -> None:
        if self.as_json:
            text = json.dumps({"time": datetime.now().astimezone().isoformat(), "message": text.strip(), **facts})
        elif style:
            text = getattr(self.style, style)(text)
        self.out.write(text)
        self.out.flush()

    def _take_log_lines(self) -> None:
        handler = logging.StreamHandler(_Lines(self.out))
        handler.setFormatter(JsonFormatter() if self.as_json else TextFormatter(self.style))
        logger = logging.getLogger(WATCHED)
        logger.handlers = [handler]
        logger.propagate = False
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


class _Lines:
    """A stream for logging over Django's OutputWrapper."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out

    def write(self, text: str) -> None:
        self._out.write(text, ending="")

    def flush(self) -> None:
        self._out.flush()


class TextFormatter(logging.Formatter):
    """``20:14:03.420 retry  shop.order.paid … → billing.receivers.invoice  1/8 in 2.0 s  …``"""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self._paint = style

    def format(self, record: logging.LogRecord) -> str:
        paint = self._paint.ERROR if record.levelno >= logging.ERROR else self._paint.WARNING
        line = f"{_now()} {record.getMessage()}"
        line = paint(line) if record.levelno >= logging.WARNING else line
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """The same lines as JSON objects."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": datetime.fromtimestamp(record.created).astimezone().isoformat(), "level": record.levelname}
        line |= {"logger": record.name, "message": record.getMessage(), **getattr(record, "facts", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _row(receiver: Receiver, transport: str) -> tuple[str, str, str, str, str]:
    is_stream = transport == "stream"
    modes = ["once"] * receiver.once + ["async"] * receiver.is_async + ["every listener"] * (not is_stream)
    retry = receiver.retry or (default_retry() if is_stream else None)
    policy = f"{retry.attempts}, {retry.delay:g}–{retry.max_delay:g} s" if retry else "–"
    types = ", ".join(receiver.types or ("*",))
    return f"{receiver.channel} ({transport})", types, receiver.name, ", ".join(modes) or "one listener", policy


def _server() -> str:
    if is_memory():
        return mask(conf.LOCATION)
    try:
        server = server_name(conf.LOCATION)
    except TransportError:
        server = ""
    return f"{server} {mask(conf.LOCATION)}".strip()


def _done_line(result: Result) -> str:
    envelope = result.run.document.envelope
    what = f"{envelope.type or one_line(result.run.delivery.channel, limit=64)} {short_id(envelope.id)}"
    return f"{_now()} done   {what} → {result.run.receiver.name}  {result.seconds * 1e3:.0f} ms"


def _facts(result: Result) -> dict[str, Any]:
    envelope = result.run.document.envelope
    return {
        "outcome": str(result.verdict.outcome),
        "type": envelope.type,
        "id": envelope.id,
        "receiver": result.run.receiver.name,
        "ms": round(result.seconds * 1e3, 1),
    }


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"
