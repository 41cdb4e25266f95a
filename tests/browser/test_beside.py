"""Ten live feeds are open: the two workers of the site still answer everybody else."""

from __future__ import annotations

import http.client
import re
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urljoin

import pytest

from tests.browser.looking import Tab
from tests.browser.pages import OURS
from tests.browser.world import World
from tests.servers import wait_for

pytestmark = pytest.mark.slow
FEEDS, REQUESTS, EVERY = 10, 150, 2.0
PROMISED = 0.05
"""Seconds, for 19 of 20 requests."""


def connect(site: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(site.removeprefix("http://"), timeout=10)


class Feed:
    """What the page's script does: ask from the cursor on, every two seconds, for as long as it is open."""

    def __init__(self, site: str, cookie: str) -> None:
        self.site, self.cookie = site, cookie
        page = self.get(f"{OURS}/livefeed/").read().decode()
        self.url, self.cursor = (re.search(f'data-{name}="([^"]*)"', page)[1] for name in ("url", "cursor"))  # type: ignore[index]
        self.rows = self.asked = 0

    def get(self, path: str) -> http.client.HTTPResponse:
        connection = connect(self.site)
        connection.request("GET", path, headers={"Cookie": self.cookie})
        return connection.getresponse()

    def ask(self) -> None:
        joined = "&" if "?" in self.url else "?"
        path = urljoin(f"{OURS}/livefeed/", self.url.replace("&amp;", "&"))
        answer = self.get(f"{path}{joined}after={self.cursor}")
        assert answer.status in (200, 304), answer.status
        self.cursor = answer.headers.get("X-Cursor") or self.cursor
        self.rows += answer.read().decode().count("<tr")
        self.asked += 1


@contextmanager
def open_feeds(site: str, cookie: str) -> Iterator[list[Feed]]:
    feeds = [Feed(site, cookie) for _ in range(FEEDS)]
    closed = threading.Event()

    def keep_asking(feed: Feed, later: float) -> None:
        closed.wait(later)
        while not closed.is_set():
            feed.ask()
            closed.wait(EVERY)

    threads = [
        threading.Thread(target=keep_asking, args=(feed, number * EVERY / FEEDS)) for number, feed in enumerate(feeds)
    ]
    for thread in threads:
        thread.start()
    try:
        yield feeds
    finally:
        closed.set()
        for thread in threads:
            thread.join()


def seconds_of_requests(site: str) -> list[float]:
    """How long each of many requests to a page that costs little took."""
    took = []
    for _ in range(REQUESTS):
        began = time.monotonic()
        connection = connect(site)
        connection.request("GET", "/admin/login/")
        assert connection.getresponse().read()
        connection.close()
        took.append(time.monotonic() - began)
        time.sleep(0.02)  # not a wait: somebody who asks all the time
    return took


def p95(took: list[float]) -> float:
    return statistics.quantiles(took, n=20)[-1]


def test_ten_open_feeds_leave_other_requests_below_50_ms(world: World, tab: Tab) -> None:
    cookie = "; ".join(f"{each['name']}={each['value']}" for each in tab.page.context.cookies())
    site = world.serve(threads=1)
    seconds_of_requests(site)  # each worker has its templates now
    idle = seconds_of_requests(site)
    with open_feeds(site, cookie) as feeds:
        beside = seconds_of_requests(site)
        world.publish("steady.work", [{"id": f"beside-{number}"} for number in range(20)], type="steady.worked")
        wait_for(lambda: all(feed.rows >= 20 for feed in feeds), timeout=10, what="20 events in each feed")
    print(f"\nother requests: p50 {statistics.median(beside) * 1000:.1f} ms, p95 {p95(beside) * 1000:.1f} ms")
    print(f"with no feed:   p50 {statistics.median(idle) * 1000:.1f} ms, p95 {p95(idle) * 1000:.1f} ms")
    assert min(feed.asked for feed in feeds) >= 2
    assert p95(beside) < PROMISED
