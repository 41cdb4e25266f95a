"""Who is alive, and what each listener says of itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from redis_events import heartbeat
from redis_events.conf import conf
from redis_events.exceptions import Refused
from redis_events.heartbeat import ALIVE, Card
from redis_events.transports.client import Wire
from tests.listeners import receiver
from tests.servers import Server


@pytest.fixture(autouse=True)
def _settings(settings: Any, events_settings: dict[str, Any]) -> None:
    settings.REDIS_EVENTS = events_settings


def note(event: Any) -> None: ...


@pytest.fixture
def own() -> Card:
    return heartbeat.card([receiver(note, types=("a.b", "c.*"), group="search", using="other")], version="1.2")


def key(id: str) -> str:
    return conf.redis_name(f"redis-events:listeners:{id}")


def test_a_card_arrives_whole(wire: Wire, own: Card) -> None:
    heartbeat.beat(wire, own)
    assert heartbeat.cards(wire) == [own]
    announced = own.receivers[0]
    assert (announced.name, announced.channel, announced.types) == ("app.note", "orders", ("a.b", "c.*"))
    assert (announced.group, announced.using, own.service, own.pid) == ("search", "other", "shop", os.getpid())


def test_a_heartbeat_lasts_six_seconds_and_each_renews_it(wire: Wire, own: Card, client: redis.Redis) -> None:
    heartbeat.beat(wire, own)
    client.pexpire(key(own.id), 500)
    heartbeat.beat(wire, own)
    assert (ALIVE - 1) * 1000 < client.pttl(key(own.id)) <= ALIVE * 1000 == 6000


def test_only_those_with_a_heartbeat_are_alive(wire: Wire, own: Card) -> None:
    heartbeat.beat(wire, own)
    assert heartbeat.alive(wire, [own.id, "gone:1:x"]) == {own.id}
    assert heartbeat.alive(wire, []) == set()
    heartbeat.retire(wire, own)
    assert heartbeat.alive(wire, [own.id]) == set()
    assert heartbeat.cards(wire) == []


def test_one_that_cannot_be_asked_about_counts_as_alive(server: Server, own: Card) -> None:
    """A refusal is no sign of death: nobody's work is taken for it."""
    with server.client() as client:
        client.acl_setuser("deaf", enabled=True, nopass=True, commands=["+@all", "-exists"], keys=["*"])
    wire = Wire(conf.LOCATION.replace("redis://", "redis://deaf:x@"), timeout=1.0)
    assert heartbeat.alive(wire, ["somebody"]) == {"somebody"}
    wire.close()
    with server.client() as client:
        client.acl_deluser("deaf")


def test_one_that_died_without_a_word_is_forgotten(wire: Wire, own: Card, client: redis.Redis) -> None:
    heartbeat.beat(wire, own)
    client.delete(key(own.id))
    assert heartbeat.cards(wire) == []
    client.zadd(conf.redis_name("redis-events:listeners"), {own.id: int(time.time()) - 7_200})
    heartbeat.cards(wire)
    assert client.zcard(conf.redis_name("redis-events:listeners")) == 0


def test_a_card_nobody_can_read_hides_no_other(wire: Wire, own: Card, client: redis.Redis) -> None:
    heartbeat.beat(wire, own)
    for name, junk in (("a", "{"), ("b", "[]"), ("c", b"\xff"), ("d", '{"id":"d"}')):
        client.set(key(name), junk)
        client.zadd(conf.redis_name("redis-events:listeners"), {name: int(time.time())})
    client.zadd(conf.redis_name("redis-events:listeners"), {b"\xff\xfe": int(time.time())})
    assert heartbeat.cards(wire) == [own]


def test_another_type_at_the_list_is_nobody(wire: Wire, own: Card, client: redis.Redis) -> None:
    client.set(conf.redis_name("redis-events:listeners"), "x")
    assert heartbeat.cards(wire) == []
    heartbeat.beat(wire, own)  # its own key still says that it is alive
    assert heartbeat.alive(wire, [own.id]) == {own.id}


def test_a_server_out_of_memory_lets_the_living_live_on_and_tells_a_new_one(own: Card) -> None:
    with Server() as full, full.client() as client:
        wire = Wire(full.url, timeout=1.0)
        heartbeat.beat(wire, own)
        client.config_set("maxmemory", 1)
        client.pexpire(key(own.id), 500)
        heartbeat.beat(wire, own)
        assert client.pttl(key(own.id)) > 3_000
        client.delete(key(own.id))
        with pytest.raises(Refused, match="OOM"):
            heartbeat.beat(wire, own)
        wire.close()


def test_a_forked_process_is_somebody_else() -> None:
    read, write = os.pipe()
    mine = heartbeat.own_id()
    if os.fork() == 0:
        os.write(write, heartbeat.own_id().encode())
        os._exit(0)
    os.wait()
    theirs = os.read(read, 200).decode()
    os.close(read)
    os.close(write)
    assert theirs != mine == heartbeat.own_id()
    assert int(mine.split(":")[1]) == os.getpid() != int(theirs.split(":")[1])


def test_a_card_of_another_release_is_read(wire: Wire, own: Card, client: redis.Redis) -> None:
    heartbeat.beat(wire, own)
    facts = msgspec.to_builtins(own)
    older = {name: value for name, value in facts.items() if name not in ("in_flight", "memory")}
    client.set(key(own.id), msgspec.json.encode(older))
    assert heartbeat.cards(wire) == [own]
    client.set(key(own.id), msgspec.json.encode({**facts, "memory": 5, "mood": {"good": True}}))
    (newer,) = heartbeat.cards(wire)
    assert (newer.memory, newer.in_flight, newer.receivers) == (5, None, own.receivers)


def test_what_changes_is_fresh_and_the_rest_stays(own: Card) -> None:
    now = heartbeat.as_it_is_now(own, in_flight=3)
    assert (now.in_flight, now.started, now.receivers) == (3, own.started, own.receivers)
    if Path("/proc/self/statm").exists():
        assert now.memory
        assert 5_000_000 < now.memory < 2**33
    else:
        assert now.memory is None


def test_where_the_system_does_not_say_memory_is_unknown(own: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_MEMORY", Path("/no/such/file"))
    assert heartbeat.as_it_is_now(own, in_flight=0).memory is None


def test_a_listener_has_a_minute_to_see_that_it_is_asked_to_stop(wire: Wire, own: Card, client: redis.Redis) -> None:
    assert wire.call([heartbeat.asked_to_stop(own.id)]) == [None]
    wire.call([heartbeat.stop(own.id, who="ann")])
    assert wire.call([heartbeat.asked_to_stop(own.id), heartbeat.asked_to_stop("another")]) == [b"ann", None]
    assert client.ttl(conf.redis_name(f"redis-events:stop:{own.id}")) == pytest.approx(60, abs=2)


def test_what_goes_along_is_heard_before_a_refusal_is_raised(own: Card) -> None:
    heard: list[Any] = []
    with Server() as full, full.client() as client:
        client.config_set("maxmemory", 1)
        wire = Wire(full.url, timeout=1.0)
        with pytest.raises(Refused, match="OOM"):
            heartbeat.beat(wire, own, also=[("PING",), ("ECHO", "x")], hear=heard.extend)
        wire.close()
    assert heard == [b"PONG", b"x"]
