"""The pages while something is wrong: there within 1.2 s, with a banner that says what, since when and what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client

from redis_events.admin import PAGES
from redis_events.conf import conf
from redis_events.models import Channel, ConsumerGroup, DeadLetter, HeldDelivery, LiveFeed, LoggedEvent, Overview
from tests.pages import CHANNEL, World, build_world, dead_letter, logged_in, page, text_of, user
from tests.servers import Server, free_port, wait_for

pytestmark = [pytest.mark.usefixtures("declared"), pytest.mark.django_db(databases=["default", "other"])]

LONGEST = 1.2
"""Seconds a page may take, whatever the server does."""
WITHOUT_SERVER = {"deadletter", "helddelivery", "inboxentry", "outboxevent"}
SETTINGS = {"SERVICE": "shop", "CHANNELS": {"shop.*": {"TRANSPORT": "stream"}}}


@contextmanager
def refused() -> Iterator[str]:
    yield f"redis://127.0.0.1:{free_port()}/0"


@contextmanager
def frozen() -> Iterator[str]:
    with Server() as server:
        server.freeze()
        yield server.url
        server.thaw()


@contextmanager
def locked() -> Iterator[str]:
    with Server(password="right") as server:
        yield server.url.replace("right", "wrong")


@contextmanager
def forbidden() -> Iterator[str]:
    with Server() as server:
        server.client().acl_setuser("nobody", enabled=True, nopass=True, commands=["-@all"])
        yield server.url.replace("redis://", "redis://nobody:x@")


SAID: dict[str, tuple[Callable[[], AbstractContextManager[str]], str]] = {
    "refused": (refused, "start the server, or correct LOCATION"),
    "frozen": (frozen, "is it frozen"),
    "locked": (locked, "Correct the user and password"),
    "forbidden": (forbidden, "The Redis user"),
}


@pytest.fixture
def root(db: None) -> Client:
    return logged_in(user("root", is_superuser=True))


def opened(client: Client, address: str) -> str:
    """The page, which came in time."""
    began = time.monotonic()
    answer = client.get(address)
    took = time.monotonic() - began
    assert answer.status_code == 200, address
    assert took < LONGEST, f"{address} took {took:.2f} s"
    return answer.content.decode()


def every_address() -> Iterator[tuple[str, str]]:
    """Model and address of every list, and of something on it that nobody can look up."""
    for model in PAGES:
        name = str(model._meta.model_name)
        yield name, page(model)
        if name not in {"overview", "livefeed", "effectivesetting"} | WITHOUT_SERVER:
            yield name, page(model, "change", to="shop.orders/1-1")


@pytest.mark.parametrize("kind", SAID)
def test_every_page_comes_in_time_and_says_what_is_wrong(kind: str, settings: Any, root: Client) -> None:
    trouble, advice = SAID[kind]
    with trouble() as location:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": location}
        for name, address in every_address():
            html = opened(root, address)
            if name not in WITHOUT_SERVER:
                assert 'role="alert"' in html or kind == "forbidden", address
                assert advice in text_of(html), address
            if name not in WITHOUT_SERVER | {"livefeed", "effectivesetting"}:
                assert "—" in html, address


@pytest.mark.parametrize("kind", SAID)
def test_what_is_unknown_is_never_a_nought(kind: str, settings: Any, root: Client) -> None:
    with SAID[kind][0]() as location:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": location}
        html = opened(root, page(Overview))
        cards = html[html.index("re-cards") :].split("</dl>")[0]
        shown = [each.split("</dd>")[0] for each in cards.split("<dd>")[1:]]
        assert [text_of(each).split()[0] for each in shown[:5]] == ["—"] * 5


def test_a_page_that_is_open_says_when_the_server_goes_and_when_it_is_back(settings: Any, root: Client) -> None:
    with Server() as server:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": server.url}
        address = f"{page(Channel)}?_fragment=1"
        assert 'role="alert"' not in opened(root, address)
        server.freeze()
        try:
            first = opened(root, address)
            assert "<time datetime=" in first.split('role="alert"')[1]
            assert 'role="alert"' in opened(root, address)
        finally:
            server.thaw()
        wait_for(lambda: 'role="alert"' not in opened(root, address), timeout=10, what="the page to recover")


def test_the_live_feed_says_what_keeps_it_from_answering(settings: Any, root: Client) -> None:
    with refused() as location:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": location}
        answer = root.get(page(LiveFeed, "rows"))
        assert answer.status_code == 200
        rows, banners = answer.content.decode().split("<!--banners-->")
        assert rows.strip() == ""
        assert "start the server" in text_of(banners)


def test_a_full_memory_is_said_on_every_page(settings: Any, root: Client) -> None:
    with Server() as server:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": server.url}
        server.client().config_set("maxmemory", 1)
        for model in (Overview, Channel, ConsumerGroup, LoggedEvent):
            assert "raise maxmemory" in text_of(opened(root, page(model)))


def test_a_replica_is_said_to_take_no_writes(settings: Any, root: Client) -> None:
    with Server() as server:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": server.url}
        server.client().replicaof("127.0.0.1", free_port())
        said = text_of(opened(root, page(Overview)))
        assert "This is a replica: it takes no writes." in said
        assert "it is a replica, or its disk is full" in said


@pytest.fixture
def reserved(settings: Any) -> Iterator[tuple[Server, World]]:
    """A server of the test's own with one of everything."""
    with Server() as server:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": server.url}
        for world in build_world(server.client()):
            yield server, world


