"""The pages of the admin, on a real server: what they say, and what is done from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.test import Client

from tests.pages import CHANNEL, GROUP, NAUGHTY, World, build_world, logged_in, page, text_of, user
from tests.servers import Server

pytestmark = [pytest.mark.usefixtures("declared"), pytest.mark.django_db(databases=["default", "other"])]


@pytest.fixture
def redis_client(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def streams(settings: Any, events_settings: dict[str, Any]) -> dict[str, Any]:
    """`shop.*` are streams of the service `shop`."""
    settings.REDIS_EVENTS = {**events_settings, "SERVICE": "shop", "CHANNELS": {"shop.*": {"TRANSPORT": "stream"}}}
    return settings.REDIS_EVENTS


@pytest.fixture
def world(streams: dict[str, Any], redis_client: redis.Redis) -> Iterator[World]:
    yield from build_world(redis_client)


@pytest.fixture
def root(db: None) -> Client:
    return logged_in(user("root", is_superuser=True))


def test_every_page_opens(world: World, root: Client) -> None:
    for model, view, address in world.addresses():
        answer = root.get(address)
        print(model, view, answer.status_code, len(answer.content))
        if view in ("changelist", "change") : open(f"/tmp/pages/{model}_{view}.html","wb").write(answer.content)
