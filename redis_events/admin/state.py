"""Settings and checks: why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.core.checks import ERROR as ERROR_LEVEL
from django.core.checks import CheckMessage, run_checks
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import Check
from . import show
from .blocks import Block, Row, Table
from .look import Look
from .pages import Page


class StatePage(Page):
    is_live = False

    def blocks(self, look: Look) -> Iterator[Block]:
        checks = look.rows(lambda: inspection.checks(server=look.server))
        yield _check_table(checks)
        yield _message_table(run_checks(tags=["redis_events"]))
        yield _setting_table()


def _check_table(checks: Sequence[Check] | None) -> Table:
    return Table(
        title=_("The server"),
        headings=[_("Result"), _("What"), _("Found"), _("What to do")],
        rows=None if checks is None else [_check_row(check) for check in checks],
        note=_("Asked at this moment; `manage.py check_events` says the same."),
    )


def _check_row(check: Check) -> Row:
    words = {"ok": _("ok"), "warning": _("warning"), "error": _("error"), "unknown": _("unknown")}
    level = show.status(check.level, words.get(check.level, check.level))
    return Row(cells=[level, show.prose(check.title), show.prose(check.detail), show.prose(check.advice)])


def _message_table(messages: Sequence[CheckMessage]) -> Table:
    return Table(
        title=_("The code"),
        headings=[_("Level"), _("Check"), _("What"), _("What to do")],
        rows=[_message_row(message) for message in messages],
        empty=_("`manage.py check` has nothing to say about redis_events."),
    )


def _message_row(message: CheckMessage) -> Row:
    is_error = message.level >= ERROR_LEVEL
    level = show.status("error", _("error")) if is_error else show.status("warning", _("warning"))
    return Row(cells=[level, show.text(message.id), show.prose(message.msg), show.prose(message.hint)])


def _setting_table() -> Table:
    return Table(
        title=_("Settings in effect"),
        headings=[_("Setting"), _("Value"), _("From")],
        rows=[
            Row(cells=[each.name, show.data(each.value), _origin(each.origin)])
            for each in inspection.effective_settings()
        ],
        note=_("REDIS_EVENTS as this process reads it; passwords are masked."),
    )


def _origin(origin: str) -> str:
    return {"settings": _("settings"), "default": _("default")}.get(origin, origin)
