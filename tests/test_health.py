"""What is wrong with a server is found before events are lost to it, and what nobody says stays unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from redis_events import receives
from redis_events.announcements import commands as announce
from redis_events.conf import conf
from redis_events.heartbeat import Announced, Card, beat
from redis_events.inspection import Server as Look
from redis_events.inspection import checks
from redis_events.inspection.facts import Check
from redis_events.inspection.health import worst
from redis_events.inspection.rights import rights
from redis_events.transports.client import Wire
from tests.servers import Server, black_hole, free_port, needs

pytestmark = pytest.mark.usefixtures("declared", "real_transactions")


@pytest.fixture
def shop(events_settings: dict[str, Any], settings: Any) -> dict[str, Any]:
    """A project with a stream and a pub/sub channel, one receiver each."""
    settings.REDIS_EVENTS = {
        **events_settings,
        "CHANNELS": {"orders": {"TRANSPORT": "stream"}, "live.*": {"TRANSPORT": "pubsub"}},
    }
    receives("orders", name="app.hear")(hear)
    receives("live.*", name="app.see")(hear)
    return dict(settings.REDIS_EVENTS)


def hear(event: Any) -> None: ...


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server whose settings and users a test may change."""
    with Server() as server:
        yield server


def at(settings: Any, location: str) -> dict[str, Check]:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": location}
    return found()


def found() -> dict[str, Check]:
    with Look(patience=5.0) as look:
        return {each.id: each for each in checks(server=look)}


def levels(of: dict[str, Check]) -> dict[str, str]:
    return {id: each.level for id, each in of.items()}


def test_a_server_that_keeps_what_it_is_given_passes_every_check(shop: dict[str, Any], settings: Any) -> None:
    with Server(aof=True) as server:
        announce_receivers(server.url, settings, "app.hear", "app.see")
        of = found()
    assert {id: each for id, each in of.items() if each.level != "ok"} == {}
    assert "answers in" in of["connection"].detail
    assert not any(each.advice for each in of.values())
    assert worst(list(of.values())) == "ok"


def announce_receivers(location: str, settings: Any, *names: str, service: str = "shop", id: str = "one:1:a") -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": location}
    wire = Wire(location, timeout=2.0)
    announced = tuple(Announced(name=name, channel="orders", types=None, group="") for name in names)
    card = Card(id=id, service=service, host="one", pid=1, version="1", started=1.0, receivers=announced)
    beat(wire, card)
    wire.call(announce())
    wire.close()


# ------------------------------------------------------------------ a server in trouble


def test_a_refused_connection_is_an_error_and_all_that_only_a_server_knows_is_unknown(
    shop: dict[str, Any], settings: Any
) -> None:
    of = at(settings, f"redis://127.0.0.1:{free_port()}/0")
    assert of["connection"].level == "error"
    assert "connection refused" in of["connection"].detail
    assert of["connection"].advice
    others = {id: level for id, level in levels(of).items() if id not in ("connection", "tables")}
    assert set(others.values()) == {"unknown"}


def test_a_silent_server_is_an_error_within_its_patience(shop: dict[str, Any], settings: Any) -> None:
    with black_hole() as port:
        settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{port}/0"}
        with Look(patience=0.3) as look:
            of = {each.id: each for each in checks(server=look)}
    assert "no answer in time" in of["connection"].detail


def test_a_wrong_password_is_an_error_that_does_not_show_it(shop: dict[str, Any], settings: Any) -> None:
    with Server(password="right") as server:
        of = at(settings, f"redis://:wrong-one@127.0.0.1:{server.port}/0")
    assert of["connection"].level == "error"
    assert not any("wrong-one" in each.detail + each.advice for each in of.values())
    assert ":***@" in of["connection"].detail


def test_what_stays_in_the_process_has_no_server_to_check(shop: dict[str, Any], settings: Any) -> None:
    assert levels(at(settings, "memory://")) == {"connection": "warning", "tables": "ok"}


# ------------------------------------------------------------------ how it is set up


