"""Values as the admin's pages write them."""

from __future__ import annotations

import pytest
from django.test import Client

from redis_events.admin import show
from redis_events.models import HeldDelivery, InboxEntry, OutboxEvent
from tests.pages import logged_in, page, user


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "—"), (0, "0.0 ms"), (0.000_06, "< 0.1 ms"), (0.000_1, "0.1 ms"), (0.2, "200 ms"), (90, "1 min")],
)
def test_a_duration_is_never_rounded_down_to_nothing(seconds: float | None, shown: str) -> None:
    assert show.seconds(seconds) == shown


def test_a_long_id_is_shown_by_its_end_and_said_whole() -> None:
    assert show.tail("o1") == "o1"
    assert show.tail("x" * 13) == "x" * 13
    shown = show.tail('01a212f7-05fe-7b44-"<-b5d412b961e7')
    assert shown == '<span title="01a212f7-05fe-7b44-&quot;&lt;-b5d412b961e7">…b5d412b961e7</span>'


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize(
    ("model", "title"),
    [(HeldDelivery, "Held deliveries"), (InboxEntry, "Inbox entries"), (OutboxEvent, "Outbox events")],
)
def test_a_table_is_headed_by_what_is_in_it(model: type, title: str) -> None:
    client: Client = logged_in(user("root", is_superuser=True))
    html = client.get(page(model)).content.decode()
    assert f"<h1>{title}</h1>" in html
    assert "redis_events/admin.css" in html
