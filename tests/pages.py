"""A small world for the admin's pages: one of everything, under names that try to break out of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import models
from django.test import Client
from django.urls import reverse

from redis_events import publish, receives
from redis_events.admin import PAGES
from redis_events.conf import conf
from redis_events.events import now
from redis_events.heartbeat import beat, card, own_id, retire
from redis_events.models import DeadLetter, HeldDelivery, InboxEntry, OutboxEvent
from redis_events.registry import all_receivers
from redis_events.transports.client import Wire

NAUGHTY = "<script>alert(1)</script>\"'&{{ 7|add:7 }} 中文 😀 שלום"
CHANNEL, GROUP = "shop.orders", "shop"


def user(name: str, *permissions: str, **flags: Any) -> User:
    """A staff user with these permissions of redis_events, by code name."""
    made = User.objects.create_user(name, **{"is_staff": True, **flags})
    found = Permission.objects.filter(content_type__app_label="redis_events", codename__in=permissions)
    assert len(found) == len(permissions), f"no such permission among {permissions}"
    made.user_permissions.set(found)
    return made


def logged_in(someone: User | None) -> Client:
    client = Client()
    if someone:
        client.force_login(someone)
    return client


def page(model: type[models.Model], view: str = "changelist", *, to: str = "") -> str:
    """The address of a page of the admin, or of something on it."""
    name = f"admin:redis_events_{model._meta.model_name}_{view}"
    return reverse(name, args=[quote(to)] if to else [])


def text_of(html: str) -> str:
    """What a reader sees, roughly: without tags, on one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def dead_letter(number: int = 1, *, fingerprint: str = "f" * 16, **fields: Any) -> HeldDelivery:
    """A dead letter of the receiver `tests.index`."""
    row = {
        "source": "shop",
        "event_id": f"event-{number}",
        "group": GROUP,
        "receiver": "tests.index",
        "channel": CHANNEL,
        "type": "shop.order.paid",
        "key": str(number),
        "entry_id": "",
        "state": "dead",
        "attempt": 8,
        "raw": f'{{"note": "{NAUGHTY}"}}'.encode(),
        "reason": f"refused {NAUGHTY}",
        "exception": "ConnectionError",
        "traceback": f"Traceback {NAUGHTY}",
        "created_at": now() - timedelta(minutes=5),
        "updated_at": now(),
        **fields,
    }
    return HeldDelivery.objects.create(fingerprint=fingerprint, **row)


@dataclass
class World:
    """Ids of what there is one of."""

    entry_id: str
    letter: DeadLetter
    outbox: OutboxEvent
    inbox: InboxEntry

    def ids(self) -> dict[str, str]:
        """What stands for `object_id` in the addresses of each page, by the name of its model."""
        return {
            "channel": CHANNEL,
            "receiverstatus": "shop/tests.index",
            "loggedevent": f"{CHANNEL}/{self.entry_id}",
            "consumergroup": f"{CHANNEL}/{GROUP}",
            "deadletter": f"default:{self.letter.pk}",
            "listenerstatus": own_id(),
            "helddelivery": str(self.letter.pk),
            "outboxevent": str(self.outbox.pk),
            "inboxentry": str(self.inbox),
        }

    def addresses(self) -> Iterator[tuple[str, str, str]]:
        """Model, view and address of every URL the pages have registered."""
        from django.contrib import admin

        for model in PAGES:
            for pattern in admin.site.get_model_admin(model).get_urls():
                if pattern.name:
                    yield self._address(model, pattern)

    def _address(self, model: type[models.Model], pattern: Any) -> tuple[str, str, str]:
        name = model._meta.model_name
        assert name
        view = pattern.name.removeprefix(f"redis_events_{name}_")
        to = self.ids()[name] if "object_id" in str(pattern.pattern) else ""
        return name, view, page(model, view, to=to)


def build_world(client: Any) -> Iterator[World]:
    """One of everything; `client` is a redis client. Yields while this process has a heartbeat."""
    receives(CHANNEL, name="tests.index")(lambda event: None)
    receives("live.*", name="tests.push")(lambda event: None)
    first, *_ = [
        publish(CHANNEL, {"number": number, "note": NAUGHTY}, type="shop.order.paid", key="<i>7</i>", strict=True)
        for number in (700, 701, 702)
    ]
    key = conf.redis_name(CHANNEL)
    client.xgroup_create(key, GROUP, "0")
    ((_, ((entry_id, _fields),)),) = client.xreadgroup(GROUP, "ghost", {key: ">"}, count=1)
    outbox = OutboxEvent.objects.create(
        channel=CHANNEL, event_id="o1", type="shop.order.paid", key="1", body=NAUGHTY.encode(), created_at=now()
    )
    inbox = InboxEntry.objects.create(digest=b"0123456789abcdef", created_at=now())
    letter = DeadLetter.objects.get(pk=dead_letter(event_id=first.id, entry_id=entry_id.decode()).pk)
    wire = Wire(conf.LOCATION, timeout=1.0)
    beat(wire, card(all_receivers(), version="1.0"))
    try:
        yield World(entry_id.decode(), letter, outbox, inbox)
    finally:
        retire(wire, card(all_receivers(), version="1.0"))
        wire.close()
