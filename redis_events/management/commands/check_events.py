"""``manage.py check_events``: is the server fit for what this project asks of it?"""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from ...conf import conf, mask
from ...inspection import Server, checks
from ...inspection.facts import Check
from ...inspection.health import LEVELS, PATIENCE, worst
from ...process import Exit
from ...routing import is_memory
from ...wording import one_line
from ..base import EventsCommand, add_format
from ..tables import document


class Command(EventsCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Ask the server whether it fits; `check` looks at the code and asks nobody.")
        parser.add_argument(
            "--fail-level", choices=("warning", "error"), default="error", help=_("Exit 5 from this level on.")
        )
        add_format(parser, "table", "json")

    def run(self, options: dict[str, Any]) -> Exit:
        location = mask(conf.LOCATION)
        with Server(patience=PATIENCE) as server:
            found = checks(server=server)
            is_away = server.trouble is not None and not is_memory()
        if options["format"] == "json":
            facts = {"service": conf.SERVICE, "location": location, "level": worst(found), "checks": found}
            self.stdout.write(document(facts))
        else:
            self._write(found)
        if is_away:
            return Exit.UNREACHABLE
        is_bad = LEVELS.index(worst(found)) >= LEVELS.index(options["fail_level"])
        return Exit.NOT_READY if is_bad else Exit.OK

    def _write(self, found: Sequence[Check]) -> None:
        paint = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "error": self.style.ERROR}
        width = max(len(each.title) for each in found)
        for each in found:
            level = paint.get(each.level, str)(f"{_level(each.level):<8}")
            self.stdout.write(f"{level} {each.title:<{width}}  {one_line(each.detail, limit=2_000)}")
            if each.advice and each.level != "ok":
                self.stdout.write(f"{'':8} {'':{width}}  → {one_line(each.advice, limit=2_000)}")
        counts = Counter(each.level for each in found)
        self.stdout.write(" · ".join(f"{counts[level]} {_level(level)}" for level in LEVELS if counts[level]))


def _level(level: str) -> str:
    return {"ok": _("ok"), "unknown": _("unknown"), "warning": _("warning"), "error": _("error")}[level]
