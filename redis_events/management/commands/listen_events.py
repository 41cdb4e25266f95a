"""``manage.py listen_events``: run this project's receivers."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _

from ...console import Console
from ...process import Exit, Options, run
from ..base import ServingCommand, add_log_format


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise ValueError
        return number

    read.__name__ = f"number above 0 ({kind.__name__})"  # argparse says "invalid … value" with it
    return read


class Command(ServingCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Run this project's receivers for the events that arrive, until stopped.")
        parser.add_argument("--channels", nargs="+", default=(), metavar="GLOB", help=_("Only these channels."))
        parser.add_argument("--drain", action="store_true", help=_("Work off what is there, then exit 0."))
        parser.add_argument("--max-events", type=_positive(int), metavar="N", help=_("Exit 75 after N events."))
        parser.add_argument("--max-time", type=_positive(float), metavar="S", help=_("Exit 75 after S seconds."))
        add_log_format(parser)
        parser.add_argument("--dry-run", action="store_true", help=_("Show what would be listened to, and exit."))
        parser.add_argument("--no-relay", action="store_true", help=_("Leave the outbox to other processes."))

    def serve(self, options: dict[str, Any], console: Console) -> Exit:
        asked = ("channels", "drain", "max_events", "max_time", "dry_run")
        chosen = {name: options[name] for name in asked}
        return run(Options(**chosen, relay=not options["no_relay"]), console)
