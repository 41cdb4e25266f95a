"""What the commands share: expected trouble is one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, SystemCheckError
from django.db import Error
from django.utils.translation import gettext as _

from ..console import Console
from ..deadlines import overdue
from ..exceptions import ConfigurationError, RedisEventsError, TransportError
from ..process import Exit, leave
from ..wording import one_line

INTERRUPTED = 130
"""What shells say of a program that Ctrl+C has ended."""


class CheckedCommand(BaseCommand):
    """A command that runs the system checks itself, if at all: Django would show what they find as a traceback."""

    requires_system_checks: list[str] = []
    suppressed_base_arguments = {"--traceback"}

    def check_first(self) -> None:
        """Run the system checks. Raises CommandError for what they find."""
        try:
            self.check()
        except (SystemCheckError, ConfigurationError) as error:
            raise CommandError(str(error), returncode=Exit.NOT_READY) from error


class ServingCommand(CheckedCommand):
    """A command whose ``serve`` works until it is stopped, and returns its exit code."""

    def serve(self, options: dict[str, Any], console: Console) -> Exit:
        raise NotImplementedError

    def handle(self, **options: Any) -> None:
        self.check_first()
        console = Console(self.stdout, self.style, verbosity=options["verbosity"], log_format=options["log_format"])
        try:
            code = self.serve(options, console)
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=Exit.NOT_READY) from error
        if code is Exit.ABANDONED or overdue():
            leave(code)
        if code:
            raise SystemExit(int(code))


class EventsCommand(CheckedCommand):
    """A command whose ``run`` returns its exit code, and may raise what redis_events and the database raise."""

    def run(self, options: dict[str, Any]) -> Exit:
        raise NotImplementedError

    def handle(self, **options: Any) -> None:
        try:
            with expected_trouble():
                code = self.run(options)
            self.stdout.flush()
        except BrokenPipeError:  # whoever read our output has seen enough
            _write_nowhere()
            return
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        if code:
            raise SystemExit(int(code))

    def agrees(self, question: str) -> bool:
        """Whether somebody at the terminal says yes."""
        self.stdout.write(f"{question} [y/N] ", ending="")
        self.stdout.flush()
        try:
            return input().strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            return False


def add_log_format(parser: ArgumentParser) -> None:
    """``--log-format``, for commands that write lines as they work."""
    parser.add_argument("--log-format", choices=("text", "json"), help=_("How lines are written."))


def add_format(parser: ArgumentParser, *choices: str) -> None:
    """``--format``: the first choice is the default."""
    parser.add_argument("--format", choices=choices, default=choices[0], help=_("How the result is shown."))


@contextmanager
def expected_trouble() -> Iterator[None]:
    """Errors that are somebody's mistake, or the server's or the database's state, as CommandErrors."""
    try:
        yield
    except ConfigurationError as error:
        raise CommandError(str(error), returncode=Exit.NOT_READY) from error
    except TransportError as error:
        raise CommandError(str(error), returncode=Exit.UNREACHABLE) from error
    except RedisEventsError as error:
        raise CommandError(str(error), returncode=Exit.USAGE) from error
    except Error as error:
        text = _("The database cannot be used (is `migrate` done?): %(error)s") % {"error": one_line(error)}
        raise CommandError(text, returncode=Exit.NOT_READY) from error


def _write_nowhere() -> None:
    """Python flushes standard output once more at its end, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
