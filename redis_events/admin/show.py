"""Values as people read them: safe HTML, "—" for what nobody could say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

UNKNOWN = "—"
MOST_SHOWN = 64 * 1024
"""Bytes, or characters, of data that a page shows unasked."""
SHORT = 120
TAIL = 12
ICONS = {"ok": "✓", "warning": "⚠", "error": "✕", "unknown": "?", "idle": "‖"}


def text(value: object) -> str:
    """Anything as text; "—" for None and for nothing."""
    return UNKNOWN if value is None or value == "" else str(value)


def data(value: object) -> str:
    """What somebody else wrote: it may run from right to left, and is never translated."""
    return UNKNOWN if value is None or value == "" else format_html('<bdi class="re-data">{}</bdi>', value)


def prose(value: object) -> str:
    """A sentence in a table, of more than one line when it is long."""
    return UNKNOWN if value is None or value == "" else format_html('<span class="re-prose">{}</span>', value)


def names(values: Iterable[object] | None) -> str:
    """Several pieces of data, one below the other."""
    shown = format_html_join(mark_safe("<br>"), '<bdi class="re-data">{}</bdi>', ((each,) for each in values or ()))
    return shown or UNKNOWN


def tail(id: str) -> str:
    """The end of an event's id, where ids differ; the whole of it is said where one points at it."""
    if len(id) <= TAIL + 1:
        return id
    return format_html('<span title="{}">…{}</span>', id, id[-TAIL:])


def number(value: float | None, *, decimals: int | None = None) -> str:
    """A number with the language's separators."""
    if value is None:
        return UNKNOWN
    places = decimals if decimals is not None else 0 if float(value).is_integer() or abs(value) >= 100 else 1
    return str(number_format(value, places, use_l10n=True, force_grouping=True))


def size(value: int | None) -> str:
    """Bytes, in the unit that fits."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{number(value)} {unit}"
        value = value // 1024
    return f"{number(value)} GiB"


def seconds(value: float | None) -> str:
    """A duration in its largest fitting unit."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.000_1:
        return _("< 0.1 ms")
    if value < 1:
        return _("%s ms") % number(value * 1000, decimals=0 if value >= 0.01 else 1)
    if value < 60:
        return _("%s s") % number(value, decimals=0)
    if value < 7200:
        return _("%s min") % number(value / 60, decimals=0)
    if value < 172_800:
        return _("%s h") % number(value / 3600, decimals=0)
    days = round(value / 86_400)
    return ngettext("%(days)s day", "%(days)s days", days) % {"days": number(days)}


def moment(value: datetime | None) -> str:
    """A moment, in the time zone and language of the page."""
    if value is None:
        return UNKNOWN
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    shown = f"{date_format(local, 'SHORT_DATE_FORMAT')} {date_format(local, 'H:i:s')}"
    return format_html('<time datetime="{}">{}</time>', value.isoformat(), shown)


def minute(value: datetime) -> str:
    """The minute of a moment that is not long ago: without its day."""
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    return format_html('<time datetime="{}">{}</time>', value.isoformat(), date_format(local, "H:i"))


def age(value: datetime | None) -> str:
    """How long ago a moment was."""
    return UNKNOWN if value is None else seconds(max(0.0, (timezone.now() - value).total_seconds()))


def since(value: datetime | None) -> str:
    """A moment and how long ago it was."""
    return UNKNOWN if value is None else format_html("{} ({})", moment(value), age(value))


def flag(value: bool | None) -> str:
    return UNKNOWN if value is None else _("yes") if value else _("no")


def status(level: str, word: object) -> SafeString:
    """An icon, a word and a colour: any two of them may be missing to the reader."""
    icon = ICONS.get(level, ICONS["unknown"])
    return format_html('<span class="re-status re-{}"><span aria-hidden="true">{}</span> {}</span>', level, icon, word)


def unknown_or(level: str, word: object, value: object) -> str:
    """A status, or "—" where the value it stands for is unknown."""
    return UNKNOWN if value is None else status(level, word)


def short(value: Any) -> str:
    """The beginning of an event's data, on one line."""
    line = value if isinstance(value, str) else as_json(value, indent=None)
    shown = line if len(line) <= SHORT else f"{line[:SHORT]}…"
    return format_html('<bdi class="re-data re-short">{}</bdi>', shown) if shown else UNKNOWN


def as_json(value: Any, *, indent: int | None = 2) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def raw_text(raw: bytes) -> str:
    """Bytes as text where they are text, else in hexadecimal digits, 32 bytes a line."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.end >= len(raw):  # cut in the middle of a character
            return raw[: error.start].decode()
        return "\n".join(raw[at : at + 32].hex(" ") for at in range(0, len(raw), 32))


def left(reasons: Mapping[str, int]) -> str:
    """How many were left alone, by the reason."""
    return "; ".join(f"{reason}: {number(count)}" for reason, count in reasons.items())


def links(*each: str) -> SafeString:
    """Several links beside one another."""
    return format_html_join(" · ", "{}", ((link,) for link in each))
