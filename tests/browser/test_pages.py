"""Every page of ours in Chromium, light, dark and 360 pixels wide: it works, it fits, and everybody can use it.

`SCREENSHOTS=1 make test ARGS=tests/browser/test_pages.py` also writes docs/admin/<page>-<form>.png; for that it needs
pngquant, fonts-noto-cjk and fonts-noto-color-emoji.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.looking import FORMS, Form, Tab, open_tab
from tests.browser.pages import PLACES, STOCK, Place, path_of
from tests.browser.world import World
from tests.processes import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
PICTURES = ROOT / "docs" / "admin"
BYTES = 80_000
# Where this checkout stands is nobody's business.
RENAME = """
([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}
"""

by_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
by_place = pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)


@pytest.fixture(scope="module")
def tabs(chromium: Browser, world: World, ada: Any) -> dict[str, Tab]:
    """A tab of each form for all pages: opening one takes longer than a page does."""
    return {form.name: open_tab(chromium, world.address, state=ada, form=form) for form in FORMS}


@pytest.fixture(scope="module")
def of_stock(tabs: dict[str, Tab]) -> dict[str, set[str]]:
    """What axe says of Django's own pages, by form."""
    return {name: {what for path in STOCK for what in complaints_of(tab, path)} for name, tab in tabs.items()}


def complaints_of(tab: Tab, path: str) -> dict[str, str]:
    assert tab.open(path) == 200
    return tab.complaints()


@by_form
@by_place
def test_a_page_works_fits_and_can_be_used_by_everybody(
    place: Place, form: Form, world: World, tabs: dict[str, Tab], of_stock: dict[str, set[str]]
) -> None:
    tab = tabs[form.name]
    path = path_of(place, tab, known=world.paths)
    tab.problems.clear()
    assert tab.open(path) == 200
    if os.environ.get("SCREENSHOTS"):
        take_picture(tab, place, form)
    assert (tab.problems, tab.refused(), tab.planted()) == ([], [], [])
    assert tab.overflow() <= 0, tab.widest()
    found = tab.complaints()
    assert {what: where for what, where in found.items() if what not in of_stock[form.name]} == {}


def take_picture(tab: Tab, place: Place, form: Form) -> None:
    PICTURES.mkdir(exist_ok=True)
    tab.page.evaluate(RENAME, [str(ROOT), "/srv/shop"])
    path = PICTURES / f"{place.name}-{form.name}.png"
    tab.picture(path, form=form, height=1000)
    subprocess.run(["pngquant", "--force", "--ext", ".png", "64", str(path)], check=True)
    assert path.stat().st_size <= BYTES, f"{path} has {path.stat().st_size} bytes"


def test_pages_work_where_static_files_have_hashed_names(world: World, chromium: Browser, ada: Any) -> None:
    storage = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    address = world.serve(TEST_STORAGE=storage, TEST_STATIC_ROOT=str(world.folder / "hashed"))
    tab = open_tab(chromium, address, state=ada)
    for place in PLACES:
        assert tab.open(path_of(place, tab, known=world.paths)) == 200
    sources = tab.page.locator("link[href*=redis_events], script[src*=redis_events]")
    assert sources.count() == 2
    assert all(re.search(r"\.[0-9a-f]{12}\.(css|js)", each.evaluate("it => it.outerHTML")) for each in sources.all())
    assert (tab.problems, tab.refused()) == ([], [])
    tab.close()


EDGES = """
([heading, name]) => [...document.querySelectorAll("table")].flatMap((table) => {
  const at = [...table.querySelectorAll("th")].findIndex((each) => each.textContent.trim() === heading);
  const rows = [...table.rows].filter((row) => at >= 0 && row.textContent.includes(name));
  return rows.map((row) => row.cells[at].getBoundingClientRect().right);
})
"""
"""How far right a column ends, in rows with this name."""


@pytest.mark.parametrize("page", ["overview", "consumergroup"])
def test_since_when_a_group_of_a_long_name_is_behind_is_in_sight_of_a_telephone(
    page: str, world: World, tabs: dict[str, Tab]
) -> None:
    group = f"search:{'very-long-' * 5}name"
    with world.server.client() as client:
        client.xgroup_create("shop.orders", group, "0")
        try:
            assert tabs["360"].open(f"/admin/redis_events/{page}/") == 200
            edges = tabs["360"].page.evaluate(EDGES, ["Behind since", group])
        finally:
            client.xgroup_destroy("shop.orders", group)
    assert edges
    assert max(edges) <= 360
