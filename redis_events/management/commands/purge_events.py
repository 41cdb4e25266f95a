"""``manage.py purge_events``: empty a channel on purpose."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections, router
from django.utils.translation import gettext as _

from ...conf import NAME
from ...exceptions import ConfigurationError, TransportError
from ...models import OutboxEvent
from ...process import Exit
from ...purging import Purge, count, purge
from ...routing import is_memory
from ...wording import counted, one_line


class Command(BaseCommand):
    requires_system_checks: list[str] = []
    suppressed_base_arguments = {"--traceback"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _(
            "Remove everything a stream holds, for all services, and discard its events in this service's outbox."
        )
        parser.add_argument("channel", help=_("The channel, without PREFIX."))
        parser.add_argument("--database", choices=tuple(connections), help=_("The database with the outbox."))
        parser.add_argument("--dry-run", action="store_true", help=_("Count it and change nothing."))
        parser.add_argument("--yes", action="store_true", help=_("Do not ask."))

    def handle(self, *, channel: str, **options: Any) -> None:
        if not NAME.fullmatch(channel):
            raise CommandError(_("%r is no name of a channel.") % channel, returncode=Exit.USAGE)
        using = options["database"] or router.db_for_write(OutboxEvent)
        try:
            if is_memory():
                raise CommandError(_("memory:// keeps nothing that could be removed."), returncode=Exit.USAGE)
            self._purge(channel, using, dry_run=options["dry_run"], asks=not options["yes"])
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=Exit.NOT_READY) from error
        except TransportError as error:
            raise CommandError(str(error), returncode=Exit.UNREACHABLE) from error
        except Error as error:
            text = _("The database cannot be used (is `migrate` done?): %(error)s") % {"error": one_line(error)}
            raise CommandError(text, returncode=Exit.NOT_READY) from error

    def _purge(self, channel: str, using: str, *, dry_run: bool, asks: bool) -> None:
        if dry_run:
            self.stdout.write(_("%s would be removed.") % _shown(count(channel, using=using)))
            return
        if asks and not self._agrees(channel, count(channel, using=using)):
            raise CommandError(_("Nothing was removed."), returncode=Exit.USAGE)
        self.stdout.write(_("%s removed.") % _shown(purge(channel, using=using)))

    def _agrees(self, channel: str, found: Purge) -> bool:
        question = _("Remove %(what)s of %(channel)s, for every service? [y/N] ")
        self.stdout.write(question % {"what": _shown(found), "channel": channel}, ending="")
        self.stdout.flush()
        try:
            return input().strip().lower() in ("y", "yes")
        except EOFError:
            return False


def _shown(purge: Purge) -> str:
    entries = f"{purge.entries:,} entries" if purge.entries != 1 else "1 entry"
    return _("%(rows)s and %(entries)s") % {"rows": counted(purge.rows, "outbox row"), "entries": entries}
