"""One world for all browser tests; a Chromium for each module, since its loop runs in the thread of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.looking import FORMS, Form, Tab, log_in, open_tab
from tests.browser.world import World
from tests.servers import needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).parent
FLAGS = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Together and last, in whatever order: so nobody else's test runs beside the world's processes."""
    items.sort(key=lambda item: item.path.parent == HERE)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Django refuses its ORM to a thread in which Playwright's loop runs: none of these tests asks for it."""
    program = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[World]:
    """The furnished world and its site. Shared: what a test makes there, it makes on channels of its own."""
    needs("chromium")
    world = World(tmp_path_factory.mktemp("world"), database=migrated)
    try:
        world.furnish().open()
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def ada(chromium: Browser, world: World) -> Any:
    """The cookies of a superuser."""
    return log_in(chromium, world.address, user="ada")


@pytest.fixture
def open_as(chromium: Browser, world: World, ada: Any) -> Iterator[Callable[..., Tab]]:
    """Open a tab in a form, as the superuser."""
    tabs: list[Tab] = []

    def open(form: Form = FORMS[0]) -> Tab:
        tabs.append(open_tab(chromium, world.address, state=ada, form=form))
        return tabs[-1]

    yield open
    for tab in tabs:
        tab.close()


@pytest.fixture
def tab(open_as: Callable[..., Tab]) -> Tab:
    """A tab as wide as a laptop, as the superuser."""
    return open_as()
