"""Where everything is in the admin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.browser.looking import Tab

OURS = "/admin/redis_events"
STOCK = ("/admin/auth/user/", "/admin/auth/user/add/", "/admin/auth/user/1/change/", "/admin/auth/user/1/delete/")
"""Pages of Django's own, to compare ours with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A page. ``row`` is a text in the row of its list whose link leads there; without it, it is the list itself."""

    name: str
    list: str
    row: str = ""
    query: str = ""

    @property
    def path(self) -> str:
        return f"{OURS}/{self.list}/{self.query}"


PLACES = (
    Place(name="overview", list="overview"),
    Place(name="channels", list="channel"),
    Place(name="channel", list="channel", row="shop.orders"),
    Place(name="receivers", list="receiverstatus"),
    Place(name="events", list="loggedevent"),
    Place(name="event", list="loggedevent", row="shop.order.noted"),
    Place(name="feed", list="livefeed"),
    Place(name="groups", list="consumergroup"),
    Place(name="group", list="consumergroup", row="search"),
    Place(name="letters", list="deadletter"),
    Place(name="letter", list="deadletter", row="ConnectionError"),
    Place(name="listeners", list="listenerstatus"),
    Place(name="outbox", list="outboxevent"),
    Place(name="outbox-row", list="outboxevent", row="shop.refunds"),
    Place(name="held", list="helddelivery"),
    Place(name="held-row", list="helddelivery", row="shop.receivers.remind"),
    Place(name="inbox", list="inboxentry"),
    Place(name="settings", list="effectivesetting"),
)


def path_of(place: Place, tab: Tab) -> str:
    """Where a page is: the list's address, or where the link in its row leads."""
    if not place.row:
        return place.path
    tab.open(place.path)
    link = tab.page.locator("#content tr", has_text=place.row).locator(f"a[href*='/{place.list}/']").first
    return str(link.evaluate("(link) => link.pathname"))
