"""The settings as they came to be: each with its value and where that is from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from ..conf import READERS, ChannelConf, conf, mask, problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. ``origin``: settings, REDIS_URL or default. Passwords are masked in ``value``."""

    name: str
    value: str
    origin: str
    problem: str = ""


def effective_settings() -> list[Setting]:
    """Every setting of REDIS_EVENTS, in the order of the documentation; one that cannot be read with its problem."""
    wrong = {problem.place: str(problem) for problem in problems()}
    return [_setting(name, wrong) for name in READERS]


def _setting(name: str, wrong: Mapping[str, str]) -> Setting:
    place = origin(name)
    if wrong:
        said = next((text for at, text in wrong.items() if f'["{name}"]' in at or at == place), "")
        return Setting(name=name, value="", origin=place, problem=said)
    return Setting(name=name, value=_shown(name, getattr(conf, name)), origin=place)


def origin(name: str) -> str:
    """Where the value of a setting is from: settings, REDIS_URL or default."""
    if name in _given():
        return "settings"
    return "REDIS_URL" if name == "LOCATION" and os.environ.get("REDIS_URL") else "default"


def _given() -> Mapping[str, Any]:
    given = getattr(settings, "REDIS_EVENTS", {})
    return given if isinstance(given, Mapping) else {}


def _shown(name: str, value: Any) -> str:
    if name == "LOCATION":
        return mask(value)
    if name == "CHANNELS":
        return "; ".join(f"{channel}: {_entry(entry)}" for channel, entry in value.items())
    if name == "RETRY":
        return ", ".join(f"{key} {part:g}" for key, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _entry(entry: ChannelConf) -> str:
    parts = [entry.TRANSPORT, *(["OUTBOX"] if entry.OUTBOX else [])]
    parts += [
        f"{name} {value:g}" for name in ("RETENTION", "MAX_LENGTH") if (value := getattr(entry, name)) is not None
    ]
    return " ".join(parts)
