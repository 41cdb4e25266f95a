"""Web servers that fork and spawn: gunicorn --preload, uvicorn --workers 2, async views, a bare fork."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from tests.processes import Process, Project
from tests.servers import Server, free_port, wait_for

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
import asyncio, os
from django.core.exceptions import SynchronousOnlyOperation
from django.http import JsonResponse
from django.urls import path
from redis_events import apublish, publish
from tests.testapp.models import Tag

def save(request, number):
    Tag.objects.create(name=f"{os.getpid()}:{number}")
    return JsonResponse({"pid": os.getpid()})

async def save_async(request, number):
    await Tag.objects.acreate(name=f"{os.getpid()}:{number}")
    return JsonResponse({"pid": os.getpid()})

async def ten(request, number):
    events = await asyncio.gather(*(apublish("tags", f"{os.getpid()}:{number}.{part}") for part in range(10)))
    return JsonResponse({"pid": os.getpid(), "ids": [event.id for event in events]})

async def wrong(request, number):
    try:
        publish("tags", "never")
    except SynchronousOnlyOperation as error:
        return JsonResponse({"error": str(error)})

urlpatterns = [
    path("save/<int:number>", save), path("save-async/<int:number>", save_async),
    path("ten/<int:number>", ten), path("wrong/<int:number>", wrong),
]
"""
WSGI = """
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
from redis_events import publish
publish("tags", "before the fork")  # the connection that no worker may use
"""
ASGI = """
from django.core.asgi import get_asgi_application
application = get_asgi_application()
"""
FORK = """
import os
from redis_events import publish
publish("tags", "before the fork")
children = []
for child in range(4):
    pid = os.fork()
    if not pid:
        for number in range(100):
            publish("tags", f"child {child}: {number}")
        os._exit(0)
    children.append(pid)
for number in range(100):
    publish("tags", f"parent: {number}")
print([os.waitpid(pid, 0)[1] for pid in children])
publish("tags", "after the children")
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def site(project: Project) -> Project:
    for name, text in {"settings": SETTINGS, "events": EVENTS, "urls": URLS, "wsgi": WSGI, "asgi": ASGI}.items():
        project.write(f"{name}.py", text)
    project.env["DJANGO_SETTINGS_MODULE"] = "app.settings"
    return project


@pytest.fixture
def arrived(server: Server, prefix: str) -> Iterator[Callable[[int], list[str]]]:
    """The names and texts a plain client heard, once there are so many, and no more for a moment."""
    with server.client(decode_responses=True) as client, client.pubsub(ignore_subscribe_messages=True) as watcher:
        watcher.subscribe(f"{prefix}:tags")
        wait_for(lambda: client.pubsub_numsub(f"{prefix}:tags")[0][1] == 1, what="the watcher")
        found: list[str] = []

        def hear(count: int) -> list[str]:
            def enough() -> bool:
                while message := watcher.get_message(timeout=0.1):
                    found.append(name_in(message["data"]))
                return len(found) >= count

            wait_for(enough, what=f"{count} events", timeout=15)
            return found

        yield hear


def name_in(body: str) -> str:
    return str(json.loads(body)["data"]["name"]) if body.startswith("{") else body


@contextmanager
def serving(site: Project, *command: str) -> Iterator[Callable[[str], dict[str, object]]]:
    """Run a web server on a free port; yields a GET that returns the JSON."""
    port = free_port()
    process = site.python(*(part.replace("PORT", str(port)) for part in command))

    def get(path: str) -> dict[str, object]:
        with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
            return dict(json.load(answer))

    try:
        wait_for(lambda: _answers(get), what="the web server", timeout=30)
        yield get
    finally:
        stop(process)


def _answers(get: Callable[[str], object]) -> bool:
    try:
        get("nothing-here")
    except OSError as error:  # an HTTP error is an OSError that has a code
        return getattr(error, "code", None) == 404
    return True


def stop(process: Process) -> None:
    process.terminate()
    process.wait(20)


def get_all(get: Callable[[str], dict[str, object]], path: str, count: int) -> set[object]:
    """So many requests, eight at a time; the processes that answered."""
    with ThreadPoolExecutor(8) as pool:
        return {answer["pid"] for answer in pool.map(lambda number: get(f"{path}/{number}"), range(count))}


def numbers(names: list[str]) -> list[str]:
    return sorted(name.partition(":")[2] for name in names if ":" in name)


def expected(count: int) -> list[str]:
    return sorted(str(number) for number in range(count))


GUNICORN = ("-m", "gunicorn", "app.wsgi", "--preload", "--workers", "2", "--threads", "4", "--bind", "127.0.0.1:PORT")
UVICORN = ("-m", "uvicorn", "app.asgi:application", "--workers", "2", "--port", "PORT", "--log-level", "warning")


def test_gunicorn_with_preload_publishes_from_every_worker_on_a_connection_of_its_own(
    site: Project, server: Server, arrived: Callable[[int], list[str]]
) -> None:
    with server.client() as client, serving(site, *GUNICORN) as get:
        before = {each["id"] for each in client.client_list(_type="normal")}
        workers = get_all(get, "save", 60)
        ours = {each["id"] for each in client.client_list(_type="normal")} - before
        assert len(workers) == 2, "one worker did all the work: the test shows nothing"
        assert len(ours) == 2
        names = arrived(61)
    assert names[0] == "before the fork"
    assert numbers(names) == expected(60)


def test_uvicorn_with_two_workers_publishes_from_async_views(
    site: Project, arrived: Callable[[int], list[str]]
) -> None:
    with serving(site, *UVICORN) as get:
        get_all(get, "save-async", 40)
        assert numbers(arrived(40)) == expected(40)
        assert len(get("ten/7")["ids"]) == 10  # type: ignore[arg-type]
        assert len(arrived(50)) == 50
        assert "apublish" in str(get("wrong/1")["error"])


def test_uvicorn_keeps_answering_while_redis_is_frozen(site: Project) -> None:
    with Server() as own:
        site.env["TEST_LOCATION"] = own.url
        with serving(site, *UVICORN) as get:
            get_all(get, "save-async", 4)
            own.freeze()
            assert get_all(get, "save-async", 40)
            own.thaw()


def test_after_a_bare_fork_parent_and_children_publish_on_connections_of_their_own(
    site: Project, server: Server, arrived: Callable[[int], list[str]]
) -> None:
    with server.client() as client:
        before = client.info("stats")["total_connections_received"]
        assert site.shell(FORK, timeout=30) == "[0, 0, 0, 0]"
        # of each process one to ask who announced the channel, and one to publish
        assert client.info("stats")["total_connections_received"] == before + 2 * 5
    names = arrived(502)
    assert len(names) == len(set(names)) == 502
    assert (names[0], names[-1]) == ("before the fork", "after the children")
    for child in range(4):
        own = [name for name in names if name.startswith(f"child {child}:")]
        assert own == [f"child {child}: {number}" for number in range(100)]
