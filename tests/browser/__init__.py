"""The admin in a real Chromium: a site that is a process of its own, listeners, dead letters, a group left behind."""
