"""The admin in a real Chromium: a site that is a process of its own, listeners, dead letters, a group left behind.

`SCREENSHOTS=1 make test ARGS=tests/browser/test_pages.py` also writes the pictures in docs/admin; they want the fonts
of fonts-noto-cjk and fonts-noto-color-emoji.
"""
