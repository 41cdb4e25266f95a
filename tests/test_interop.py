"""Plain redis-py on one side, us on the other: nothing but Redis between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from tests.processes import Process, Project
from tests.servers import Server, wait_for

RECEIVERS = """
from redis_events import Event, receives

def note(event):
    with open("heard", "a") as file:
        file.write(f"{event.data!r} type={event.type!r} key={event.key!r} source={event.source!r} {event.channel}\\n")

@receives("channel")
def hear(event):
    note(event)

@receives("channel", types="shop.*")
def hear_typed(event):
    with open("typed", "a") as file:
        file.write(f"{event.type}\\n")

@receives("texts")
def hear_text(event: Event[str]):
    note(event)
"""
EVENTS = """
from redis_events import ModelPublisher, publishes
from tests.testapp.models import Order

@publishes(Order)
class OrderPublisher(ModelPublisher):
    channel = "orders"
    type_prefix = "shop.order"
    fields = ("id", "status", "total")
"""
PUBLISHER = """
import redis
r = redis.Redis(host="127.0.0.1", port=PORT, password=PASSWORD, decode_responses=True)
r.publish("channel", MESSAGE)
"""
SUBSCRIBER = """
import redis
r = redis.Redis(host="127.0.0.1", port=PORT, password=PASSWORD, decode_responses=True)
pubsub = r.pubsub()
pubsub.subscribe("channel", "orders")
for message in pubsub.listen():
    print(message["type"], message["channel"], message["data"], flush=True)
