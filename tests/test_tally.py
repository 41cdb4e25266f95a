"""Statistics: what is counted arrives whole, costs no more than it may, and reads as what it was."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from redis_events import tally
from redis_events.conf import conf
from redis_events.exceptions import Reject
from redis_events.registry import Receiver
from redis_events.retry import DEAD, DONE, Outcome, Verdict
from redis_events.runner import Result
from redis_events.tally import MinuteCounts, RunCounts, Tally
from redis_events.transports.base import Delivery
from redis_events.transports.client import ErrorReply, Wire
from tests.listeners import delivery, document, receiver, run
from tests.processes import Project, listening
from tests.servers import Server, wait_for

AT = 1_700_000_000.0
MINUTE, HOUR = int(AT // 60), int(AT // 3600)


@pytest.fixture(autouse=True)
def _settings(settings: Any, events_settings: dict[str, Any]) -> None:
    settings.REDIS_EVENTS = events_settings


def hear(event: Any) -> None: ...


HEAR, NOTE = receiver(hear), receiver(hear, name="app.note")


def done(of: Receiver = HEAR, *, seconds: float = 0.01) -> Result:
    return Result(run(of, document()), DONE, None, seconds)


def ended(outcome: Verdict, of: Receiver = HEAR) -> Result:
    return Result(run(of, document()), outcome, Reject("no"), 0.01)


def deliveries(*channels: str) -> list[Delivery]:
    return [delivery(b"", channel) for channel in channels]


def note(own: Tally, *results: Result, settled: Sequence[Delivery] = ()) -> None:
    own.note(results, failed=[each for each in results if each.error], settled=settled)


def tell(own: Tally, wire: Wire, *, at: float = AT) -> str:
    return own.heard(wire.call(own.commands(at=at)))


def minute(wire: Wire, number: int = MINUTE) -> MinuteCounts:
    (found,) = tally.read_minutes([number], answers=wire.call(tally.asked_minutes([number])))
    assert found
    return found


def runs(wire: Wire, *numbers: int) -> dict[tuple[str, str], RunCounts]:
    found = tally.read_hours(wire.call(tally.asked_hours(numbers or [HOUR])))
    assert found is not None
    return found


# ------------------------------------------------------------------ counting and telling


def test_what_was_counted_is_read_as_what_it_was(wire: Wire) -> None:
    own = Tally()
    settled = deliveries("orders", "carts", "orders")
    note(own, done(), done(NOTE), ended(DEAD), ended(Verdict(Outcome.RETRY, 1.0), NOTE), settled=settled)
    assert tell(own, wire) == ""
    assert minute(wire) == MinuteCounts(
        start=MINUTE * 60.0, settled={"orders": 2, "carts": 1}, added={}, done=2, retry=1, dead=1
    )
    found = runs(wire)
    assert found.keys() == {("shop", "app.hear"), ("shop", "app.note")}
    assert [(each.done, each.retry, each.dead, each.last) for each in found.values()] == [
        (1, 0, 1, AT),
        (1, 1, 0, AT),
    ]


def test_each_group_settles_for_itself(wire: Wire) -> None:
    own = Tally()
    settled = [Delivery(channel=channel, body=b"", group=group) for channel, group in (
        ("orders", "shop"), ("orders", "shop:search"), ("carts", "shop"), ("orders", "shop"),
    )]  # fmt: skip
    note(own, settled=settled)
    note(own, settled=settled[:1])
    note(own, settled=deliveries("orders"))
    tell(own, wire)
    assert minute(wire).settled == {"orders shop": 3, "orders shop:search": 1, "carts shop": 1, "orders": 1}


def test_the_numbers_of_two_listeners_add_up(wire: Wire) -> None:
    one, two = Tally(), Tally()
    for _ in range(3):
        note(one, done(), settled=deliveries("orders"))
        note(two, done(), done(), settled=deliveries("orders", "orders"))
        assert tell(one, wire) == tell(two, wire) == ""
    assert (minute(wire).settled, minute(wire).done) == ({"orders": 9}, 9)
    assert runs(wire)["shop", "app.hear"].done == 9


def test_the_names_of_the_hashes_and_of_their_fields_are_what_other_releases_read(
    wire: Wire, client: redis.Redis
) -> None:
    own = Tally()
    note(own, done(seconds=0.001), settled=deliveries("orders"))
    tell(own, wire)
    assert client.hgetall(conf.redis_name(f"redis-events:stats:{MINUTE}")) == {b"settled orders": b"1", b"done": b"1"}
    bucket = round(math.log(1000) / math.log(1.2))
    assert client.hgetall(conf.redis_name(f"redis-events:stats:hour:{HOUR}")) == {
        b"done shop app.hear": b"1",
        b"last shop app.hear": b"%d" % AT,
        b"ms%d shop app.hear" % bucket: b"1",
    }


def test_a_minute_is_kept_two_hours_and_an_hour_as_long_as_dead_letters(
    wire: Wire, client: redis.Redis, settings: Any
) -> None:
    own = Tally()
    note(own, done())
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "KEEP_DEAD": 1e300}
    tell(own, wire)
    assert client.ttl(conf.redis_name(f"redis-events:stats:{MINUTE}")) == pytest.approx(7_200, abs=2)
    assert client.ttl(conf.redis_name(f"redis-events:stats:hour:{HOUR}")) > 86_400 * 36_000
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "KEEP_DEAD": 3_600}
    note(own, done())
    tell(own, wire)
    assert client.ttl(conf.redis_name(f"redis-events:stats:hour:{HOUR}")) == pytest.approx(3_600, abs=2)


def test_what_was_told_is_told_once(wire: Wire) -> None:
    own = Tally()
    note(own, done(), settled=deliveries("orders"))
    tell(own, wire)
    assert own.commands(at=AT) == []
    assert own.heard([]) == ""


def test_what_got_no_answer_is_told_again_under_its_own_minute(wire: Wire) -> None:
    own = Tally()
    note(own, done(), settled=deliveries("orders"))
    assert own.commands(at=AT)
    note(own, done(), settled=deliveries("orders"))
    tell(own, wire, at=AT + 60)
    assert [minute(wire, MINUTE + n).settled for n in range(2)] == [{"orders": 1}, {"orders": 1}]
    assert runs(wire)["shop", "app.hear"].done == 2


def test_what_a_full_server_refuses_is_told_when_there_is_room() -> None:
    with Server() as full, full.client() as client:
        wire, own = Wire(full.url, timeout=1.0), Tally()
        client.config_set("maxmemory", 1)
        note(own, done(), settled=deliveries("orders"))
        assert tell(own, wire).startswith("OOM")
        client.config_set("maxmemory", 0)
        assert tell(own, wire) == ""
        assert minute(wire).settled == {"orders": 1}
        wire.close()


def test_what_is_forbidden_is_not_kept_for_ever(server: Server) -> None:
    with server.client() as client:
        client.acl_setuser("mute", enabled=True, nopass=True, commands=["+@all", "-hincrby", "-hset"], keys=["*"])
        wire, own = Wire(conf.LOCATION.replace("redis://", "redis://mute:x@"), timeout=1.0), Tally()
        note(own, done(), settled=deliveries("orders"))
        assert tell(own, wire).startswith("NOPERM")
        assert own.commands(at=AT) == []
        wire.close()
        client.acl_deluser("mute")


def test_what_is_kept_while_redis_is_away_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST_UNTOLD", 30)
    own = Tally()
    for number in range(100):
        note(own, settled=deliveries("orders"))
        told = own.commands(at=AT + 60 * number)
    assert len([command for command in told if command[0] == "HINCRBY"]) == 30
    assert told[0][1].endswith(f":{MINUTE + 70}")


def test_thousands_of_receivers_are_told_a_part_with_each_beat_and_all_in_the_end(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once took as long as a third of their events."""
    monkeypatch.setattr(tally, "MOST_TOLD", 50)
    own = Tally()
    many = [receiver(hear, name=f"app.r{number}") for number in range(200)]
    for beat in range(3):
        note(own, *map(done, many), settled=deliveries("orders"))
        asked = own.commands(at=AT + beat)
        assert len([command for command in asked if command[0] in {"HINCRBY", "HSET"}]) <= 50
        own.heard(wire.call(asked))
        assert not own.is_told
    while not own.is_told:
        assert not tell(own, wire)
    found = tally.read_hours(wire.call(tally.asked_hours([HOUR])))
    assert found is not None
    assert {who[1]: counts.done for who, counts in found.items()} == {each.name: 3 for each in many}
    assert (minute(wire).settled, minute(wire).done) == ({"orders": 3}, 600)


