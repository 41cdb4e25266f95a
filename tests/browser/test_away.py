"""Redis is taken away from a page that is open: the page says so, shows no invented numbers, and recovers by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.browser.looking import Tab, log_in, open_tab
from tests.browser.pages import OURS
from tests.browser.world import World
from tests.servers import Server, needs, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
SAYS_SO = 10_000
"""Milliseconds for the page to notice: it asks every 2 s, and waits longer after failures."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[World]:
    """A world whose server may be stopped: nobody else is on it."""
    needs("chromium")
    world = World(tmp_path_factory.mktemp("quiet"), database=migrated)
    try:
        world.fill("people", "first", "texts")
        world.open()
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def tab(chromium: Browser, quiet: World) -> Tab:
    return open_tab(chromium, quiet.address, state=log_in(chromium, quiet.address, user="ada"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is done to a server, what takes it back, and what a page says meanwhile."""

    begin: Callable[[Server], object]
    end: Callable[[Server], object]
    said: str
    is_blind: bool = True
    """Whether nothing can be read either."""


def asked(*command: str, password: str | None = None) -> Callable[[Server], object]:
    """What has the server itself do something."""

    def ask(server: Server) -> object:
        with redis.Redis(unix_socket_path=server.socket, password=password) as client:
            return client.execute_command(*command)

    return ask


TROUBLES = {
    "stopped": Trouble(begin=Server.kill, end=Server.start, said="refused"),
    "frozen": Trouble(begin=Server.freeze, end=Server.thaw, said="no answer"),
    "password": Trouble(
        begin=asked("CONFIG", "SET", "requirepass", "secret"),
        end=asked("CONFIG", "SET", "requirepass", "", password="secret"),
        said="password",
    ),
    "full": Trouble(
        begin=asked("CONFIG", "SET", "maxmemory", "1"),
        end=asked("CONFIG", "SET", "maxmemory", "0"),
        said="out of memory",
        is_blind=False,
    ),
    "replica": Trouble(
        begin=asked("REPLICAOF", "127.0.0.1", "1"),
        end=asked("REPLICAOF", "NO", "ONE"),
        said="takes no writes",
        is_blind=False,
    ),
}


@pytest.mark.parametrize("how", TROUBLES)
@pytest.mark.parametrize("page", ["overview", "consumergroup", "livefeed"])
def test_an_open_page_says_that_redis_is_in_trouble_and_recovers_by_itself(
    page: str, how: str, quiet: World, tab: Tab
) -> None:
    trouble, banner = TROUBLES[how], tab.page.locator(".re-banner.re-error")
    # Another worker may remember for a second what it saw in the test before.
    wait_for(lambda: tab.open(f"{OURS}/{page}/") == 200 and not banner.count(), what="a page that is well")
    tab.problems.clear()
    tab.page.evaluate("window.marker = 1")
    trouble.begin(quiet.server)
    try:
        banner.first.wait_for(timeout=SAYS_SO)
        said = banner.first.inner_text()
        assert trouble.said in said
        assert "Since" in said
        if page == "overview" and trouble.is_blind:
            assert "—" in tab.page.locator(".re-cards").first.inner_text()
    finally:
        trouble.end(quiet.server)
    banner.first.wait_for(state="detached", timeout=SAYS_SO)
    assert tab.page.evaluate("window.marker") == 1, "the page was loaded anew"
    assert tab.problems == []


@pytest.mark.parametrize("page", ["overview", "channel", "loggedevent", "livefeed"])
def test_a_page_opened_while_redis_is_frozen_is_there_within_1200_ms(page: str, quiet: World, tab: Tab) -> None:
    quiet.server.freeze()
    try:
        assert tab.open(f"{OURS}/{page}/") == 200
        assert 0 < tab.took < 1.2
        assert tab.page.locator(".re-banner.re-error").count() == 1
    finally:
        quiet.server.thaw()
