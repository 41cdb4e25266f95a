"""``manage.py replay_events``: hand dead letters, or old events of a stream, to a receiver again."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, SystemCheckError
from django.db import Error
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _

from ...exceptions import ConfigurationError, ReplayError, TransportError
from ...process import Exit
from ...replaying import Replay
from ...wording import counted, one_line

OLD = ("since", "until", "type")
DEAD = ("dead", "fingerprint")


class Command(BaseCommand):
    requires_system_checks: list[str] = []
    suppressed_base_arguments = {"--traceback"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Let a receiver run again for dead letters, or for old events of a stream.")
        parser.add_argument("--dead", nargs="+", default=(), metavar="ID", help=_("Ids of dead letters or of events."))
        parser.add_argument("--fingerprint", default="", metavar="F", help=_("Dead letters with this fingerprint."))
        parser.add_argument("--receiver", default="", metavar="R", help=_("Dotted path or name of a receiver."))
        parser.add_argument("--since", type=_moment, metavar="T", help=_("Old events from this moment on, ISO 8601."))
        parser.add_argument("--until", type=_moment, metavar="T", help=_("Old events up to this moment."))
        parser.add_argument("--type", nargs="+", default=(), metavar="GLOB", help=_("Old events of these types only."))
        parser.add_argument("--rate", type=_rate, metavar="N", help=_("At most N of them become due in a second."))
        parser.add_argument("--dry-run", action="store_true", help=_("Count them and change nothing."))
        parser.add_argument("--format", choices=("table", "json"), default="table", help=_("How the result is shown."))

    def handle(self, **options: Any) -> None:
        self._check()
        replay = Replay(rate=options["rate"], dry_run=options["dry_run"])
        code = Exit.OK
        try:
            _replay(replay, options)
        except KeyboardInterrupt:
            self.stderr.write(_("Broken off. Asked for the same again, it goes on where it was."))
            code = Exit.ABANDONED
        except ReplayError as error:
            raise CommandError(str(error), returncode=Exit.USAGE) from error
        except TransportError as error:
            raise CommandError(str(error), returncode=Exit.UNREACHABLE) from error
        except Error as error:
            raise CommandError(_not_ready(error), returncode=Exit.NOT_READY) from error
        self.stdout.write(json.dumps(_facts(replay)) if options["format"] == "json" else _table(replay))
        if code:
            raise SystemExit(int(code))

    def _check(self) -> None:
        try:
            self.check()
        except (SystemCheckError, ConfigurationError) as error:
            raise CommandError(str(error), returncode=Exit.NOT_READY) from error


def _replay(replay: Replay, options: dict[str, Any]) -> None:
    if not any(options[name] for name in OLD):
        replay.dead_letters(ids=options["dead"], fingerprint=options["fingerprint"], receiver=options["receiver"])
        return
    if any(options[name] for name in DEAD):
        raise ReplayError("--since, --until and --type are for old events, --dead and --fingerprint for dead letters")
    if not (options["since"] and options["until"] and options["receiver"]):
        raise ReplayError("old events need --receiver, --since and --until")
    replay.old_events(options["receiver"], since=options["since"], until=options["until"], types=options["type"])


def _moment(text: str) -> datetime:
    """An ISO 8601 date or time; without an offset it is in the project's time zone."""
    try:
        date = parse_date(text)
        moment = datetime(date.year, date.month, date.day) if date else parse_datetime(text)  # noqa: DTZ001
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from error
    if moment is None:
        raise ArgumentTypeError(f"{text!r} is no date or time; 2026-11-22T20:15:00 is one")
    return moment if moment.tzinfo else timezone.make_aware(moment)


def _rate(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _not_ready(error: Error) -> str:
    return _("The database cannot be used (is `migrate` done?): %(error)s") % {"error": one_line(error)}


def _table(replay: Replay) -> str:
    rows: list[tuple[str, ...]] = [("RECEIVER", "CHANNEL", "TYPE", "EVENTS")]
    rows += [(*map(one_line, key), f"{count:,}") for key, count in sorted(replay.replayed.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3].rjust(widths[3])]) for row in rows]
    return "\n".join([*(lines if replay.replayed else ()), _sum(replay)])


def _sum(replay: Replay) -> str:
    done = _("would be replayed") if replay.dry_run else _("replayed")
    parts = [f"{counted(replay.replayed.total(), 'event')} {done}", f"{replay.waiting:,} {_('waiting already')}"]
    return " · ".join([*parts, *(f"{count:,} left: {_(reason)}" for reason, count in sorted(replay.left.items()))])


def _facts(replay: Replay) -> dict[str, Any]:
    rows = [
        {"receiver": receiver, "channel": channel, "type": type, "events": count}
        for (receiver, channel, type), count in sorted(replay.replayed.items())
    ]
    total = replay.replayed.total()
    return {"replayed": total, "waiting": replay.waiting, "left": replay.left, "dry_run": replay.dry_run, "rows": rows}