"""


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """With a password, as the plain scripts have it."""
    with Server(password="s3cret") as server:
        yield server


@pytest.fixture
def service(project: Project, guarded: Server) -> Project:
    """A project without a PREFIX: plain clients know nothing of one."""
    project.env |= {"TEST_PREFIX": "", "TEST_LOCATION": guarded.url}
    project.write("receivers.py", RECEIVERS)
    project.write("events.py", EVENTS)
    return project


def script(service: Project, guarded: Server, text: str, message: object = None) -> Process:
    """A plain script: no Django in it, nor us."""
    header = f"PORT, PASSWORD, MESSAGE = {guarded.port}, {guarded.password!r}, {message!r}\n"
    return service.python("-c", header + text)


def listening(service: Project, **env: str) -> Process:
    process = service.manage("listen_events", **env)
    process.wait_for_line("Listening on ", timeout=20)
    return process


def test_a_plain_scripts_message_reaches_a_receiver(service: Project, guarded: Server) -> None:
    listening(service)
    messages = ["Hello, World!!!", '{"id": 7}', "[1, 2", "null", "", " ", "007", "中文 🎉", "1e400"]
    with guarded.client(decode_responses=True) as client:
        assert script(service, guarded, PUBLISHER, messages[0]).wait(10) == 0
        for message in messages[1:]:
            client.publish("channel", message)
    expected = ["'Hello, World!!!'", "{'id': 7}", "'[1, 2'", "None", "''", "' '", "'007'", "'中文 🎉'", "'1e400'"]
    heard = service.folder / "heard"
    wait_for(lambda: heard.exists() and len(heard.read_text().splitlines()) == 9, what="nine messages")
    assert heard.read_text().splitlines() == [f"{each} type='' key='' source='' channel" for each in expected]
    assert not (service.folder / "typed").exists(), "a receiver with types= heard a message without one"


def test_an_annotated_text_stays_the_very_text(service: Project, guarded: Server) -> None:
    listening(service)
    with guarded.client() as client:
        for message in ("7", '"quoted"', '{"a": 1}', "plain"):
            client.publish("texts", message)
    heard = service.folder / "heard"
    wait_for(lambda: heard.exists() and len(heard.read_text().splitlines()) == 4, what="four texts")
    texts = [line.split(" type=")[0] for line in heard.read_text().splitlines()]
    assert texts == ["'7'", "'\"quoted\"'", "'{\"a\": 1}'", "'plain'"]


def test_a_plain_script_gets_the_bare_text_and_the_document_of_a_save(service: Project, guarded: Server) -> None:
    listener = script(service, guarded, SUBSCRIBER)
    listener.wait_for_line("subscribe orders")
    service.shell(
        "from redis_events import publish\n"
        "from tests.testapp.models import Order\n"
        "publish('channel', 'Hello, World!!!')\n"
        "publish('channel', {'id': 7})\n"
        "Order.objects.create(status='paid', total='9.90')\n"
    )
    document = json.loads(listener.wait_for_line("message orders (.*)").group(1))
    bare = [line for line in listener.lines if line.startswith("message channel")]
    assert bare == ["message channel Hello, World!!!", 'message channel {"id":7}']
    assert UUID(document.pop("id")).version == 7
    assert document.pop("time").endswith(("Z", "+00:00"))
    assert document == {
        "specversion": "1.0",
        "source": "shop",
        "type": "shop.order.created",
        "subject": str(document["data"]["id"]),
        "datacontenttype": "application/json",
        "data": {"id": document["data"]["id"], "status": "paid", "total": "9.90"},
    }


def test_another_clients_cloudevent_is_an_event(service: Project, guarded: Server) -> None:
    listening(service)
    document = {"specversion": "1.0", "id": "A-1", "source": "/other", "type": "shop.x", "subject": "k", "data": [1]}
    with guarded.client() as client:
        client.publish("channel", json.dumps(document | {"someextension": "ignored"}))
    wait_for(lambda: (service.folder / "typed").exists(), what="the typed receiver")
    assert (service.folder / "heard").read_text() == "[1] type='shop.x' key='k' source='/other' channel\n"


def test_two_services_that_share_nothing_but_redis(make_project: Callable[..., Project], prefix: str) -> None:
    shop, billing = make_project("shop"), make_project("billing")
    shop.migrate()
    billing.migrate()
    shop.write("events.py", EVENTS)
    billing.write("receivers.py", RECEIVERS.replace('"channel"', '"orders"'))
    listening(billing)
    shop.shell(
        "from tests.testapp.models import Order\n"
        "order = Order.objects.create(total='9.90'); order.status = 'paid'; order.save(); order.delete()"
    )
    typed = billing.folder / "typed"
    wait_for(lambda: typed.exists() and len(typed.read_text().split()) == 3, what="three events")
    assert typed.read_text().split() == ["shop.order.created", "shop.order.updated", "shop.order.deleted"]
    assert "source='shop' orders" in (billing.folder / "heard").read_text()


# ------------------------------------------------------------------ junk

MEGABYTE = b"x" * 1_048_576
JUNK = [
    b"", b"{", b'{"a":', b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, MEGABYTE, b'"' + MEGABYTE + b'"',
    b"\xff\xfe\x00\x00", b"\xc3\x28", b'"\\ud800"', b"NaN", b"1" * 5_000, b"\x00" * 1000, b"\x1f\x8b\x08\x00",
    b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04exit\x94\x85\x94R\x94.",
    b"cposix\nsystem\n(S'touch pwned'\ntR.",
    b'{"specversion":"1.0"}', b'{"specversion":"0.3","id":"1","source":"s","type":"t"}', b'{"specversion":null}',
    b'{"specversion":"1.0","id":"","source":"s","type":"t"}', b'{"specversion":"1.0","id":7,"source":"s","type":"t"}',
    b'{"specversion":"1.0","id":"1","source":"s","type":"t","time":"0001-01-01T00:00:00Z"}',
    b'{"specversion":"1.0","id":"1","source":"s","type":"t","time":"yesterday"}',
    b'{"specversion":"1.0","id":"1\\u0000","source":"s","type":"t"}',
    b'{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"gA=="}',
    b'{"specversion":"1.0","id":"' + b"i" * 300 + b'","source":"s","type":"t"}',
    b"{" + b",".join(b'"%d":1' % number for number in range(20_000)) + b"}",
]  # fmt: skip


def test_whatever_junk_comes_the_next_good_event_arrives_within_a_second(service: Project, guarded: Server) -> None:
    """And each piece of junk is heard as what it is or kept as a dead letter: none is missing."""
    process = listening(service)
    heard = service.folder / "heard"
    with guarded.client() as client:
        for number, junk in enumerate(JUNK):
            client.publish("channel", junk)
            client.publish("channel", f"good {number}")
            wait_for(
                lambda number=number: heard.exists() and f"'good {number}'" in heard.read_text(),
                timeout=1.0,
                what=f"the good event after {junk[:40]!r}",
            )
    assert process.returncode is None
    assert "Traceback" not in process.output
    assert not (service.folder / "pwned").exists()
    accepted = len(heard.read_text().splitlines()) - len(JUNK)
    count = "from redis_events.models import DeadLetter as D\nprint(D.objects.filter(receiver='').count())"
    kept = int(service.shell(count))
    failed = int(service.shell(count.replace("filter(receiver='')", "exclude(receiver='')")))
    assert (accepted + kept, failed) == (len(JUNK), 0)
