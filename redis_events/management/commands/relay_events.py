"""``manage.py relay_events``: move what is unsent in the outbox to Redis."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.utils.translation import gettext as _

from ...console import Console
from ...process import Exit, run_relay
from ..base import ServingCommand, add_log_format


class Command(ServingCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Send what waits in the outbox, until stopped; listen_events does it too.")
        add_log_format(parser)

    def serve(self, options: dict[str, Any], console: Console) -> Exit:
        return run_relay(console)
