"""The admin in a real Chromium, on a site that is a process of its own, with listeners, dead letters and a lagging group.

`SCREENSHOTS=1 make test ARGS=tests/browser/test_pages.py` also writes the pictures in docs/admin.
"""