def test_a_user_who_may_not_run_xinfo_sees_the_rest_and_which_command_it_is(
    settings: Any, reserved: tuple[Server, World], root: Client
) -> None:
    server, _world = reserved
    commands = ["+@all", "-xinfo"]
    server.client().acl_setuser("poor", enabled=True, nopass=True, commands=commands, keys=["*"], channels=["*"])
    settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": server.url.replace("redis://", "redis://poor:x@")}
    html = opened(root, page(Channel))
    assert 'role="alert"' not in html
    assert "XINFO" in text_of(html)
    assert CHANNEL in html
    assert "—" in html
    assert "shop.order.paid" in opened(root, page(LoggedEvent))


# ------------------------------------------------------------------ acts


def test_an_act_that_fails_says_so_and_comes_back_to_the_list(
    settings: Any, reserved: tuple[Server, World], root: Client
) -> None:
    server, world = reserved
    back = f"{page(ConsumerGroup)}?x=1"
    address = page(ConsumerGroup, "claim", to=f"{CHANNEL}/shop") + f"?_back={back}"
    server.freeze()
    try:
        answer = root.post(address, {"ids": world.entry_id})
        assert (answer.status_code, answer["Location"]) == (302, back)
        said = text_of(root.get(page(DeadLetter)).content.decode())
        assert "no answer in time" in said
    finally:
        server.thaw()


def test_dead_letters_are_discarded_while_the_server_is_away(settings: Any, root: Client) -> None:
    with refused() as location:
        settings.REDIS_EVENTS = {**SETTINGS, "LOCATION": location}
        letter = dead_letter()
        assert "1 dead letter" in text_of(
            root.get(page(DeadLetter, "discard") + f"?select=default:{letter.pk}").content.decode()
        )
        root.post(page(DeadLetter, "discard"), {"ids": f"default:{letter.pk}"})
        assert not HeldDelivery.objects.exists()
        assert LogEntry.objects.count() == 1


# ------------------------------------------------------------------ the database


@pytest.mark.parametrize("model", [DeadLetter, Overview], ids=lambda model: model.__name__)
def test_a_table_that_is_missing_is_said(model: Any, settings: Any, events_settings: Any, root: Client) -> None:
    settings.REDIS_EVENTS = {**events_settings, **SETTINGS}
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {HeldDelivery._meta.db_table} RENAME TO gone")
    html = opened(root, page(model))
    assert "manage.py migrate" in text_of(html)
    assert "—" in html
    assert conf.SERVICE == "shop"


def test_pages_open_where_events_stay_in_the_process(settings: Any, root: Client) -> None:
    settings.REDIS_EVENTS = {"LOCATION": "memory://"}
    for _name, address in every_address():
        if "change/" not in address:
            opened(root, address)
    assert "memory://" in text_of(opened(root, page(Overview)))
