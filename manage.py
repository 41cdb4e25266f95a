#!/usr/bin/env python3
"""Django's command line for the demo. Another service of it: `--settings demo_project.settings.billing`."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings.shop")
    execute_from_command_line(sys.argv)
