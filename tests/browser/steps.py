"""Somebody who does a task in the browser: each click and each input is counted, and the seconds it took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.browser.looking import Tab


class Task:
    """A task, begun on the admin's index."""

    def __init__(self, tab: Tab, name: str) -> None:
        self.tab = tab
        self.name = name
        self.clicks = self.inputs = 0
        tab.open("/admin/")
        self._began = time.monotonic()

    def click(self, target: Locator) -> None:
        self.clicks += 1
        target.click()

    def fill(self, target: Locator, text: str) -> None:
        self.inputs += 1
        target.fill(text)

    def report(self) -> tuple[int, int]:
        """Print what it took; returns the clicks and the inputs."""
        seconds = time.monotonic() - self._began
        print(f"\n{self.name}: {self.clicks} clicks, {self.inputs} inputs, {seconds:.1f} s")
        return self.clicks, self.inputs
