"""The relay: what nobody could send at once is sent later, by one of any number of relays."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from django.db import connections, transaction

from redis_events import outbox, posting, publish
from redis_events.healing import Healer
from redis_events.models import OutboxEvent
from redis_events.relaying import Relay
from tests.processes import Project
from tests.proxy import Proxy
from tests.servers import Server, wait_for

CHANNEL = "shop.orders"
RECEIVER = """
from redis_events import receives

@receives("shop.orders")
def receiver(event):
    pass
"""


@pytest.fixture(params=["sqlite", "postgres"])
def alias(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("real_transactions")
    return request.getfixturevalue("postgres_alias") if request.param == "postgres" else "default"


@pytest.fixture
def outboxed(settings: Any, events_settings: dict[str, Any]) -> dict[str, Any]:
    settings.REDIS_EVENTS = {
        **events_settings,
        "CHANNELS": {"shop.*": {"OUTBOX": True}},
        "POLL": 0.2,
        "RECONNECT_MAX": 0.2,
    }
    return settings.REDIS_EVENTS


@pytest.fixture
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sends right after a commit, and no row is too young for a relay."""
    monkeypatch.setattr(posting.Poster, "send", lambda self, batch: None)
    monkeypatch.setattr(outbox, "HEAD_START", -60.0)


@contextmanager
def relaying(*aliases: str, count: int = 1, **options: Any) -> Iterator[list[Relay]]:
    """Some relays, each in a thread."""
    relays = [Relay(aliases, **options) for _ in range(count)]
    threads = [threading.Thread(target=relay.run) for relay in relays]
    for thread in threads:
        thread.start()
    try:
        yield relays
    finally:
        for relay, thread in zip(relays, threads, strict=True):
            relay.stop()
            thread.join(10)
            assert not thread.is_alive()


def fill(alias: str, count: int, channel: str = CHANNEL) -> None:
    with transaction.atomic(using=alias):
        for number in range(count):
            publish(channel, number, type="shop.order.noted", key=number, using=alias)


def unsent_rows(alias: str) -> int:
    return OutboxEvent.objects.using(alias).filter(sent_ms=None).count()


def keys(server: Server, prefix: str, channel: str = CHANNEL) -> Counter[int]:
    with server.client() as client:
        return Counter(json.loads(fields[b"event"])["data"] for _, fields in client.xrange(f"{prefix}:{channel}"))


# ------------------------------------------------------------------ in threads


def test_a_relay_sends_what_waits_and_notes_where_redis_has_it(
    alias: str, outboxed: Any, unsent: None, server: Server, prefix: str
) -> None:
    fill(alias, 1_200)
    with relaying(alias):
        wait_for(lambda: not unsent_rows(alias), timeout=20)
    assert keys(server, prefix) == Counter(range(1_200))
    with server.client() as client:
        ids = [id.decode() for id, _ in client.xrange(f"{prefix}:{CHANNEL}")]
    noted = OutboxEvent.objects.using(alias).order_by("id").values_list("sent_ms", "sent_seq")
    assert [f"{ms}-{seq}" for ms, seq in noted] == ids


def test_behind_an_entry_id_of_others_that_no_column_holds_each_event_is_sent_once(
    alias: str, outboxed: Any, unsent: None, server: Server, prefix: str
) -> None:
    with server.client() as client:
        client.xadd(f"{prefix}:{CHANNEL}", {"event": '{"data": "theirs"}'}, id=f"{2**63 + 5}-0")
    fill(alias, 3)
    with relaying(alias, healers=[Healer(alias)]):
        wait_for(lambda: not unsent_rows(alias))
    with relaying(alias, healers=[Healer(alias)]):  # its healer asks where all of them are
        fill(alias, 1)
        wait_for(lambda: not unsent_rows(alias))
    assert keys(server, prefix) == Counter(["theirs", 0, 0, 1, 2])


