"""A page that stays open: what somebody did on it outlives a refresh, and it asks less often while nobody answers."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from tests.browser.looking import Tab
from tests.browser.pages import OURS
from tests.browser.world import World
from tests.servers import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.slow
NUMBERS = itertools.count()


def mark(page: Page) -> None:
    """Remember what is on the page, to know when other elements have taken its place."""
    page.evaluate("window.first = document.querySelector('#re-inside').firstElementChild")


def until_redrawn(page: Page, world: World) -> None:
    """Wait until the page has drawn itself anew, which it does once there is something new to show."""
    world.publish("steady.work", [{"id": f"kept-{next(NUMBERS)}"}], type="steady.kept")
    wait_for(lambda: page.evaluate("!window.first.isConnected"), timeout=30, what="a page drawn anew")


def test_a_refresh_keeps_what_is_open_what_is_scrolled_and_where_the_focus_is(world: World, tab: Tab) -> None:
    tab.open(f"{OURS}/overview/")
    page = tab.page
    page.locator("details summary").click()
    scrolled = page.locator(".re-scroll").first
    scrolled.evaluate("each => each.scrollLeft = 60")
    left = scrolled.evaluate("each => each.scrollLeft")
    link = page.locator(".re-cards a").last
    link.focus()
    href = link.get_attribute("href")
    for _ in range(2):
        mark(page)
        until_redrawn(page, world)
    assert left > 0
    assert page.locator("details").evaluate("each => each.open")
    assert scrolled.evaluate("each => each.scrollLeft") == left
    assert page.evaluate("document.activeElement.getAttribute('href')") == href


def test_a_refresh_keeps_what_is_ticked_and_saying_no_leads_back_to_it(world: World, tab: Tab) -> None:
    tab.open(f"{OURS}/deadletter/")
    page = tab.page
    page.locator("#content a[href*=fingerprint]", has_text="ConnectionError").first.click()
    page.locator("input[name=select]").first.check()
    chosen = page.locator("input[name=select]").first.get_attribute("value")
    mark(page)
    until_redrawn(page, world)  # the ages on it change, too
    assert page.locator(f"input[value='{chosen}']").is_checked()
    page.get_by_role("button", name="Replay selected").click()
    assert "1 dead letter run again" in page.locator(".re-question").inner_text()
    page.get_by_role("link", name="No, take me back").click()
    assert "fingerprint=" in page.url


def test_a_page_asks_less_and_less_often_while_nobody_answers(world: World, tab: Tab) -> None:
    times: list[float] = []

    def refuse(route: Route) -> None:
        times.append(time.monotonic())
        route.abort()

    page = tab.page
    tab.open(f"{OURS}/channel/")
    page.route("**/*_fragment=1*", refuse)
    said = page.locator("#re-said")
    said.get_by_text("8 s").wait_for(timeout=20_000)
    (between,) = (later - earlier for earlier, later in itertools.pairwise(times))
    assert between > 3.5, "after a failure it waits twice as long"
    page.unroute("**/*_fragment=1*")
    said.get_by_text("live", exact=True).wait_for(timeout=20_000)


def test_filtering_the_feed_keeps_what_came_since_the_page_was_opened(world: World, tab: Tab) -> None:
    tab.open(f"{OURS}/livefeed/")
    page = tab.page
    rows = page.locator("#re-feed tbody tr")
    world.publish("steady.work", [{"id": "filter-this"}, {"id": "filter-that"}], type="steady.filtered")
    rows.filter(has_text="filter-that").first.wait_for(timeout=15_000)
    page.get_by_label("Text").fill("filter-this")
    page.get_by_role("button", name="Filter").click()
    rows.filter(has_text="filter-this").first.wait_for(timeout=15_000)
    assert rows.filter(has_text="filter-that").count() == 0
