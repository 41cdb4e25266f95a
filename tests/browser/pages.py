"""Where everything is in the admin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.browser.looking import Tab

OURS = "/admin/redis_events"
STOCK = ("/admin/auth/user/", "/admin/testapp/unpublished/", "/admin/testapp/unpublished/1/change/")
"""Pages of Django's own, to compare ours with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A page. ``rows`` are texts in the rows of tables whose links lead there; without them, it is the list itself."""

    name: str
    list: str
    rows: tuple[str, ...] = ()
    search: str = ""
    """What the list is asked for to have the first of these rows."""

    @property
    def path(self) -> str:
        return f"{OURS}/{self.list}/"


PLACES = (
    Place(name="overview", list="overview"),
    Place(name="channels", list="channel"),
    Place(name="channel", list="channel", rows=("shop.orders",)),
    Place(name="receivers", list="receiverstatus"),
    Place(name="receiver", list="receiverstatus", rows=("shop.receivers.charge",)),
    Place(name="events", list="loggedevent"),
    Place(name="event", list="loggedevent", rows=("shop.order.noted",), search="?type=shop.order.noted"),
    Place(name="feed", list="livefeed"),
    Place(name="groups", list="consumergroup"),
    Place(name="group", list="consumergroup", rows=("guestbook",)),
    Place(name="errors", list="deadletter"),
    Place(name="error", list="deadletter", rows=("ConnectionError",)),
    Place(name="letter", list="deadletter", rows=("ConnectionError", "shop.order.placed")),
    Place(name="listeners", list="listenerstatus"),
    Place(name="outbox", list="outboxevent"),
    Place(name="outbox-row", list="outboxevent", rows=("shop.refunds",)),
    Place(name="held", list="helddelivery"),
    Place(name="held-row", list="helddelivery", rows=("shop.receivers.remind",)),
    Place(name="inbox", list="inboxentry"),
    Place(name="settings", list="effectivesetting"),
)


def path_of(place: Place, tab: Tab, *, known: dict[str, str]) -> str:
    """Where a page is: the list's address, or where the links in its rows lead; remembered in `known`."""
    if place.name not in known:
        known[place.name] = _followed(place, tab)
    return known[place.name]


def _followed(place: Place, tab: Tab) -> str:
    path = place.path + place.search
    for row in place.rows:
        tab.open(path)
        link = tab.page.locator("#content tbody tr", has_text=row).locator(f"a[href*='/{place.list}/']").first
        path = str(link.evaluate("(link) => link.pathname + link.search"))
    return path
