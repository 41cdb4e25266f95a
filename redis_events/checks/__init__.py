"""System checks: every foreseeable misuse, with what to do about it. They open no socket."""

from . import declarations, receivers, settings  # noqa: F401  # importing them registers them
