"""``manage.py purge_events``: empty a channel on purpose."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Collection
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from django.utils.translation import gettext as _

from ... import readiness
from ...conf import NAME
from ...process import Exit
from ...purging import Purge, count, purge
from ...routing import is_memory
from ...wording import counted
from ..base import EventsCommand


class Command(EventsCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _(
            "Remove everything a stream holds, for all services, and discard its events in this service's outboxes."
        )
        parser.add_argument("channel", help=_("The channel, without PREFIX."))
        parser.add_argument("--database", choices=tuple(connections), help=_("The only outbox to discard them in."))
        parser.add_argument("--dry-run", action="store_true", help=_("Count it and change nothing."))
        parser.add_argument("--yes", action="store_true", help=_("Do not ask."))

    def run(self, options: dict[str, Any]) -> Exit:
        channel = options["channel"]
        if not NAME.fullmatch(channel):
            raise CommandError(_("%r is no name of a channel.") % channel, returncode=Exit.USAGE)
        if is_memory():
            raise CommandError(_("memory:// keeps nothing that could be removed."), returncode=Exit.USAGE)
        outboxes = [options["database"]] if options["database"] else readiness.outboxes()
        self._purge(channel, outboxes, dry_run=options["dry_run"], asks=not options["yes"])
        return Exit.OK

    def _purge(self, channel: str, outboxes: Collection[str], *, dry_run: bool, asks: bool) -> None:
        if dry_run:
            self.stdout.write(_("%s would be removed.") % _shown(count(channel, outboxes=outboxes)))
            return
        if asks and not self.agrees(_question(channel, count(channel, outboxes=outboxes))):
            raise CommandError(_("Nothing was removed."), returncode=Exit.USAGE)
        self.stdout.write(_("%s removed.") % _shown(purge(channel, outboxes=outboxes)))


def _question(channel: str, found: Purge) -> str:
    text = _("Remove %(what)s of %(channel)s, for every service?")
    return text % {"what": _shown(found), "channel": channel}


def _shown(purge: Purge) -> str:
    entries = f"{purge.entries:,} entries" if purge.entries != 1 else "1 entry"
    return _("%(rows)s and %(entries)s") % {"rows": counted(purge.rows, "outbox row"), "entries": entries}
