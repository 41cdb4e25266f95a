"""Run a management command with a failpoint: python -m tests.chaos.launch redis_events.held.hold:before:2 listen_events

DJANGO_SETTINGS_MODULE names the project; `CHAOS_HISTORY` is the file the cut is noted in.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django
from django.core.management import execute_from_command_line

from .failpoints import Cut, arm
from .history import History

if __name__ == "__main__":
    place, *command = sys.argv[1:]
    name, when, nth = place.split(":")
    django.setup()
    arm(Cut(name, when, int(nth)), History(Path(os.environ.get("CHAOS_HISTORY", os.devnull))), "process")
    execute_from_command_line(["manage.py", *command])
