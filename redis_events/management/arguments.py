"""What options mean: moments, counts."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _


def moment(text: str) -> datetime:
    """An ISO 8601 date or time; without an offset it is in the project's time zone."""
    try:
        date = parse_date(text)
        found = datetime(date.year, date.month, date.day) if date else parse_datetime(text)  # noqa: DTZ001
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from error
    if found is None:
        raise ArgumentTypeError(_("%r is no date or time; 2026-11-22T20:15:00 is one") % text)
    return found if found.tzinfo else timezone.make_aware(found)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(_("%r is no whole number of at least 1") % text)
    return int(text)


def limit(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise ArgumentTypeError(_("%r is no whole number of at least 0") % text)
    return int(text)


def seconds(text: str) -> float:
    """A number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(_("%r is no number of seconds of at least 0") % text)
    return number