@pytest.mark.parametrize(
    ("policy", "level"), [("noeviction", "ok"), ("volatile-lru", "warning"), ("allkeys-lru", "error")]
)
def test_a_server_that_throws_keys_away_is_told_of(
    shop: dict[str, Any], settings: Any, own_server: Server, policy: str, level: str
) -> None:
    own_server.client().config_set("maxmemory-policy", policy)
    check = at(settings, own_server.url)["eviction"]
    assert (check.level, policy in check.detail, bool(check.advice)) == (level, True, level != "ok")


def test_a_server_that_forgets_is_a_warning_that_names_what_is_lost(
    shop: dict[str, Any], settings: Any, own_server: Server
) -> None:
    check = at(settings, own_server.url)["persistence"]
    assert check.level == "warning"
    assert "a restart loses every stream" in check.detail
    assert "OUTBOX" in check.advice
    own_server.client().config_set("save", "3600 1")
    assert "snapshots only" in at(settings, own_server.url)["persistence"].detail


def test_pubsub_alone_asks_for_no_persistence(events_settings: dict[str, Any], settings: Any) -> None:
    assert found()["persistence"].level == "ok"


def test_a_full_server_takes_no_writes(shop: dict[str, Any], settings: Any, own_server: Server) -> None:
    own_server.client().config_set("maxmemory", "100kb")
    check = at(settings, own_server.url)["writes"]
    assert check.level == "error"
    assert "maxmemory" in check.advice


def test_a_replica_takes_no_writes(shop: dict[str, Any], settings: Any, own_server: Server) -> None:
    own_server.client().execute_command("REPLICAOF", "127.0.0.1", free_port())
    assert at(settings, own_server.url)["writes"].level == "error"


def test_a_clock_that_is_off_is_told_of(shop: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from redis_events.inspection import health

    assert found()["clocks"].level == "ok"
    for off, level in ((5.0, "warning"), (-60.0, "error")):
        real = __import__("time").time
        monkeypatch.setattr(health.time, "time", lambda off=off, real=real: real() + off)
        with Look() as look:
            check = health._clock(look)
        monkeypatch.undo()
        assert check.level == level
        assert "give or take" in check.detail


# ------------------------------------------------------------------ rights


def limited(server: Server, *rules: str) -> str:
    """A location whose user may do what these rules leave."""
    server.client().execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">pw", "~*", "&*", "+@all", *rules)
    return f"redis://narrow:pw@127.0.0.1:{server.port}/0"


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("-xadd", "XADD"),
        ("-xreadgroup", "XREADGROUP"),
        ("-xack", "XACK"),
        ("-xclaim", "XCLAIM"),
        ("-xinfo", "XINFO STREAM"),
        ("-eval", "EVAL"),
        ("-psubscribe", "PSUBSCRIBE"),
        ("-publish", "PUBLISH"),
        ("-zadd", "ZADD"),
        ("-hset", "HSET"),
    ],
)
def test_a_right_this_project_needs_and_lacks_is_named(
    shop: dict[str, Any], settings: Any, own_server: Server, rule: str, named: str
) -> None:
    check = at(settings, limited(own_server, rule))["rights"]
    assert check.level == "error"
    assert f"narrow may not: {named} {conf.PREFIX}:" in check.detail.replace("XINFO STREAM", named)


def test_keys_and_channels_our_user_may_not_touch_are_named(
    shop: dict[str, Any], settings: Any, own_server: Server
) -> None:
    check = at(settings, limited(own_server, "resetkeys", f"~{conf.PREFIX}:redis-events:*"))["rights"]
    assert f"XADD {conf.PREFIX}:orders" in check.detail
    check = at(settings, limited(own_server, "resetkeys", f"~{conf.PREFIX}:[^r]*", "~*:redis-events:[^p]*"))["rights"]
    assert (check.level, check.detail) == ("error", f"user narrow may not: HGETALL {conf.PREFIX}:redis-events:paused")
    check = at(settings, limited(own_server, "resetchannels"))["rights"]
    assert f"PSUBSCRIBE {conf.PREFIX}:live.*" in check.detail


def test_what_only_looking_needs_is_a_warning_and_its_answers_are_unknown(
    shop: dict[str, Any], settings: Any, own_server: Server
) -> None:
    of = at(settings, limited(own_server, "-info"))
    assert of["rights"].level == "warning"
    assert "INFO" in of["rights"].detail
    assert {of[id].level for id in ("version", "writes", "eviction", "persistence")} == {"unknown"}
    check = at(settings, limited(own_server, "-hincrby"))["rights"]
    assert (check.level, "redis-events:stats" in check.detail) == ("warning", True)