def test_two_relays_and_a_sender_at_once_send_each_row_once(
    alias: str, outboxed: Any, server: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HEAD_START", -60.0)  # the relays leave nothing to the sender
    with relaying(alias, count=2):
        for number in range(200):
            publish(CHANNEL, number, type="shop.order.noted", using=alias)
        wait_for(lambda: not unsent_rows(alias), timeout=20)
    assert keys(server, prefix) == Counter(range(200))


def test_two_relays_share_a_backlog(alias: str, outboxed: Any, unsent: None, server: Server, prefix: str) -> None:
    fill(alias, 3_000)
    with relaying(alias, count=2) as relays:
        wait_for(lambda: not unsent_rows(alias), timeout=20)
    assert keys(server, prefix) == Counter(range(3_000))
    assert sum(relay.relayed for relay in relays) == 3_000


def test_a_commit_wakes_the_relay_through_redis(
    alias: str, outboxed: Any, unsent: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_EVENTS = {**outboxed, "POLL": 30}
    with relaying(alias):
        fill(alias, 1)
        poster = posting.Poster(alias, posting.Breaker())
        wait_for(lambda: poster._wake_relays() or not unsent_rows(alias), timeout=5)


@pytest.mark.parametrize("spoil", [("SET", "{}", "no stream"), ("XADD", "{}", f"{2**64 - 1}-{2**64 - 1}", "data", "1")])
def test_a_refused_channel_keeps_its_rows_and_the_others_go_on(
    alias: str,
    outboxed: Any,
    unsent: None,
    server: Server,
    prefix: str,
    spoil: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with server.client() as client:
        client.execute_command(*(each.format(f"{prefix}:shop.bad") for each in spoil))
        fill(alias, 600, "shop.bad")
        fill(alias, 3)
        with relaying(alias):
            wait_for(lambda: keys(server, prefix) == Counter(range(3)))
            wait_for(lambda: unsent_rows(alias) == 600)
            client.delete(f"{prefix}:shop.bad")
            wait_for(lambda: not unsent_rows(alias), timeout=10)
    assert sum("shop.bad wait in the outbox" in message for message in caplog.messages) == 1
    assert sum("shop.bad leave the outbox again" in message for message in caplog.messages) == 1


def test_nothing_is_sent_above_max_length(
    alias: str, outboxed: Any, unsent: None, settings: Any, server: Server, prefix: str
) -> None:
    settings.REDIS_EVENTS = {**outboxed, "CHANNELS": {"shop.*": {"OUTBOX": True, "MAX_LENGTH": 10}}}
    fill(alias, 25)
    fill(alias, 3, "shop.small")
    with relaying(alias), server.client() as client:
        wait_for(lambda: keys(server, prefix, "shop.small") == Counter(range(3)))
        assert keys(server, prefix) == Counter(range(10))
        client.xtrim(f"{prefix}:{CHANNEL}", maxlen=0, approximate=False)
        wait_for(lambda: unsent_rows(alias) == 5)


def test_a_relay_outlives_an_outage_and_says_so_once(
    alias: str, outboxed: Any, unsent: None, settings: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Server() as own:
        settings.REDIS_EVENTS = {**outboxed, "LOCATION": own.url}
        with relaying(alias):
            own.kill()
            fill(alias, 20)
            wait_for(lambda: any("cannot relay" in message for message in caplog.messages))
            own.start()
            wait_for(lambda: not unsent_rows(alias), timeout=10)
        assert keys(own, prefix) == Counter(range(20))
    assert sum("cannot relay" in message for message in caplog.messages) == 1
    wait_for(lambda: sum("relaying again" in message for message in caplog.messages) == 1)


def test_a_lost_reply_costs_at_most_one_more_entry_of_each(
    alias: str, outboxed: Any, unsent: None, settings: Any, server: Server, prefix: str
) -> None:
    fill(alias, 20)
    with Proxy(server) as proxy:
        settings.REDIS_EVENTS = {**outboxed, "LOCATION": proxy.url}
        relay = Relay([alias])
        relay._transport.add([])  # connected, so that the next reply is the one of an XADD
        proxy.drop_reply(5)
        relay._round()
        assert unsent_rows(alias) == 20
        relay._round()
        relay.close()
    assert unsent_rows(alias) == 0
    assert keys(server, prefix) == Counter(dict.fromkeys(range(20), 2))


def test_healing_runs_at_connect_and_once_every_poll(alias: str, outboxed: Any, unsent: None) -> None:
    class Noting:
        polls: ClassVar[list[float]] = []

        def poll(self) -> None:
            self.polls.append(time.monotonic())

        def close(self) -> None:
            self.polls.append(0.0)

    with relaying(alias, healers=[Noting()]):
        wait_for(lambda: len(Noting.polls) == 4)
    *polls, closed = Noting.polls
    assert closed == 0.0
    gaps = [later - earlier for earlier, later in pairwise(polls)]
    assert min(gaps) > 0.15


def test_a_database_that_is_away_does_not_stop_the_other(
    outboxed: Any, real_transactions: None, unsent: None, caplog: pytest.LogCaptureFixture
) -> None:
    with connections["other"].cursor() as cursor:
        cursor.execute("ALTER TABLE redis_events_outboxevent RENAME TO gone")
    try:
        fill("default", 3)
        with relaying("other", "default"):
            wait_for(lambda: not unsent_rows("default"))
    finally:
        with connections["other"].cursor() as cursor:
            cursor.execute("ALTER TABLE gone RENAME TO redis_events_outboxevent")
    assert sum("cannot read the outbox of 'other'" in message for message in caplog.messages) == 1


def test_a_frozen_server_keeps_nobody_from_writing_to_sqlite(
    outboxed: Any, real_transactions: None, unsent: None, settings: Any
) -> None:
    with Server() as own:
        settings.REDIS_EVENTS = {**outboxed, "LOCATION": own.url, "POLL": 0.05}
        with relaying("default") as (relay,):
            fill("default", 1)
            wait_for(lambda: not unsent_rows("default"))
            own.freeze()
            longest = 0.0
            for _ in range(150):
                began = time.monotonic()
                fill("default", 1)
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.01)
            assert relay._attempt > 0
            own.thaw()
    assert longest < 0.6  # one exchange that began before the freeze may still hold the lock, 0.9 s at most


def test_who_may_not_subscribe_polls(
    alias: str, outboxed: Any, unsent: None, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Server() as own, own.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">pw", "~*", "resetchannels", "+@all")
        settings.REDIS_EVENTS = {**outboxed, "LOCATION": own.url.replace("redis://", "redis://shop:pw@")}
        with relaying(alias):
            fill(alias, 3)
            wait_for(lambda: not unsent_rows(alias))
    assert sum("commits cannot wake the relay" in message for message in caplog.messages) == 1


def test_a_relay_that_gets_no_answer_asks_for_half_as_many(
    alias: str, outboxed: Any, unsent: None, settings: Any, server: Server
) -> None:
    fill(alias, 3)
    with Proxy(server) as proxy:
        settings.REDIS_EVENTS = {**outboxed, "LOCATION": proxy.url}
        relay = Relay([alias])
        relay.connect()
        proxy.drop_reply(2 if alias == "default" else 1)  # on SQLite a PING goes first
        relay._round()
        assert relay._limit < 500
        relay._round()
        relay.close()
    assert unsent_rows(alias) == 0


def test_replicas_have_no_outbox(outboxed: Any, real_transactions: None) -> None:
    assert set(outbox.aliases()) == {"default", "other"}
    test = connections["other"].settings_dict["TEST"]
    test["MIRROR"] = "default"
    try:
        assert outbox.aliases() == ["default"]
    finally:
        test["MIRROR"] = None


# ------------------------------------------------------------------ in processes


PUBLISH = """
from django.db import transaction
from redis_events import posting, publish
posting.Poster.send = lambda self, batch: None
for number in range({count}):
    publish("shop.orders", number, type="shop.order.noted", key=number)
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.settings = {"CHANNELS": {CHANNEL: {"OUTBOX": True}}, "POLL": 0.2}
    project.write("receivers.py", RECEIVER)
    return project


def left_in(project: Project) -> int:
    code = "from redis_events.models import OutboxEvent as O; print('left', O.objects.filter(sent_ms=None).count())"
    return int(project.shell(code).rpartition("left")[2])


def test_relay_events_sends_what_waits_and_ends_with_0(shop: Project, server: Server, prefix: str) -> None:
    shop.shell(PUBLISH.format(count=30))
    process = shop.manage("relay_events")
    process.wait_for_line(r"Relaying the outbox of default\. Ctrl\+C to stop\.")
    wait_for(lambda: keys(server, prefix) == Counter(range(30)))
    process.terminate()
    assert process.wait(10) == 0
    assert process.find("30 relayed")
    assert left_in(shop) == 0


def test_listen_events_relays_unless_told_not_to(shop: Project, server: Server, prefix: str) -> None:
    without = shop.manage("listen_events", "--no-relay")
    without.wait_for_line("Listening on")
    shop.shell(PUBLISH.format(count=3) + "\nimport time; time.sleep(2.5)")  # SQLite: older than the sender's head start
    assert keys(server, prefix) == Counter()
    without.terminate()
    assert without.wait(10) == 0
    relaying = shop.manage("listen_events")
    wait_for(lambda: keys(server, prefix) == Counter(range(3)), timeout=15)
    relaying.terminate()
    assert relaying.wait(10) == 0


def test_listen_events_drain_empties_the_outbox_first(shop: Project, server: Server, prefix: str) -> None:
    shop.shell(PUBLISH.format(count=3) + "\nimport time; time.sleep(2.5)")
    process = shop.manage("listen_events", "--drain")
    assert process.wait(20) == 0
    assert process.find("stopped. 3 done")


BACKLOG = """
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) INSERT INTO"
        " redis_events_outboxevent (channel, event_id, type, key, body, created_at, discarded)"
        " SELECT 'shop.orders', i, 't', '', x'7b7d', '2026-01-01 00:00:00', 0 FROM n"
    )
"""


def test_a_drain_that_is_asked_to_stop_leaves_the_rest_of_the_outbox(
    shop: Project, server: Server, prefix: str
) -> None:
    shop.shell(BACKLOG.format(count=200_000))
    process = shop.manage("listen_events", "--drain")
    with server.client() as client:
        wait_for(lambda: client.xlen(f"{prefix}:{CHANNEL}"), timeout=20)
        process.terminate()
        assert process.wait(10) == 0
        assert client.xlen(f"{prefix}:{CHANNEL}") < 200_000


def test_rows_left_from_a_channel_that_had_an_outbox_are_relayed(shop: Project, server: Server, prefix: str) -> None:
    shop.shell(PUBLISH.format(count=3) + "\nimport time; time.sleep(2.5)")
    shop.settings = {"CHANNELS": {CHANNEL: {"TRANSPORT": "stream"}}}
    process = shop.manage("relay_events")
    wait_for(lambda: keys(server, prefix) == Counter(range(3)), timeout=15)
    process.kill()


def test_relay_events_gives_up_with_4_when_there_is_no_server(shop: Project) -> None:
    process = shop.manage("relay_events", TEST_LOCATION="redis://127.0.0.1:1/0")
    assert process.wait(15) == 4
    assert process.find("Cannot start: redis://127.0.0.1:1/0")


def test_relay_events_without_tables_ends_with_5(make_project: Callable[..., Project]) -> None:
    process = make_project("bare").manage("relay_events")
    assert process.wait(15) == 5
    assert process.find("migrate")


def test_relay_events_in_memory_has_nothing_to_do(shop: Project) -> None:
    process = shop.manage("relay_events", TEST_LOCATION="memory://")
    assert process.wait(15) == 3
    assert process.find("Nothing to relay")


def test_two_relays_killed_again_and_again_lose_nothing(shop: Project, server: Server, prefix: str) -> None:
    shop.shell(PUBLISH.format(count=300) + "\nimport time; time.sleep(2.1)")
    for _ in range(3):
        pair = [shop.manage("relay_events") for _ in range(2)]
        for process in pair:
            process.wait_for_line("Relaying")
        for process in pair:
            process.kill()
    last = shop.manage("relay_events")
    last.wait_for_line("Relaying")
    wait_for(lambda: keys(server, prefix).keys() == set(range(300)), timeout=15)
    last.terminate()
    assert last.wait(10) == 0
    assert left_in(shop) == 0
