"""``manage.py relay_events``: move what is unsent in the outbox to Redis."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError, SystemCheckError
from django.utils.translation import gettext as _

from ...console import Console
from ...exceptions import ConfigurationError
from ...process import Exit, leave, run_relay


class Command(BaseCommand):
    requires_system_checks: list[str] = []
    suppressed_base_arguments = {"--traceback"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Send what waits in the outbox, until stopped; listen_events does it too.")
        parser.add_argument("--log-format", choices=("text", "json"), help=_("How lines are written."))

    def handle(self, **options: Any) -> None:
        self._check()
        console = Console(self.stdout, self.style, verbosity=options["verbosity"], log_format=options["log_format"])
        try:
            code = run_relay(console)
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=Exit.NOT_READY) from error
        if code is Exit.ABANDONED:
            leave(code)
        if code:
            raise SystemExit(int(code))

    def _check(self) -> None:
        try:
            self.check()
        except SystemCheckError as error:
            raise CommandError(str(error), returncode=Exit.NOT_READY) from error
