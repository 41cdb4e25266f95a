"""Who may do what: each user at each address, by GET and by POST. A new address without an expectation fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin

from redis_events.admin import PAGES
from redis_events.models import Channel, HeldDelivery, Overview, ReceiverStatus
from tests.pages import World, build_world, logged_in, page, user
from tests.servers import Server

pytestmark = [pytest.mark.usefixtures("declared"), pytest.mark.django_db(databases=["default", "other"])]

VIEWS = [f"view_{model._meta.model_name}" for model in PAGES]
ACTS = {
    ("channel", "publish"): "publish_event",
    ("receiverstatus", "pause"): "pause_receiver",
    ("receiverstatus", "resume"): "pause_receiver",
    ("consumergroup", "claim"): "claim_pending",
    ("consumergroup", "skip"): "claim_pending",
    ("consumergroup", "remove"): "claim_pending",
    ("consumergroup", "move"): "claim_pending",
    ("deadletter", "replay"): "replay_event",
    ("deadletter", "discard"): "discard_deadletter",
    ("listenerstatus", "stop"): "stop_listener",
}
STOCK = {"changelist", "change", "history", "add", "delete"}
WITH_ROWS = {"helddelivery", "inboxentry", "outboxevent"}
USERS = ("root", "viewer", "actor", "staff", "customer", "nobody")


def expected(who: str, model: str, view: str, method: str) -> set[int]:
    """The answers that are right. 302 without the right to be here leads to the login, else back to a list."""
    if who in ("customer", "nobody"):
        return {302}
    if who == "staff":
        return {403}
    if (model, view) in ACTS:
        return {200, 302} if who in ("root", "actor") else {403}
    return _expected_of_view(who, model, view, method)


def _expected_of_view(who: str, model: str, view: str, method: str) -> set[int]:
    if who == "actor":  # has every act's permission and sees nothing
        return {403}
    if (model, view) == ("livefeed", "rows"):
        return {200} if method == "GET" else {405}
    assert view in STOCK, f"say what is expected of {model} {view}"
    if model not in WITH_ROWS:
        return {200} if method == "GET" else {405}
    if view in ("add", "delete"):
        return {403}
    if method == "POST":
        return {200, 302} if view == "changelist" else {403, 200}
    return {200}


@pytest.fixture
def world(settings: Any, events_settings: dict[str, Any], server: Server) -> Iterator[World]:
    settings.REDIS_EVENTS = {**events_settings, "SERVICE": "shop", "CHANNELS": {"shop.*": {"TRANSPORT": "stream"}}}
    with server.client() as client:
        yield from build_world(client)


@pytest.fixture
def clients() -> dict[str, Any]:
    return {
        "root": logged_in(user("root", is_superuser=True)),
        "viewer": logged_in(user("viewer", *VIEWS)),
        "actor": logged_in(user("actor", *set(ACTS.values()), "view_payload")),
        "staff": logged_in(user("staff")),
        "customer": logged_in(user("customer", *VIEWS, *set(ACTS.values()), is_staff=False)),
        "nobody": logged_in(None),
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_each_user_gets_the_expected_answer_at_each_address(world: World, clients: Any, method: str) -> None:
    wrong = []
    for model, view, address in world.addresses():
        for who in reversed(USERS):  # who may act comes last: until then there is everything to act on
            for extra in ("", "?_fragment=1") if model not in WITH_ROWS else ("",):
                answer = clients[who].generic(method, address + extra)
                wanted = expected(who, model, view, method)
                if answer.status_code not in wanted:
                    wrong.append(f"{who} {method} {model} {view}{extra}: {answer.status_code}, not {wanted}")
    assert wrong == []


def test_who_is_not_logged_in_is_sent_to_the_login_of_the_admin(world: World, clients: Any) -> None:
    for _model, _view, address in world.addresses():
        for who in ("nobody", "customer"):
            assert clients[who].get(address)["Location"].startswith("/admin/login/?next="), address


def test_a_post_without_the_token_of_the_form_is_refused(world: World) -> None:
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(user("root", is_superuser=True))
    for model, view, address in world.addresses():
        if (model, view) in ACTS:
            assert client.post(address, {"ids": f"default:{world.letter.pk}"}).status_code == 403, address
    assert HeldDelivery.objects.get(pk=world.letter.pk).state == "dead"


def test_every_act_and_page_is_in_the_table(world: World) -> None:
    seen = {(model, view) for model, view, _address in world.addresses()}
    assert {each for each in seen if each[1] not in STOCK} == {*ACTS, ("livefeed", "rows")}
    assert {model for model, _view in seen} == {model._meta.model_name for model in PAGES}


@pytest.mark.parametrize(("model", "view"), [("deadletter", "replay"), ("deadletter", "discard")])
def test_one_permission_is_not_the_other(world: World, model: str, view: str) -> None:
    needed = ACTS[model, view]
    others = sorted({*ACTS.values(), *VIEWS, "view_payload"} - {needed})
    client = logged_in(user("almost", *others))
    address = next(address for *what, address in world.addresses() if tuple(what) == (model, view))
    assert client.post(address, {"ids": f"default:{world.letter.pk}"}).status_code == 403
    assert HeldDelivery.objects.get(pk=world.letter.pk).state == "dead"


def test_the_list_of_apps_holds_what_one_may_see(world: World, clients: Any) -> None:
    assert "redis_events" not in clients["staff"].get("/admin/").content.decode()
    index = clients["viewer"].get("/admin/").content.decode()
    for model in PAGES:
        assert f'href="{page(model)}"' in index
    assert "/add/" not in index.split("app-redis_events")[1]


def test_without_the_permission_no_page_shows_data(world: World, clients: Any) -> None:
    from tests.pages import NAUGHTY

    piece = "שלום"
    assert piece in NAUGHTY
    hidden = logged_in(user("hidden", *VIEWS))
    shown = logged_in(user("shown", *VIEWS, "view_payload"))
    seen_by_some = 0
    for model, view, address in world.addresses():
        if view not in ("changelist", "change"):
            continue
        for query in ("", "?text=700", f"?fingerprint={'f' * 16}"):
            assert piece not in hidden.get(address + query).content.decode(), (model, view, query)
        seen_by_some += piece in shown.get(address).content.decode()
    assert seen_by_some >= 5


@pytest.mark.parametrize(
    ("permission", "piece", "elsewhere"),
    [
        ("view_deadletter", "ConnectionError", [Overview, ReceiverStatus]),
        ("view_loggedevent", "shop.order.paid", [Overview, Channel]),
    ],
)
def test_without_the_permission_of_a_page_no_other_shows_its_rows(
    world: World, permission: str, piece: str, elsewhere: list[Any]
) -> None:
    looks = {
        Overview: page(Overview),
        Channel: page(Channel, "change", to="shop.orders"),
        ReceiverStatus: page(ReceiverStatus, "change", to="shop/tests.index"),
    }
    for name, permissions, pages in (("may", VIEWS, elsewhere), ("not", set(VIEWS) - {permission}, [])):
        client = logged_in(user(name, *permissions))
        assert [model for model, address in looks.items() if piece in client.get(address).content.decode()] == pages


@pytest.mark.parametrize("lookup", ["reason__contains", "traceback__startswith", "raw__contains"])
def test_no_address_tells_what_stands_in_data_by_what_it_finds(world: World, lookup: str) -> None:
    hidden = logged_in(user("hidden", *VIEWS))
    said = {hidden.get(page(HeldDelivery), {lookup: text}).status_code for text in ("Traceback", "refused", "nothing")}
    assert said == {400}
    assert hidden.get(page(HeldDelivery), {"state__exact": "dead"}).status_code == 200


def test_admin_pages_are_registered_where_django_looks_for_them() -> None:
    assert set(PAGES) <= set(admin.site._registry)
