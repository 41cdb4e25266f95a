"""A web process whose saves have an outbox, while Redis is away: nobody notices, and nothing is missing afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pytest

from tests.processes import Project
from tests.servers import Postgres, Server, free_port, wait_for

REQUESTS = 1_000
SETTINGS = """
from tests.settings import *
ROOT_URLCONF = "app.urls"
"""
EVENTS = """
from redis_events import ModelPublisher, publishes
from tests.testapp.models import Tag

@publishes(Tag)
class TagPublisher(ModelPublisher):
    channel = "tags"
    fields = ("name",)
"""
URLS = """
import time
from django.http import JsonResponse
from django.urls import path
from tests.testapp.models import Tag

def save(request, number):
    began = time.monotonic()
    Tag.objects.create(name=str(number))
    return JsonResponse({"seconds": time.monotonic() - began})

urlpatterns = [path("save/<int:number>", save)]
"""
WSGI = """
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def make_site(make_project: Callable[..., Project], postgres: Postgres, prefix: str) -> Callable[[Server], Project]:
    def make(server: Server) -> Project:
        site = make_project("shop", location=server.url)
        for name, text in {"settings": SETTINGS, "events": EVENTS, "urls": URLS, "wsgi": WSGI}.items():
            site.write(f"{name}.py", text)
        site.settings["CHANNELS"] = {"tags": {"OUTBOX": True}}
        site.database(postgres.create(prefix))
        site.migrate()
        site.env["DJANGO_SETTINGS_MODULE"] = "app.settings"
        return site

    return make


@pytest.mark.parametrize("how", ["refused", "frozen"])
def test_a_thousand_requests_save_while_redis_is_away_and_all_their_events_arrive(
    how: str, make_site: Callable[[Server], Project], prefix: str
) -> None:
    with Server() as redis:
        site = make_site(redis)
        port = free_port()
        web = site.python("-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--threads", "8", "app.wsgi:application")
        web.wait_for_line("Listening at", timeout=30)
        redis.kill() if how == "refused" else redis.freeze()
        began = time.monotonic()
        with ThreadPoolExecutor(8) as customers:
            took = list(customers.map(lambda number: seconds_of(port, number), range(REQUESTS)))
        away = time.monotonic() - began
        redis.start() if how == "refused" else redis.thaw()
        assert sum(each > 0.2 for each in took) <= 1 + away
        assert max(took) < 0.25 + 0.2
        relay = site.manage("relay_events")
        wait_for(lambda: len(names(redis, f"{prefix}:tags")) == REQUESTS, timeout=30, what="all events")
        relay.terminate()
        assert relay.wait(10) == 0, relay.output


def seconds_of(port: int, number: int) -> float:
    with urlopen(f"http://127.0.0.1:{port}/save/{number}", timeout=20) as answer:
        return float(json.load(answer)["seconds"])


def names(server: Server, stream: str) -> set[str]:
    with server.client() as client:
        return {json.loads(fields[b"event"])["data"]["name"] for _, fields in client.xrange(stream)}
