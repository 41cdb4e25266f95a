"""What people come to the admin for, done in the browser: how many clicks and inputs it takes, and what comes of it."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.looking import Tab
from tests.browser.pages import OURS
from tests.browser.steps import Task
from tests.browser.world import World
from tests.servers import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Locator

pytestmark = pytest.mark.slow


def sidebar(tab: Tab, name: str) -> Locator:
    """The link to a page, as the index and every page have it."""
    return tab.page.locator("#content .module th, #nav-sidebar th").get_by_role("link", name=name, exact=True).first


def row(tab: Tab, *texts: str) -> Locator:
    """The first row of a table that says all of these."""
    rows = tab.page.locator("#content tbody tr")
    for text in texts:
        rows = rows.filter(has_text=text)
    return rows.first


def question(tab: Tab) -> str:
    """What a confirmation asks."""
    return tab.page.locator(".re-question").inner_text()


def documents(name: str, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"{name}-{number}", **more} for number in range(count)]


def cell(tab: Tab, found: Locator, heading: str) -> str:
    """What stands below a heading in a row."""
    headings = found.locator("xpath=ancestor::table").locator("thead th, thead td").all_text_contents()
    return found.locator("td, th").nth([each.strip() for each in headings].index(heading)).inner_text()


def test_which_group_is_behind_by_how_much_and_since_when_takes_one_click(world: World, tab: Tab) -> None:
    task = Task(tab, "which group is behind")
    task.click(sidebar(tab, "Overview"))
    found = row(tab, "search", "shop.orders")
    with world.server.client() as client:
        (group,) = [each for each in client.xinfo_groups("shop.orders") if each["name"] == b"search"]
        after = client.xrange("shop.orders", min=f"({group['last-delivered-id'].decode()}", count=1)[0][0].decode()
    assert int(cell(tab, found, "Lag").replace(",", "")) == group["lag"] > 0
    since = found.locator("time").first.get_attribute("datetime")
    assert since is not None
    assert since.startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(after.split("-")[0]) // 1000)))
    assert "nobody serves it" in found.inner_text()
    assert task.report() == (1, 0)


def test_an_event_is_found_by_an_order_number_inside_its_data(world: World, tab: Tab) -> None:
    world.publish("steady.work", [{"id": "n-1", "order": {"number": "A-4711337"}}], type="steady.counted")
    task = Task(tab, "find an event by an order number in its data")
    task.click(sidebar(tab, "Events"))
    task.fill(tab.page.get_by_label("Text in the data"), "A-4711337")
    task.click(tab.page.get_by_role("button", name="Search"))
    task.click(row(tab, "steady.counted").locator("a[href*=loggedevent]").first)
    assert "A-4711337" in tab.page.locator("#content").inner_text()
    assert task.report() == (3, 1)


def test_all_dead_letters_of_one_error_are_replayed_and_no_others(world: World, tab: Tab) -> None:
    lost, torn = documents("lost", 5, error="lost"), documents("torn", 3, error="torn")
    world.publish("trial.replay", lost + torn, type="trial.replay")
    wait_for(lambda: world.held("dead", type="trial.replay") == 8, timeout=20, what="8 dead letters")
    before = len(world.sql("SELECT 1 FROM django_admin_log"))
    task = Task(tab, "replay all dead letters of one error")
    task.click(sidebar(tab, "Dead letters"))
    list_address = tab.page.url
    task.click(row(tab, "shop.receivers.attempt", "LookupError").get_by_role("link", name="Replay all"))
    assert re.search(r"\b5\b", question(tab)), question(tab)
    task.click(tab.page.locator("#content form button[type=submit]"))
    assert tab.page.url == list_address
    assert "5 done" in tab.page.locator(".messagelist").inner_text()
    wait_for(lambda: len(world.runs("trial.replay")) == 8 + 5, timeout=20, what="5 more runs")
    runs = Counter(world.runs("trial.replay"))
    assert {key for key, times in runs.items() if times == 2} == {each["id"] for each in lost}
    assert {key for key, times in runs.items() if times == 1} == {each["id"] for each in torn}
    wait_for(lambda: world.held("dead", type="trial.replay") == 3, timeout=10, what="3 left")
    (entry,) = world.sql("SELECT change_message FROM django_admin_log ORDER BY id DESC")[: -before or None]
    assert "5 done" in entry[0]
    clicks, inputs = task.report()
    assert clicks <= 4
    assert inputs == 0


def test_the_live_feed_is_paused_and_resumed_and_nothing_is_lost(world: World, tab: Tab) -> None:
    task = Task(tab, "watch, pause, 20 events arrive, resume")
    task.click(sidebar(tab, "Live feed"))
    said = tab.page.locator("#re-said")
    said.get_by_text("live").wait_for()
    world.publish("steady.work", documents("before", 3), type="steady.feed")
    row(tab, "before-2").wait_for()
    task.click(tab.page.get_by_role("button", name="Pause"))
    world.publish("steady.work", documents("while", 20), type="steady.feed")
    said.get_by_text("20 new").wait_for()
    assert row(tab, "while-").count() == 0
    task.click(tab.page.get_by_role("button", name="Pause"))
    row(tab, "while-19").wait_for()
    shown = tab.page.locator("#re-feed tbody tr").all_inner_texts()
    keys = [key for text in shown if (key := re.search(r"while-\d+", text)) and "steady.feed" in text]
    assert Counter(key[0] for key in keys) == {each["id"]: 1 for each in documents("while", 20)}
    assert task.report() == (3, 0)


def test_a_dead_consumers_entries_are_claimed(world: World, tab: Tab) -> None:
    (world.shop.folder / "hang").touch()
    world.publish("hanging.work", documents("stuck", 3), type="hanging.begun")
    victim = world.listen(world.shop, "hanging.work")
    wait_for(lambda: world.runs("hanging.begun"), timeout=10, what="a run that hangs")
    victim.kill()
    task = Task(tab, "claim a dead consumer's entries")
    task.click(sidebar(tab, "Consumer groups"))
    task.click(row(tab, "shop", "hanging.work").locator("a").first)
    gone = row(tab, f":{victim.pid}:", "gone")
    gone.wait_for(timeout=15_000)  # its heartbeat lasts a few seconds
    task.click(gone.get_by_role("link", name="Claim its entries"))
    assert re.search(r"\b3\b", question(tab)), question(tab)
    task.click(tab.page.locator("#content form button[type=submit]"))
    assert "3 done" in tab.page.locator(".messagelist").inner_text()
    with world.server.client() as client:
        owners = {each["consumer"].decode() for each in client.xpending_range("hanging.work", "shop", "-", "+", 10)}
    assert not any(f":{victim.pid}:" in owner for owner in owners)
    (world.shop.folder / "hang").unlink()
    heir = world.listen(world.shop, "hanging.work")
    wait_for(lambda: len(set(world.runs("hanging.begun"))) == 3, timeout=20, what="all three runs")
    heir.terminate()
    heir.wait()
    clicks, inputs = task.report()
    assert clicks <= 4
    assert inputs == 0


def test_a_receiver_is_paused_on_both_its_listeners_and_resumed(world: World, tab: Tab) -> None:
    task = Task(tab, "pause a receiver that two listeners run, and resume it")
    task.click(sidebar(tab, "Receivers"))
    found = row(tab, "shop.receivers.work")
    assert cell(tab, found, "Listeners") == "2"
    task.click(found.locator("a[href*=receiverstatus]").first)
    task.click(tab.page.get_by_role("link", name="Pause"))
    assert "2 of its listeners" in question(tab)
    task.click(tab.page.locator("#content form button[type=submit]"))
    tab.page.locator(".re-status", has_text="paused by ada").wait_for()
    world.until_listeners_know()
    world.publish("steady.work", documents("parked", 10), type="steady.paused")
    wait_for(lambda: world.held("parked", type="steady.paused") == 10, timeout=20, what="10 parked runs")
    assert world.runs("steady.paused") == []
    task.click(tab.page.get_by_role("link", name="Resume"))
    task.click(tab.page.locator("#content form button[type=submit]"))
    wait_for(lambda: len(world.runs("steady.paused")) >= 10, timeout=20, what="10 runs")
    assert Counter(world.runs("steady.paused")) == {each["id"]: 1 for each in documents("parked", 10)}
    clicks, inputs = task.report()
    assert clicks <= 6
    assert inputs == 0
    assert tab.page.url.startswith(f"{world.address}{OURS}/receiverstatus/")
