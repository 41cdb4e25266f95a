"""``manage.py replay_events``: hand dead letters, or old events of a stream, to a receiver again."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.utils.translation import gettext as _

from ...exceptions import ReplayError
from ...process import Exit
from ...registry import all_receivers
from ...replaying import Replay, names_of
from ...wording import counted
from ..arguments import count, moment
from ..base import EventsCommand, add_format
from ..meant import refuse_no_letters, refuse_nothing
from ..tables import document, table

OLD = ("since", "until", "type")
DEAD = ("dead", "fingerprint")


class Command(EventsCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Let a receiver run again for dead letters, or for old events of a stream.")
        parser.add_argument("--dead", nargs="+", default=(), metavar="ID", help=_("Ids of dead letters or of events."))
        parser.add_argument("--fingerprint", metavar="F", help=_("Dead letters with this fingerprint."))
        parser.add_argument("--receiver", metavar="R", help=_("Dotted path or name of a receiver."))
        parser.add_argument("--since", type=moment, metavar="T", help=_("Old events from this moment on, ISO 8601."))
        parser.add_argument("--until", type=moment, metavar="T", help=_("Old events up to this moment."))
        parser.add_argument("--type", nargs="+", default=(), metavar="GLOB", help=_("Old events of these types only."))
        parser.add_argument("--rate", type=count, metavar="N", help=_("At most N of them become due in a second."))
        parser.add_argument("--dry-run", action="store_true", help=_("Count them and change nothing."))
        add_format(parser, "table", "json")

    def run(self, options: dict[str, Any]) -> Exit:
        refuse_nothing(options, ("dead", "fingerprint", "receiver", "type"))
        self.check_first()
        replay = Replay(rate=options["rate"], dry_run=options["dry_run"])
        code = Exit.OK
        try:
            _replay(replay, options)
        except KeyboardInterrupt:
            self.stderr.write(_("Broken off. Asked for the same again, it goes on where it was."))
            code = Exit.ABANDONED
        self.stdout.write(document(_facts(replay)) if options["format"] == "json" else _table(replay))
        return code


def _replay(replay: Replay, options: dict[str, Any]) -> None:
    if not any(options[name] for name in OLD):
        one = {name: options[name] or "" for name in ("fingerprint", "receiver")}
        _replay_dead(replay, ids=options["dead"], **one)
        return
    if any(options[name] for name in DEAD):
        raise ReplayError(
            _("--since, --until and --type are for old events, --dead and --fingerprint for dead letters")
        )
    if not (options["since"] and options["until"] and options["receiver"]):
        raise ReplayError(_("old events need --receiver, --since and --until"))
    replay.old_events(options["receiver"], since=options["since"], until=options["until"], types=options["type"])


def _replay_dead(replay: Replay, **named: Any) -> None:
    replay.dead_letters(**named)
    if not (replay.replayed or replay.left):
        refuse_no_letters(**named, known={name for each in all_receivers() for name in names_of(each)})


def _table(replay: Replay) -> str:
    heads = (_("receiver"), _("channel"), _("type"), _("events"))
    rows = [(*key, number) for key, number in sorted(replay.replayed.items())]
    return "\n".join([*([table(heads, rows)] if rows else ()), _sum(replay)])


def _sum(replay: Replay) -> str:
    done = _("would be replayed") if replay.dry_run else _("replayed")
    parts = [f"{counted(replay.replayed.total(), 'event')} {done}", f"{replay.waiting:,} {_('waiting already')}"]
    left = replay.left_in_words().items()
    parts += [_("%(count)s left: %(reason)s") % {"count": f"{n:,}", "reason": why} for why, n in left]
    return " · ".join(parts)


def _facts(replay: Replay) -> dict[str, Any]:
    rows = [
        {"receiver": receiver, "channel": channel, "type": type, "events": number}
        for (receiver, channel, type), number in sorted(replay.replayed.items())
    ]
    total = replay.replayed.total()
    return {"replayed": total, "waiting": replay.waiting, "left": replay.left, "dry_run": replay.dry_run, "rows": rows}
