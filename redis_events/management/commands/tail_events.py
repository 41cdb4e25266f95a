"""``manage.py tail_events``: watch events as they come."""

from __future__ import annotations

import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ...process import Exit
from ...routing import is_memory
from ...wording import counted
from ..arguments import count, moment
from ..base import EventsCommand, add_format
from ..tables import line as as_json
from ..tailing import LONGEST, Line, Tail


class Command(EventsCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Watch events as they come, in no group and settling nothing, until Ctrl+C.")
        parser.add_argument("channels", nargs="+", metavar="GLOB", help=_("Channels or patterns, without PREFIX."))
        parser.add_argument("--since", type=moment, metavar="T", help=_("Begin there in streams, ISO 8601."))
        parser.add_argument("--limit", type=count, metavar="N", help=_("End after N events."))
        parser.add_argument("--filter", default="", metavar="TEXT", help=_("Only those with this text in them."))
        parser.add_argument("--no-data", action="store_true", help=_("Leave out what they say."))
        add_format(parser, "text", "json")

    def run(self, options: dict[str, Any]) -> Exit:
        if is_memory():
            raise CommandError(_("memory:// stays inside the process that publishes."), returncode=Exit.USAGE)
        tail = Tail(
            channels=options["channels"],
            show=self._writer(options),
            tell=self._tell,
            since=options["since"],
            limit=options["limit"],
            text=options["filter"],
        )
        try:
            tail.run()
        except KeyboardInterrupt:
            self._tell(counted(tail.count, "event"))
        return Exit.OK

    def _writer(self, options: dict[str, Any]) -> Callable[[Line], None]:
        with_data = not options["no_data"]

        def write(line: Line) -> None:
            if options["format"] == "json":
                self.stdout.write(as_json(_facts(line, with_data=with_data)))
            else:
                self.stdout.write(line.text(width=self._width(), with_data=with_data))
            self.stdout.flush()

        return write

    def _width(self) -> int:
        return shutil.get_terminal_size().columns if self.stdout.isatty() else LONGEST

    def _tell(self, text: str) -> None:
        self.stderr.write(text)
        self.stderr.flush()


def _facts(line: Line, *, with_data: bool) -> dict[str, Any]:
    names = ("time", "channel", "type", "key", "id", "source", *["data"] * with_data)
    return {name: getattr(line, name) for name in names}
