"""What others have written stays text: in data, keys, error messages, names of groups and consumers."""

from __future__ import annotations

import json

import pytest

from tests.browser import naughty
from tests.browser.looking import Tab
from tests.browser.pages import OURS

pytestmark = pytest.mark.slow


def text_of(tab: Tab) -> str:
    return tab.page.locator("#content").inner_text()


@pytest.mark.parametrize("text", naughty.STRINGS, ids=lambda text: text[:12])
def test_a_text_in_an_events_data_is_shown_as_it_is(text: str, tab: Tab) -> None:
    number = 200 + naughty.STRINGS.index(text)
    assert tab.open(f"{OURS}/loggedevent/?pattern=shop.orders&type=shop.order.noted") == 200
    row = tab.page.locator("#content tbody tr", has_text=f'"id": {number}')
    row.locator("a[href*=loggedevent]").first.click()
    assert json.dumps(text, ensure_ascii=False)[1:-1] in text_of(tab)
    assert (tab.planted(), tab.problems) == ([], [])


@pytest.mark.parametrize("text", [naughty.XSS, naughty.ATTRIBUTE, naughty.TEMPLATE, naughty.CHINESE, naughty.EMOJI])
def test_a_key_is_shown_as_it_is(text: str, tab: Tab) -> None:
    assert tab.open(f"{OURS}/loggedevent/?pattern=shop.orders&type=shop.order.noted") == 200
    assert text in text_of(tab)


def test_an_error_message_is_shown_as_it_is(tab: Tab) -> None:
    assert tab.open(f"{OURS}/deadletter/") == 200
    assert naughty.XSS in text_of(tab)
    assert naughty.CHINESE in text_of(tab)


def test_the_names_of_a_group_and_a_consumer_are_shown_as_they_are(tab: Tab) -> None:
    assert tab.open(f"{OURS}/consumergroup/") == 200
    tab.page.get_by_role("link", name=naughty.XSS, exact=True).click()
    assert f"consumer {naughty.XSS}" in text_of(tab)
    assert (tab.planted(), tab.problems) == ([], [])
