"""What somebody else wrote, on a page: text as text, other bytes in hexadecimal, 64 KB unless asked for more."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html
from django.utils.translation import gettext as _

from . import show
from .blocks import Text
from .look import Look

WHOLE = "whole"


def data_text(look: Look, value: Any, *, title: str) -> Text:
    """An event's data."""
    text = value if isinstance(value, str) else show.as_json(value)
    if _is_whole(look, len(text)):
        return Text(title=title, text=text)
    return Text(title=title, text=text[: show.MOST_SHOWN], more=_show_more(look, len(text)))


def raw_text(look: Look, raw: bytes, *, title: str) -> Text:
    """Raw bytes."""
    if _is_whole(look, len(raw)):
        return Text(title=title, text=show.raw_text(raw))
    return Text(title=title, text=show.raw_text(raw[: show.MOST_SHOWN]), more=_show_more(look, len(raw)))


def _is_whole(look: Look, length: int) -> bool:
    return length <= show.MOST_SHOWN or bool(look.asked(WHOLE))


def _show_more(look: Look, length: int) -> str:
    query = look.request.GET.copy()
    query[WHOLE] = "1"
    label = _("Show all %s bytes") % show.number(length)
    return format_html('<a href="?{}">{}</a>', query.urlencode(), label)
