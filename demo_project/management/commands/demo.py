"""`manage.py demo`: see demo_project/README.md."""

import json
import os
import signal
import sys
import threading
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.termcolors import make_style

from demo_project.children import ChildFailed
from demo_project.demo import AlreadyRunning, Demo, Interrupted
from demo_project.report import SERVICES, Report
from demo_project.server import NoServer

KILL = "kill billing's listener every S seconds and start another (default: 10; 0: never)"
COLOURS = dict(zip(SERVICES, ("cyan", "yellow", "magenta"), strict=True))


class Command(BaseCommand):
    help = (
        "Run the three services of the demo on a server of their own, with real traffic, until Ctrl-C. "
        "Exits 0 when every event arrived and every order has one invoice, 1 when not or when a program failed, "
        "130 when broken off."
    )
    requires_system_checks = []  # each program that is started makes its own

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--orders", type=int, metavar="N", help="place N orders (default: until Ctrl-C)")
        parser.add_argument("--exit", action="store_true", help="end when the orders and all about them have arrived")
        parser.add_argument("--rate", type=float, help="orders a second (default: 1; with --exit as many as it takes)")
        parser.add_argument("--kill-every", type=float, default=10.0, metavar="S", help=KILL)
        parser.add_argument(
            "--keeps", action="store_true", help="Redis keeps its data (default: it loses everything, once)"
        )
        parser.add_argument("--format", choices=("text", "json"), default="text", help="form of the closing count")
        parser.add_argument(
            "--data",
            type=Path,
            default=Path(__file__).resolve().parents[2] / "var" / "demo",
            help="folder for the databases, made anew at every start (default: demo_project/var/demo)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["exit"] and options["orders"] is None:
            raise CommandError("--exit needs --orders.", returncode=2)
        self.prepare_output(options)
        try:
            report = self.demo(options).run()
        except Interrupted:
            sys.exit(130)
        except (AlreadyRunning, ChildFailed, NoServer) as error:
            raise CommandError(str(error)) from error
        self.show(report, options["format"])
        if report.lost or report.doubled:
            sys.exit(1)

    def demo(self, options: dict[str, Any]) -> Demo:
        rate = options["rate"] if options["rate"] is not None else 0.0 if options["exit"] else 1.0
        folder = options["data"].resolve()
        return Demo(
            folder=folder,
            say=self.say,
            orders=options["orders"],
            rate=rate,
            until_done=options["exit"],
            kill_every=options["kill_every"],
            forgets=not options["keeps"],
        )

    def prepare_output(self, options: dict[str, Any]) -> None:
        self.out = self.stderr if options["format"] == "json" else self.stdout
        self.out.style_func = None
        self.lock, self.has_reader = threading.Lock(), True
        has_colour = self.out.isatty() and not options["no_color"] and "NO_COLOR" not in os.environ
        self.styles = {name: make_style(fg=colour) for name, colour in COLOURS.items()} if has_colour else {}

    def say(self, service: str, line: str) -> None:
        """One line, whoever says it. When nobody is left to read it, the demo is asked to stop."""
        style = self.styles.get(service, str)
        text = style(f"{service:<13} │ ") + line if service else line
        with self.lock:
            if self.has_reader:
                self.write(text)

    def write(self, text: str) -> None:
        try:
            self.out.write(text)
            self.out.flush()
        except OSError:
            self.has_reader = False
            os.kill(os.getpid(), signal.SIGTERM)

    def show(self, report: Report, format: str) -> None:
        with suppress(OSError):
            self.stdout.write(json.dumps(report.as_dict()) if format == "json" else report.as_table())