def test_channels_anybody_makes_up_are_counted_together(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST_NAMES", 3)
    own = Tally()
    note(own, settled=deliveries(*(f"live.{n}" for n in range(10)), "live.0", "no\nname", "x" * 1000))
    tell(own, wire)
    assert minute(wire).settled == {"live.0": 2, "live.1": 1, "live.2": 1, "*": 9}
    note(own, settled=deliveries("live.9"))
    tell(own, wire, at=AT + 60)
    assert minute(wire, MINUTE + 1).settled == {"live.9": 1}, "each minute has room for others"


def test_runs_that_the_inbox_spared_are_counted_and_not_timed(wire: Wire) -> None:
    own = Tally()
    note(own, done(seconds=0.0))
    tell(own, wire)
    found = runs(wire)["shop", "app.hear"]
    assert (found.done, found.p50) == (1, None)


def test_of_a_large_batch_every_receiver_is_timed_and_weighs_what_it_runs(client: redis.Redis, wire: Wire) -> None:
    """Eight receivers that take turns: every eighth run would always be one of the same."""
    own = Tally()
    receivers = [receiver(hear, name=f"app.r{n}") for n in range(8)]
    for _ in range(8):
        note(own, *(done(each) for _ in range(13) for each in receivers))
    tell(own, wire)
    weights: Counter[bytes] = Counter()
    for name, number in client.hgetall(conf.redis_name(f"redis-events:stats:hour:{HOUR}")).items():
        if name.startswith(b"ms"):
            weights[name.split()[2]] += int(number)
    assert weights == {each.name.encode(): 104 for each in receivers}


@pytest.mark.parametrize("seconds", [1e-6, 3.3e-5, 0.004, 0.25, 7.7, 3_000.0])
def test_percentiles_are_right_within_a_tenth(seconds: float, wire: Wire) -> None:
    own = Tally()
    note(own, *(done(seconds=seconds * (10 if n >= 18 else 1)) for n in range(20)))
    tell(own, wire)
    found = runs(wire)["shop", "app.hear"]
    assert found.p50 == pytest.approx(seconds, rel=0.1)
    assert found.p95 == pytest.approx(10 * seconds, rel=0.1)


# ------------------------------------------------------------------ streams


def test_how_much_a_stream_ever_had_is_told_with_the_next_numbers(wire: Wire, client: redis.Redis) -> None:
    for _ in range(7):
        client.xadd(conf.redis_name("orders"), {"event": "x"}, maxlen=3)
    own = Tally()
    own.watch(["orders", "gone"])
    tell(own, wire)
    tell(own, wire)
    assert minute(wire).added == {"orders": 7}
    assert own.commands(at=AT) == [], "it is asked once for each time it is wanted"


def test_what_stands_in_a_stream_is_not_sent_along(wire: Wire, client: redis.Redis) -> None:
    client.xadd(conf.redis_name("orders"), {"event": b"x" * 2**20})
    own = Tally()
    own.watch(["orders"])
    (command,) = own.commands(at=AT)
    assert wire.call([command]) == [1]


def test_where_scripts_are_forbidden_the_next_look_goes_without(client: redis.Redis) -> None:
    client.xadd(conf.redis_name("orders"), {"event": "x"})
    client.acl_setuser("plain", enabled=True, nopass=True, commands=["+@all", "-eval"], keys=["*"])
    wire, own = Wire(conf.LOCATION.replace("redis://", "redis://plain:x@"), timeout=1.0), Tally()
    for _ in range(2):
        own.watch(["orders"])
        assert tell(own, wire) == ""
    tell(own, wire)
    assert minute(wire).added == {"orders": 1}
    wire.close()
    client.acl_deluser("plain")


def test_redis_before_7_does_not_know_it(wire: Wire) -> None:
    own = Tally()
    for unknown in ([b"length", 3, b"last-generated-id", b"1-0"], None):
        own.watch(["orders"])
        own.commands(at=AT)
        assert own.heard([unknown]) == ""
        assert own.commands(at=AT) == []


# ------------------------------------------------------------------ reading


def test_what_the_server_did_not_say_is_unknown_and_no_zero() -> None:
    refused = ErrorReply("NOPERM no")
    assert tally.read_minutes([1, 2, 3], answers=[None, refused, []]) == [
        None,
        None,
        MinuteCounts(start=180.0, settled={}, added={}, done=0, retry=0, dead=0),
    ]
    assert tally.read_hours([None, refused]) is None
    assert tally.read_hours([None, []]) == {}


def test_what_others_write_there_is_passed_over(wire: Wire, client: redis.Redis) -> None:
    own = Tally()
    note(own, done(), settled=deliveries("orders"))
    tell(own, wire)
    junk: dict[Any, Any] = {b"\xff": "1", "done x": "1", "": "1", "settled ": "1", "retry": "many", "dead": "9" * 5_000}
    client.hset(conf.redis_name(f"redis-events:stats:{MINUTE}"), mapping=junk)
    client.hset(conf.redis_name(f"redis-events:stats:hour:{HOUR}"), mapping={**junk, "msx shop app.hear": "1"})
    assert (minute(wire).settled, minute(wire).done, minute(wire).retry, minute(wire).dead) == ({"orders": 1}, 1, 0, 0)
    assert runs(wire).keys() == {("shop", "app.hear")}


def test_a_receiver_may_be_called_anything_and_a_service_nothing(wire: Wire, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "SERVICE": ""}
    own = Tally()
    note(own, done(receiver(hear, name="send the mail  to café")))
    tell(own, wire)
    assert runs(wire).keys() == {("", "send the mail  to café")}


def test_hours_are_taken_together_and_the_last_run_is_the_latest(wire: Wire) -> None:
    own = Tally()
    for ago in (7_200, 3_600, 0):
        note(own, done())
        tell(own, wire, at=AT - ago)
    found = runs(wire, *tally.last_hours(2, at=AT))["shop", "app.hear"]
    assert (found.done, found.last) == (2, AT)


def test_the_last_minutes_end_with_the_present_one() -> None:
    assert list(tally.last_minutes(3, at=AT)) == [MINUTE - 2, MINUTE - 1, MINUTE]
    assert list(tally.last_hours(1, at=AT)) == [HOUR]


# ------------------------------------------------------------------ real processes

RECEIVERS = """
from redis_events import Reject, Retry, receives

@receives("orders")
def first(event): ...

@receives("orders", retry=Retry(attempts=3, delay=0.05, max_delay=0.05))
def second(event):
    if event.data % 10 == 0 and event.attempt == 1:
        raise ValueError("once more")
    if event.data % 100 == 7:
        raise Reject("never")

@receives("live.*")
def live(event): ...
"""


def test_what_two_listeners_tell_is_exactly_what_was_published(
    project: Project, server: Server, prefix: str, wire: Wire
) -> None:
    project.write("receivers.py", RECEIVERS)
    project.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    began = time.time()
    listeners = [listening(project), listening(project)]
    with server.client() as client:
        for number in range(1_000):
            client.xadd(f"{prefix}:orders", {"data": number})
        client.publish(f"{prefix}:live.a", "x")

    def numbers() -> tuple[Counter[str], Counter[str]]:
        wanted = tally.last_minutes(int((time.time() - began) // 60) + 2, at=time.time())
        settled, became = Counter[str](), Counter[str]()
        for each in tally.read_minutes(wanted, answers=wire.call(tally.asked_minutes(wanted))):
            assert each
            settled.update(each.settled)
            became.update({"done": each.done, "retry": each.retry, "dead": each.dead})
        return settled, became

    expected = {"orders shop": 1_000, "live.a": 2}, {"done": 1_990 + 2, "retry": 100, "dead": 10}
    wait_for(lambda: numbers()[1]["done"] >= 1_992, timeout=20, what="all runs to be told")
    for process in listeners:
        process.terminate()
        assert process.wait(10) == 0
    assert numbers() == expected
    found = runs(wire, *tally.last_hours(2, at=time.time()))
    assert {name: each.done for (_, name), each in found.items()} == {
        "app.receivers.first": 1_000,
        "app.receivers.second": 990,
        "app.receivers.live": 2,
    }
    assert all(each.p50 and each.p95 and each.last for each in found.values())


def test_what_was_counted_last_is_told_with_the_good_bye(
    project: Project, server: Server, prefix: str, wire: Wire
) -> None:
    project.write("receivers.py", RECEIVERS)
    project.settings = {"CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    with server.client() as client:
        for number in range(1, 8):
            client.xadd(f"{prefix}:orders", {"data": number})
    drained = project.manage("listen_events", "--drain")
    assert drained.wait(20) == 0
    wanted = tally.last_minutes(2, at=time.time())
    found = tally.read_minutes(wanted, answers=wire.call(tally.asked_minutes(wanted)))
    assert sum(each.settled.get("orders shop", 0) for each in found if each) == 7
