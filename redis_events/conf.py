"""The only reader of ``settings.REDIS_EVENTS``: late, validated, cached until the setting changes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core.signals import setting_changed

from .exceptions import LONGEST_PAUSE, ConfigurationError

NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
GROUP = re.compile(r"[A-Za-z0-9._-]{1,64}")
RESERVED = "redis-events:"
SCHEMES = ("redis", "rediss", "unix", "memory")
TRANSPORTS = ("pubsub", "stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelConf:
    """One entry of ``CHANNELS``, whole: what it leaves out is the project's default."""

    name: str
    TRANSPORT: str = "pubsub"
    OUTBOX: bool = False
    RETENTION: float | None = None
    MAX_LENGTH: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the setting: where, what, and what to do about it."""

    place: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f" {self.hint}" if self.hint else "")


def suggest(word: object, known: list[str] | tuple[str, ...]) -> str:
    """``Did you mean "…"?`` for a near miss, else the list of what is known."""
    close = get_close_matches(str(word), known, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known: {', '.join(known)}."


def _text(pattern: re.Pattern[str], meaning: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or (value and not pattern.fullmatch(value)):
            raise ValueError(f"must be {meaning}, not {value!r}.")
        return value

    return read


def _seconds(value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ValueError(f"must be a positive number of seconds or a timedelta, not {value!r}.")
    return float(seconds)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"must be a whole number of at least 1, not {value!r}.")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be True or False, not {value!r}.")
    return value


def _optional_count(value: Any) -> int | None:
    return None if value is None else _count(value)


def _location(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a URL such as redis://localhost:6379/0.")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL that can be read (is the port a number?).") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"has the scheme {parts.scheme!r}. {suggest(parts.scheme, SCHEMES)}")
    if parts.scheme in ("redis", "rediss"):
        _check_after_host(parts)
    return value


def _check_after_host(parts: SplitResult) -> None:
    if "@" in parts.path + parts.fragment:  # nothing would know it for a password, and log lines would show it
        raise ValueError("has an @ after the host: in a password / is written %2F, # is %23, ? is %3F.")
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError(f"has the database {parts.path.strip('/')!r}; it is a number.")


RETRY_KEYS = ("attempts", "delay", "max_delay")


def _retry(value: Any) -> dict[str, float]:
    given = value if isinstance(value, Mapping) else {key: getattr(value, key, None) for key in RETRY_KEYS}
    for key in given:
        if key not in RETRY_KEYS:
            raise ValueError(f"has no key {key!r}. {suggest(key, RETRY_KEYS)}")
    read = {"attempts": _count, "delay": _seconds, "max_delay": _seconds}
    merged = {"attempts": 8, "delay": 1.0, "max_delay": 600.0, **given}
    retry = {key: read[key](merged[key]) for key in RETRY_KEYS}
    if not retry["delay"] <= retry["max_delay"] <= LONGEST_PAUSE:
        raise ValueError("has a delay above its max_delay, or one above a year.")
    return retry


def _transport(value: Any) -> str:
    if not isinstance(value, str) or (value not in TRANSPORTS and "." not in value):
        raise ValueError(f"is unknown: {value!r}. {suggest(value, TRANSPORTS)} Or the dotted path of a Transport.")
    return value


CHANNEL_READERS: dict[str, Callable[[Any], Any]] = {
    "TRANSPORT": _transport,
    "OUTBOX": _flag,
    "RETENTION": _seconds,
    "MAX_LENGTH": _optional_count,
}


def _channels(value: Any) -> dict[str, ChannelConf]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a dict of channel names and patterns.")
    return {name: _channel(name, entry) for name, entry in value.items()}


def _channel(name: Any, entry: Any) -> ChannelConf:
    place = f'["{name}"]'
    if not isinstance(name, str) or not NAME.fullmatch(name.replace("*", "x")) or name.startswith(RESERVED):
        raise _At(place, "is not a channel name or pattern: letters, digits and ._:- with * for anything.")
    if not isinstance(entry, Mapping):
        raise _At(place, f"must be a dict, not {entry!r}.")
    for key in entry:
        if key not in CHANNEL_READERS:
            raise _At(place, f"unknown setting {key!r}.", suggest(key, tuple(CHANNEL_READERS)))
    read = {key: _read_at(f'{place}["{key}"]', key, entry[key]) for key in entry}
    if read.get("OUTBOX") and read.setdefault("TRANSPORT", "stream") != "stream":
        raise _At(place, "OUTBOX needs a stream to send to.", 'Leave TRANSPORT out: OUTBOX implies "stream".')
    return ChannelConf(name=name, **read)


def _read_at(place: str, key: str, value: Any) -> Any:
    try:
        return CHANNEL_READERS[key](value)
    except ValueError as error:
        raise _At(place, str(error)) from None


class _At(ValueError):
    """A ValueError that knows its place below the setting being read."""

    def __init__(self, place: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.place, self.hint = place, hint


PREFIX = re.compile(r"[A-Za-z0-9._:-]{0,64}")
READERS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "SERVICE": (_text(GROUP, "a name of up to 64 letters, digits and ._-"), lambda: ""),
    "LOCATION": (_location, lambda: os.environ.get("REDIS_URL") or "redis://localhost:6379/0"),
    "PREFIX": (_text(PREFIX, "up to 64 letters, digits and ._:-"), lambda: ""),
    "CHANNELS": (_channels, dict),
    "CLAIM_AFTER": (_seconds, lambda: 60.0),
    "MAX_DELIVERIES": (_count, lambda: 5),
    "GRACE": (_seconds, lambda: 30.0),
    "BATCH": (_count, lambda: 100),
    "RETRY": (_retry, dict),
    "MAX_EVENT_BYTES": (_count, lambda: 262_144),
    "PUBLISH_TIMEOUT": (_seconds, lambda: 0.25),
    "RECONNECT_MAX": (_seconds, lambda: 3.0),
    "POLL": (_seconds, lambda: 1.0),
    "RETENTION": (_seconds, lambda: 7 * 86_400.0),
    "MAX_LENGTH": (_optional_count, lambda: None),
    "KEEP_DEAD": (_seconds, lambda: 30 * 86_400.0),
    "ADMIN": (_flag, lambda: True),
}


def problems() -> Iterator[Problem]:
    """Everything wrong with ``settings.REDIS_EVENTS``, at most one problem a setting."""
    given = getattr(settings, "REDIS_EVENTS", {})
    if not isinstance(given, Mapping):
        yield Problem("REDIS_EVENTS", "must be a dict.", 'For example {"LOCATION": "redis://localhost:6379/0"}.')
        return
    for name in given:
        if name not in READERS:
            yield Problem("REDIS_EVENTS", f"unknown setting {name!r}.", suggest(name, tuple(READERS)))
    for name in READERS:
        problem = _read(name, given)[1]
        if problem:
            yield problem


def _read(name: str, given: Mapping[str, Any]) -> tuple[Any, Problem | None]:
    reader, default = READERS[name]
    place = f'REDIS_EVENTS["{name}"]'
    if name == "LOCATION" and name not in given:
        place = "REDIS_URL"
    try:
        return reader(given[name] if name in given else default()), None
    except _At as error:
        return None, Problem(place + error.place, str(error), error.hint)
    except ValueError as error:
        return None, Problem(place, str(error))


class Conf:
    """The settings, read at the first use: ``conf.PREFIX``.

    Every attribute is a setting of the same name. Raises ``ConfigurationError`` naming the place when
    anything in ``REDIS_EVENTS`` is wrong: a misspelt ``PREFIX`` must not send events to other people's channels.
    """

    SERVICE: str
    LOCATION: str
    PREFIX: str
    CHANNELS: dict[str, ChannelConf]
    CLAIM_AFTER: float
    MAX_DELIVERIES: int
    GRACE: float
    BATCH: int
    RETRY: dict[str, Any]
    MAX_EVENT_BYTES: int
    PUBLISH_TIMEOUT: float
    RECONNECT_MAX: float
    POLL: float
    RETENTION: float
    MAX_LENGTH: int | None
    KEEP_DEAD: float
    ADMIN: bool

    def __getattr__(self, name: str) -> Any:
        if name not in READERS:
            raise AttributeError(name)
        for problem in problems():
            raise ConfigurationError(str(problem))
        given = getattr(settings, "REDIS_EVENTS", {})
        self.__dict__.update({setting: _read(setting, given)[0] for setting in READERS})
        return self.__dict__[name]

    @property
    def source(self) -> str:
        """The CloudEvents ``source`` of what this service publishes."""
        return self.SERVICE or "unnamed"

    @property
    def wake_channel(self) -> str:
        """The Pub/Sub channel on the server by which the relays of this service are woken."""
        return self.redis_name(f"{RESERVED}wake:{self.source}")

    def channel(self, name: str) -> ChannelConf | None:
        """The entry of ``CHANNELS`` for a channel: the exact name, else the longest pattern, else None."""
        exact = self.CHANNELS.get(name)
        if exact:
            return exact
        matching = [entry for pattern, entry in self.CHANNELS.items() if "*" in pattern and glob(pattern, name)]
        return max(matching, key=lambda entry: len(entry.name), default=None)

    def redis_name(self, name: str) -> str:
        """The name on the server of a channel or key of ours: ``PREFIX`` and a colon in front, when set."""
        return f"{self.PREFIX}:{name}" if self.PREFIX else name

    def clear(self, **_: object) -> None:
        """Forget what was read."""
        self.__dict__.clear()


def glob(pattern: str, name: str) -> bool:
    """Whether a pattern covers a name: ``*`` is any characters, also none, dots too; nothing else is special."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def mask(location: str) -> str:
    """A location that can be shown: its password is ``***``, its query is left out."""
    parts = urlsplit(location)
    shown = location.split("?")[0]
    if parts.password is not None:
        user, _, host = parts.netloc.rpartition("@")
        shown = shown.replace(parts.netloc, f"{user.split(':')[0]}:***@{host}", 1)
    return shown


conf = Conf()
setting_changed.connect(conf.clear, dispatch_uid="redis_events.conf")
