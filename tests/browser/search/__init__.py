"""A service that was here once: its group has stopped reading."""
