"""``manage.py inspect_events``: what happens to the events, for people, for scripts and for cron."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ... import inspection
from ...inspection import Done, Server
from ...process import Exit
from ...wording import one_line
from ..acts import ACTS, wanted
from ..arguments import count, limit, moment, seconds
from ..base import EventsCommand, add_format
from ..limits import Verdict, judge_age, judge_dead, judge_lag
from ..meant import refuse_nothing
from ..overviews import overview_facts, overview_text
from ..tables import document
from ..views import VIEWS, View, chosen_groups, shown, unseen_channels

SUBJECTS = (
    "overview", "channels", "groups", "consumers", "receivers", "listeners", "pending", "events", "dead", "outbox",
    "services",
)  # fmt: skip
PATIENCE = 5.0
"""Seconds all questions of one look may take: a terminal waits longer than a page."""
OF_EVENTS = ("find", "type", "key", "id", "since", "until")
OF_LETTERS = ("fingerprint", "receiver", "ids")


class Command(EventsCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Show what happens to events: behind, pending, failed, unsent; and act on it.")
        parser.add_argument("subject", nargs="?", choices=SUBJECTS, default="overview", help=_("What to show."))
        parser.add_argument("--channel", metavar="GLOB", help=_("Only these channels."))
        parser.add_argument("--group", help=_("Only this consumer group."))
        parser.add_argument("--limit", type=count, default=50, metavar="N", help=_("At most N rows (50)."))
        add_format(parser, "table", "json")
        _add_filters(parser)
        _add_limits(parser)
        _add_acts(parser)

    def run(self, options: dict[str, Any]) -> Exit:
        refuse_nothing(options, ("channel", "group", "consumer", "service", *OF_EVENTS, *OF_LETTERS, *ACTS))
        _refuse_strays(options)
        act = wanted(options)
        if not act:
            return self._show(options)
        subject, prepare = act
        if subject != options["subject"]:
            raise CommandError(_("That is done with `inspect_events %s`.") % subject, returncode=Exit.USAGE)
        prepared = prepare(options)
        if not options["yes"] and not self.agrees(prepared.question):
            raise CommandError(_("Nothing was done."), returncode=Exit.USAGE)
        return self._report(prepared.do(), options)

    def _report(self, done: Done, options: dict[str, Any]) -> Exit:
        if options["format"] == "json":
            self.stdout.write(document(done))
            return Exit.OK
        left = [_("%(count)s left: %(reason)s") % {"count": f"{n:,}", "reason": why} for why, n in done.left.items()]
        self.stdout.write(" · ".join([_("%s done") % f"{done.done:,}", *left]))
        return Exit.OK

    # -------------------------------------------------------------- showing

    def _show(self, options: dict[str, Any]) -> Exit:
        with Server(patience=PATIENCE) as server:
            if options["subject"] == "overview":
                text, found, needs_server = self._overview(options, server)
            else:
                text, found, needs_server = self._view(options, server)
            verdict = _judge(options, server)
        trouble = server.trouble if needs_server or _asks_server(options) else None
        if options["format"] == "json":
            about = {"trouble": trouble, "refused": server.refusals}
            self.stdout.write(document({**found, **about, "exceeded": verdict.exceeded, "unknown": verdict.unknown}))
        else:
            self.stdout.write(text, ending="\n" if text else "")
            self._complain(f"{command}: {answer}" for command, answer in server.refusals.items())
            if trouble:
                self._complain([f"{trouble.message}. {trouble.advice}"])
        self._complain([*verdict.exceeded, *verdict.unknown])
        return _code(verdict, is_away=trouble is not None, options=options)

    def _overview(self, options: dict[str, Any], server: Server) -> tuple[str, dict[str, Any], bool]:
        found = inspection.overview(server=server)
        return overview_text(found, limit=options["limit"]), {"overview": overview_facts(found)}, True

    def _view(self, options: dict[str, Any], server: Server) -> tuple[str, dict[str, Any], bool]:
        name = options["subject"]
        view: View = VIEWS["letters" if name == "dead" and options["fingerprint"] else name]
        found, limit = view.read(options, server), options["limit"]
        if server.trouble and view.needs_server:  # an empty list would say that there is nothing
            return "", {name: None}, True
        facts = {name: found.rows[:limit], "is_cut": len(found.rows) > limit, "note": found.note}
        return shown(view, found, limit=limit), facts, view.needs_server

    def _complain(self, lines: Iterable[str]) -> None:
        for each in lines:
            self.stderr.write(one_line(each, limit=2_000))


def _add_filters(parser: ArgumentParser) -> None:
    events = parser.add_argument_group(_("events"))
    events.add_argument("--find", metavar="TEXT", help=_("With this text in them."))
    events.add_argument("--type", metavar="GLOB", help=_("Of these types."))
    events.add_argument("--key", help=_("With this key."))
    events.add_argument("--id", help=_("With this id, of the event or of its entry."))
    events.add_argument("--since", type=moment, metavar="T", help=_("From this moment on, ISO 8601."))
    events.add_argument("--until", type=moment, metavar="T", help=_("Up to this moment."))
    dead = parser.add_argument_group(_("dead letters"))
    dead.add_argument("--fingerprint", metavar="F", help=_("Of this error."))
    dead.add_argument("--receiver", metavar="R", help=_("Of this receiver."))
    dead.add_argument("--ids", nargs="+", default=(), metavar="ID", help=_("With --discard: these."))


def _add_limits(parser: ArgumentParser) -> None:
    cron = parser.add_argument_group(_("for cron: exit 1 and say which, 4 or 5 when nobody can say"))
    cron.add_argument("--fail-lag", type=limit, metavar="N", help=_("If a group has more than N unread entries."))
    cron.add_argument("--fail-age", type=seconds, metavar="S", help=_("If a group is behind for more than S seconds."))
    cron.add_argument("--fail-dead", type=limit, metavar="N", help=_("If there are more than N dead letters."))


def _add_acts(parser: ArgumentParser) -> None:
    acts = parser.add_argument_group(_("to act; each asks first"))
    place = (_("CHANNEL"), _("GROUP"))
    acts.add_argument("--claim", nargs=2, metavar=place, help=_("groups: take what dead consumers have in hand."))
    acts.add_argument("--consumer", metavar="C", help=_("With --claim: what this one has."))
    acts.add_argument("--remove-consumer", nargs=3, metavar=(*place, "C"), help=_("groups: one with nothing pending."))
    acts.add_argument("--move", nargs=3, metavar=(*place, "ID"), help=_("groups: read on behind ID; 0 is all, $ none."))
    acts.add_argument("--skip", nargs="+", metavar="…", help=_("pending: CHANNEL GROUP ID …: settle without running."))
    acts.add_argument("--pause", metavar="R", help=_("receivers: let no listener run this one."))
    acts.add_argument("--resume", metavar="R", help=_("receivers: let it run again."))
    acts.add_argument("--service", help=_("With --pause and --resume: whose it is; else of this project."))
    acts.add_argument("--stop", metavar="ID", help=_("listeners: ask this one to stop."))
    acts.add_argument("--discard", action="store_true", help=_("dead: delete those named by the options above."))
    acts.add_argument("--yes", action="store_true", help=_("Do not ask."))


def _refuse_strays(options: dict[str, Any]) -> None:
    """An option that would do nothing is a mistake: `--type` of dead letters must not delete all of them."""
    subject = options["subject"]
    for names, place in ((OF_EVENTS, "events"), (OF_LETTERS, "dead")):
        stray = next((name for name in names if options[name] and subject != place), None)
        if stray:
            text = _("--%(option)s is for `inspect_events %(subject)s`.") % {"option": stray, "subject": place}
            raise CommandError(text, returncode=Exit.USAGE)
    if options["ids"] and not options["discard"]:
        raise CommandError(_("--ids is for --discard."), returncode=Exit.USAGE)
    if options["consumer"] and not options["claim"]:
        raise CommandError(_("--consumer is for --claim."), returncode=Exit.USAGE)


# ------------------------------------------------------------------ cron


def _asks_server(options: dict[str, Any]) -> bool:
    return options["fail_lag"] is not None or options["fail_age"] is not None


def _judge(options: dict[str, Any], server: Server) -> Verdict:
    verdict = Verdict()
    if _asks_server(options):
        groups = chosen_groups(options, server)
        if options["fail_lag"] is not None:
            judge_lag(groups, most=options["fail_lag"], into=verdict)
        if options["fail_age"] is not None:
            judge_age(groups, most=options["fail_age"], into=verdict)
        _note_unseen(options, server, verdict)
        if not (groups or server.trouble or verdict.unknown):
            _note_absence(options, verdict)
    if options["fail_dead"] is not None:
        judge_dead(inspection.dead_count(), most=options["fail_dead"], into=verdict)
    return verdict


def _note_unseen(options: dict[str, Any], server: Server, verdict: Verdict) -> None:
    """Where XINFO is refused there are no groups to judge, which is not the same as none that is behind."""
    refused = [answer for command, answer in server.refusals.items() if command.startswith("XINFO")]
    verdict.unknown.extend(_("lag and age: %s") % why for why in (*refused, *unseen_channels(options, server)))


def _note_absence(options: dict[str, Any], verdict: Verdict) -> None:
    """A group that was named and is not there, after FLUSHALL or for a slip of the pen, is none that keeps up."""
    named = " ".join(f"--{name} {options[name]}" for name in ("channel", "group") if options[name])
    if named:
        verdict.unknown.append(_("lag and age: there is no consumer group for %s") % named)


def _code(verdict: Verdict, *, is_away: bool, options: dict[str, Any]) -> Exit:
    if verdict.exceeded:
        return Exit.UNEXPECTED
    if is_away:
        return Exit.UNREACHABLE
    if verdict.unknown:
        return Exit.UNREACHABLE if _asks_server(options) else Exit.NOT_READY
    return Exit.OK