def test_without_the_right_to_ask_only_what_was_tried_is_known(
    shop: dict[str, Any], settings: Any, own_server: Server
) -> None:
    check = at(settings, limited(own_server, "-acl"))["rights"]
    assert check.level == "unknown"
    assert "what it may write is unknown" in check.detail
    check = at(settings, limited(own_server, "-acl", "-xinfo"))["rights"]
    assert check.level == "error"
    assert "XINFO" in check.detail


def test_a_server_without_dry_runs_is_tried_with_reads(shop: dict[str, Any], settings: Any) -> None:
    with Server(binary=needs("redis7"), extra=("--rename-command", "ACL", "")) as server:
        assert at(settings, server.url)["rights"].level == "unknown"


def test_asking_changes_nothing(shop: dict[str, Any], settings: Any, own_server: Server) -> None:
    for location in (own_server.url, limited(own_server, "-acl")):
        at(settings, location)
    assert own_server.client().keys("*") == []


def test_a_project_that_only_publishes_is_not_asked_for_a_listeners_rights(
    events_settings: dict[str, Any], settings: Any, own_server: Server
) -> None:
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    assert at(settings, limited(own_server, "-xreadgroup", "-zadd"))["rights"].level == "ok"
    assert at(settings, limited(own_server, "-xadd"))["rights"].level == "error"


def test_none_is_what_an_unreachable_server_says_of_rights(shop: dict[str, Any], settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    with Look() as look:
        assert rights(look, []) is None


# ------------------------------------------------------------------ the others


def test_a_channel_that_cannot_be_read_is_an_error_with_the_servers_answer(
    shop: dict[str, Any], server: Server, prefix: str
) -> None:
    assert found()["channels"].level == "ok"
    server.client().set(f"{prefix}:orders", "x")
    check = found()["channels"]
    assert (check.level, check.detail.partition(" Op")[0]) == ("error", "orders: WRONGTYPE")


def test_a_channel_our_user_may_not_see_is_unknown(shop: dict[str, Any], settings: Any, own_server: Server) -> None:
    check = at(settings, limited(own_server, "-xinfo"))["channels"]
    assert check.level == "unknown"
    assert "NOPERM" in check.detail


def test_another_services_contradiction_is_an_error_that_names_both(
    shop: dict[str, Any], settings: Any, server: Server, prefix: str
) -> None:
    said = {"service": "billing", "channel": "orders", "transport": "pubsub", "retention": 1.0}
    server.client().hset(f"{prefix}:redis-events:announcements", "billing orders", json.dumps(said))
    check = found()["announcements"]
    assert check.level == "error"
    assert "billing: orders pubsub, orders stream" in check.detail


def test_another_project_of_our_name_is_a_warning_and_another_release_is_none(
    shop: dict[str, Any], settings: Any, redis_location: str
) -> None:
    announce_receivers(redis_location, settings, "app.hear", "app.new", id="release:1:a")
    announce_receivers(redis_location, settings, "else.where", service="billing", id="billing:1:a")
    assert found()["name"].level == "ok"
    announce_receivers(redis_location, settings, "else.where", id="stranger:1:a")
    check = found()["name"]
    assert check.level == "warning"
    assert "stranger:1:a" in check.detail
    assert "release:1:a" not in check.detail


def test_a_receiver_nobody_runs_is_a_warning(shop: dict[str, Any], settings: Any, redis_location: str) -> None:
    announce_receivers(redis_location, settings, "app.hear")
    check = found()["receivers"]
    assert check.level == "warning"
    assert "app.see" in check.detail
    assert "app.hear" not in check.detail


def test_missing_tables_are_an_error(shop: dict[str, Any], settings: Any) -> None:
    from django.db import connections

    assert found()["tables"].level == "ok"
    with connections["default"].cursor() as cursor:
        cursor.execute("ALTER TABLE redis_events_helddelivery RENAME TO away")
    try:
        check = found()["tables"]
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO redis_events_helddelivery")
    assert check.level == "error"
    assert "migrate" in check.advice
