"""`manage.py inspect_events`: the same answers for people, scripts and cron, and the same acts as in the admin."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from redis_events import Event, Reject, inspection, publish, receives
from redis_events.conf import conf
from redis_events.events import now
from redis_events.heartbeat import Announced, Card, beat
from redis_events.inspection.server import _memory
from redis_events.models import DeadLetter, HeldDelivery
from redis_events.registry import all_receivers
from redis_events.transports.client import Wire
from tests import terminal
from tests.listeners import delivery, document, listener
from tests.processes import Process, Project
from tests.servers import Server, free_port

SUBJECTS = (
    "overview", "channels", "groups", "consumers", "receivers", "listeners", "pending", "events", "dead", "outbox",
    "services",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _unbiased() -> Iterator[None]:
    """What this process remembers of a server in trouble is of the test before."""
    _memory.forget()
    yield
    _memory.forget()


@pytest.fixture
def shop(
    server: Server, events_settings: dict[str, Any], settings: Any, real_transactions: None, declared: None
) -> Iterator[redis.Redis]:
    """A service with four events in a stream: one settled, two in the hands of a dead consumer, one unread."""
    settings.REDIS_EVENTS = {**events_settings, "CHANNELS": {"orders": {"TRANSPORT": "stream"}}}
    receives("orders", name="app.hear")(refuse)
    for number in range(4):
        publish("orders", {"id": number, "note": "snow ☃"}, type="shop.order.paid", key=number, strict=True)
    with server.client() as client:
        stream = f"{settings.REDIS_EVENTS['PREFIX']}:orders"
        client.xgroup_create(stream, "shop", "0")
        read = client.xreadgroup("shop", "gone:1:a", {stream: ">"}, count=3)
        client.xack(stream, "shop", read[0][1][0][0])
        yield client


def refuse(event: Event[Any]) -> None:
    raise Reject("not now")


def die(number: int = 3) -> None:
    """Dead letters of the receiver."""
    (receiver,) = all_receivers()
    listener(receiver).process([delivery(document(each, id=f"event-{each}")) for each in range(number)])
    assert DeadLetter.objects.count() == number


run = partial(terminal.run, "inspect_events")
facts = partial(terminal.facts, "inspect_events")


# ------------------------------------------------------------------ looking


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_a_table_and_one_json_document(shop: redis.Redis, subject: str) -> None:
    die()
    assert run(subject).strip()
    found = facts(subject)
    assert found["trouble"] is None
    assert found[subject] is not None


def test_the_group_that_is_behind_says_by_how_much_and_since_when(shop: redis.Redis) -> None:
    (group,) = facts("groups")["groups"]
    assert (group["channel"], group["name"], group["lag"], group["pending"]) == ("orders", "shop", 1, 2)
    assert datetime.fromisoformat(group["behind_since"]).tzinfo
    assert group["is_served"] is False
    heads, row = run("groups").splitlines()
    assert heads.split()[:4] == ["CHANNEL", "GROUP", "LAG", "PENDING"]
    assert row.split()[:4] == ["orders", "shop", "1", "2"]


def test_what_is_unknown_is_a_dash_and_null_and_never_0(shop: redis.Redis) -> None:
    (group,) = facts("groups")["groups"]
    assert group["eta"] is None
    assert "—" in run("groups").splitlines()[1]


@pytest.mark.parametrize("is_served", [True, False])
def test_only_a_group_that_somebody_serves_will_have_caught_up(
    shop: redis.Redis, redis_location: str, is_served: bool
) -> None:
    if is_served:
        announce("one:1:a", redis_location)
    for ago in range(3):
        shop.hset(f"{conf.PREFIX}:redis-events:stats:{int(time.time() // 60) - ago}", "settled orders shop", 1)
    (group,) = facts("groups")["groups"]
    assert (group["rate"] is not None, group["eta"] is not None) == (True, is_served)


def test_pending_entries_say_who_has_them(shop: redis.Redis) -> None:
    entries = facts("pending")["pending"]
    assert [(each["consumer"], each["is_alive"], each["deliveries"]) for each in entries] == [
        ("gone:1:a", False, 1)
    ] * 2
    assert facts("pending", "--channel", "other.*")["pending"] == []
    assert facts("consumers", "--group", "shop")["consumers"][0]["pending"] == 2


def test_an_event_is_found_by_a_text_in_its_data_and_by_key(shop: redis.Redis) -> None:
    (event,) = facts("events", "--key", "2")["events"]
    assert event["data"] == {"id": 2, "note": "snow ☃"}
    assert '{"id": 2, "note": "snow ☃"}' in run("events", "--key", "2")
    assert len(facts("events", "--find", "☃")["events"]) == 4
    assert facts("events", "--find", "hail")["events"] == []
    assert facts("events", "--id", event["id"])["events"] == [event]
    assert facts("events", "--id", event["entry_id"])["events"] == [event]
    assert facts("events", "--type", "*.refunded")["events"] == []
    assert len(facts("events", "--limit", "2")["events"]) == 2


def test_what_comes_from_the_wire_cannot_move_the_cursor_of_a_terminal(shop: redis.Redis) -> None:
    publish("orders", {"x": "\x1b[2J\u202e"}, type="shop.order.noted", key="k", strict=True)
    shop.xadd(f"{conf.PREFIX}:orders", {"event": b"\x1b[31mno event"})
    assert "\x1b" not in run("events")
    assert "\u202e" not in run("events")
    assert "\x1b" not in run("events", "--format", "json")


def test_dead_letters_stand_by_their_error_and_one_error_shows_each(shop: redis.Redis) -> None:
    die()
    (error,) = facts("dead")["dead"]
    assert (error["count"], error["receiver"], error["reason"]) == (3, "app.hear", "not now")
    letters = facts("dead", "--fingerprint", error["fingerprint"])["dead"]
    assert {each["event_id"] for each in letters} == {"event-0", "event-1", "event-2"}
    assert "event-0" in run("dead", "--fingerprint", error["fingerprint"])


def test_what_waits_and_what_is_parked_is_counted(shop: redis.Redis) -> None:
    die()
    HeldDelivery.objects.filter(event_id="event-0").update(state="waiting", due=now())
    HeldDelivery.objects.exclude(event_id="event-0").update(state="parked")
    overview, (receiver,) = facts()["overview"], facts("receivers")["receivers"]
    assert [(each["waiting"], each["parked"]) for each in (overview, receiver)] == [(1, 2)] * 2
    assert re.search(r"^waiting to run again +1\nparked +2$", run(), re.MULTILINE)
    heads, row = run("receivers").splitlines()
    assert row[heads.index("WAITING") :].split()[:2] == ["1", "2"]


def test_what_another_service_holds_nobody_here_can_count(shop: redis.Redis, redis_location: str) -> None:
    announce("far:1:a", redis_location, service="billing")
    found = {each["service"]: each["waiting"] for each in facts("receivers")["receivers"]}
    assert found == {"billing": None, "shop": 0}


def test_more_than_the_limit_is_said_to_be_there(shop: redis.Redis) -> None:
    assert "… and more (--limit)" in run("pending", "--limit", "1")
    found = facts("pending", "--limit", "1")
    assert (len(found["pending"]), found["is_cut"]) == (1, True)
    assert facts("pending")["is_cut"] is False


def test_a_search_says_how_far_it_looked_and_how_to_go_on(shop: redis.Redis) -> None:
    text = run("events", "--limit", "2")
    (until,) = re.findall(r"2 entries looked at, back to .*; --until (\S+) goes on", text)
    older = facts("events", "--until", until)["events"]
    assert [each["key"] for each in older][-1] == "0"
    assert "looked at" not in run("events")


def test_nothing_to_show_says_what_would_make_some(events_settings: dict[str, Any], real_transactions: None) -> None:
    assert "listen_events" in run("groups")
    assert "listen_events" in run("listeners")
    assert "pub/sub keeps none" in run("events")


def test_the_overview_names_what_is_wrong(shop: redis.Redis) -> None:
    die()
    text = run()
    assert re.search(r"^dead letters +3$", text, re.MULTILINE)
    assert re.search(r"^listeners alive +0$", text, re.MULTILINE)
    assert re.search(r"^behind for +\d", text, re.MULTILINE)
    assert "no listener of shop is alive" in text
    assert re.search(r"^unsent in the outbox +0$", text, re.MULTILINE)


# ------------------------------------------------------------------ cron


@pytest.mark.parametrize(
    ("limit", "code", "line"),
    [
        (("--fail-lag", "0"), 1, "lag: orders · shop has 1 unread, more than 0"),
        (("--fail-lag", "1"), 0, ""),
        (("--fail-age", "0"), 1, "age: orders · shop is behind for"),
        (("--fail-age", "3600"), 0, ""),
        (("--fail-dead", "2"), 1, "dead: 3 dead letters, more than 2"),
        (("--fail-dead", "3"), 0, ""),
        (("--fail-lag", "1", "--channel", "order*", "--group", "shop"), 0, ""),
    ],
)
def test_a_limit_that_is_exceeded_ends_with_1_and_the_line_that_says_which(
    shop: redis.Redis, limit: tuple[str, ...], code: int, line: str
) -> None:
    die()
    assert line in run("groups", *limit, code=code)
    said = facts("groups", *limit, code=code)["exceeded"]
    assert [each[: len(line)] for each in said] == [line] * (code == 1)


def test_a_limit_nobody_can_judge_is_not_one_that_holds(shop: redis.Redis, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    assert "connection refused" in run("groups", "--fail-lag", "5", code=4)
    _memory.forget()
    assert "connection refused" in run("dead", "--fail-age", "5", code=4)
    _memory.forget()
    assert run("dead", "--fail-dead", "5") == "No dead letter.\n"


@pytest.mark.parametrize("named", ["--channel orderz", "--group nobody", "--channel orders --group nobody"])
@pytest.mark.parametrize("limit", ["--fail-lag", "--fail-age"])
def test_a_group_that_was_named_and_is_not_there_is_not_one_that_keeps_up(
    shop: redis.Redis, limit: str, named: str
) -> None:
    line = f"lag and age: there is no consumer group for {named}"
    assert line in run("groups", *named.split(), limit, "0", code=4)
    assert facts("dead", *named.split(), limit, "0", code=4)["unknown"] == [line]
    shop.flushall()
    assert "there is no consumer group for --channel orders" in run("--channel", "orders", limit, "3600", code=4)


def test_a_group_whose_lag_the_server_does_not_know_is_no_group_without_lag(shop: redis.Redis) -> None:
    stream = f"{conf.PREFIX}:orders"
    second = shop.xrange(stream, count=2)[1][0]
    shop.xgroup_setid(stream, "shop", second)  # from the middle on nobody counts
    assert facts("groups")["groups"][0]["lag"] is None
    assert "lag: orders · shop does not say" in run("groups", "--fail-lag", "1000", code=4)


@pytest.fixture
def narrow(server: Server, settings: Any, shop: redis.Redis) -> Iterator[None]:
    """Our user may not run XINFO."""
    shop.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">pw", "~*", "&*", "+@all", "-xinfo")
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://narrow:pw@127.0.0.1:{server.port}/0"}
    yield
    shop.execute_command("ACL", "DELUSER", "narrow")


@pytest.mark.usefixtures("narrow")
def test_a_user_without_xinfo_sees_dashes_the_reason_and_no_limit_that_holds() -> None:
    assert re.search(r"^orders +stream +— ", run("channels"), re.MULTILINE)
    assert "NOPERM" in run("channels")
    assert "NOPERM" in run("groups", "--fail-lag", "0", code=4)
    assert facts("channels")["channels"][0]["length"] is None


def test_a_channel_that_cannot_be_read_is_not_taken_for_one_that_is_well(shop: redis.Redis) -> None:
    shop.set(f"{conf.PREFIX}:orders", "x")
    for limit in ("--fail-lag", "--fail-age"):
        assert "lag and age: orders: WRONGTYPE" in run("groups", limit, "10", code=4)
    assert "WRONGTYPE" not in run("groups", "--fail-lag", "10", "--channel", "other", code=4)
    assert run("groups").startswith("orders: WRONGTYPE")
    assert "WRONGTYPE" in run("channels")


# ------------------------------------------------------------------ acting


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


CLAIM = ("groups", "--claim", "orders", "shop")


@pytest.mark.parametrize("text", ["n\n", "\n", ""])
def test_an_act_asks_with_the_exact_count_and_does_nothing_without_a_yes(
    shop: redis.Redis, answer: Callable[[str], None], text: str
) -> None:
    answer(text)
    assert "Take 2 pending entries of orders · shop from gone:1:a" in run(*CLAIM, code=2)
    assert facts("consumers")["consumers"][0]["name"] == "gone:1:a"


def test_a_yes_claims_what_a_dead_consumer_has(shop: redis.Redis, answer: Callable[[str], None]) -> None:
    answer("y\n")
    assert run(*CLAIM).endswith("[y/N] 2 done\n")
    assert {each["consumer"] for each in facts("pending")["pending"]} != {"gone:1:a"}


def test_what_is_alive_is_only_claimed_from_by_name(shop: redis.Redis, redis_location: str) -> None:
    announce("gone:1:a", redis_location)
    assert "Of orders · shop nothing is in the hands of" in run(*CLAIM, "--yes", code=2)
    assert run(*CLAIM, "--consumer", "gone:1:a", "--yes") == "2 done\n"


def announce(id: str, location: str, *, service: str = "shop") -> None:
    wire = Wire(location, timeout=2.0)
    receivers = (Announced(name="app.hear", channel="orders", types=None, group=""),)
    beat(wire, Card(id=id, service=service, host="one", pid=1, version="1", started=1.0, receivers=receivers))
    wire.close()


def test_a_skipped_entry_is_settled_and_leaves_a_dead_letter_that_says_who(shop: redis.Redis) -> None:
    first, second = (each["entry_id"] for each in facts("pending")["pending"])
    assert (
        run("pending", "--skip", "orders", "shop", first, "1-1", "--yes") == "1 done · 1 left: not pending any more\n"
    )
    assert [each["entry_id"] for each in facts("pending")["pending"]] == [second]
    letter = DeadLetter.objects.get()
    assert re.search(r"skipped by .+@.+", letter.reason)


def test_a_receiver_is_paused_and_resumed_by_whoever_sits_at_the_terminal(shop: redis.Redis) -> None:
    assert run("receivers", "--pause", "app.hear", "--yes") == "1 done\n"
    (receiver,) = facts("receivers")["receivers"]
    assert "@" in receiver["paused_by"]
    assert run("receivers", "--resume", "app.hear", "--yes") == "1 done\n"
    assert run("receivers", "--resume", "app.hear", "--yes") == "0 done · 1 left: not paused\n"
    for act in ("--pause", "--resume"):
        assert "has no receiver 'app.heer'; there are: app.hear" in run("receivers", act, "app.heer", "--yes", code=2)


def test_a_receiver_whose_listeners_are_all_down_is_resumed_too(shop: redis.Redis) -> None:
    inspection.pause("far.away", service="billing", who="ann")
    resume = ("receivers", "--resume", "far.away", "--service", "billing", "--yes")
    assert run(*resume) == "1 done\n"
    assert "billing has no receiver 'far.away'" in run(*resume, code=2)


def test_dead_letters_of_one_error_are_discarded_and_no_other(shop: redis.Redis, answer: Callable[[str], None]) -> None:
    die()
    (error,) = facts("dead")["dead"]
    HeldDelivery.objects.filter(event_id="event-0").update(fingerprint="other")
    answer("y\n")
    text = run("dead", "--discard", "--fingerprint", error["fingerprint"])
    assert text == "Delete 2 dead letters for good? [y/N] 2 done\n"
    assert DeadLetter.objects.get().event_id == "event-0"
    assert facts("dead", "--discard", "--ids", "event-0", "--yes") == {"done": 1, "left": {}}


def test_a_group_is_moved_and_an_idle_consumer_removed(shop: redis.Redis, prefix: str) -> None:
    assert run("groups", "--move", "orders", "shop", "$", "--yes") == "1 done\n"
    assert facts("groups")["groups"][0]["lag"] == 0
    assert "is no entry id" in run("groups", "--move", "orders", "shop", f"{2**64}-0", "--yes", code=2)
    assert "claim them first" in run("groups", "--remove-consumer", "orders", "shop", "gone:1:a", "--yes", code=2)
    run(*CLAIM, "--yes")
    assert run("groups", "--remove-consumer", "orders", "shop", "gone:1:a", "--yes") == "1 done\n"
    assert "gone:1:a" not in {each["name"] for each in facts("consumers")["consumers"]}


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (("groups", "--remove-consumer", "orders", "shop", "nobody"), "no consumer 'nobody'; there are: gone:1:a"),
        (("groups", "--remove-consumer", "orders", "shpo", "nobody"), "no consumer group 'shpo'; there are: shop"),
        (("groups", "--move", "orders", "shpo", "0"), "no consumer group 'shpo'; there are: shop"),
        (("groups", "--move", "ordres", "shop", "0"), "ordres has no consumer group 'shop'; there are: none"),
        (("groups", "--claim", "orders", "shpo"), "no consumer group 'shpo'; there are: shop"),
        (("pending", "--skip", "orders", "shop:no", "1-1"), "no consumer group 'shop:no'; there are: shop"),
        (("dead", "--discard", "--fingerprint", "nope"), "There is no dead letter of that: nope."),
        (("dead", "--discard", "--ids", "99999"), "There is no dead letter of that: 99999."),
        (("dead", "--discard", "--receiver", "app.heer"), "There is no dead letter of that: app.heer."),
    ],
)
def test_what_is_not_there_is_not_acted_on(shop: redis.Redis, act: tuple[str, ...], line: str) -> None:
    assert line in run(*act, "--yes", code=2)


def test_a_receiver_of_which_nothing_has_failed_is_no_mistake(shop: redis.Redis) -> None:
    assert run("dead", "--discard", "--receiver", "app.hear", "--yes") == "0 done\n"


def test_an_act_asked_for_in_the_wrong_place_does_nothing(shop: redis.Redis) -> None:
    die()
    assert "`inspect_events dead`" in run("groups", "--discard", "--yes", code=2)
    assert "Name dead letters" in run("dead", "--discard", "--yes", code=2)
    assert "for `inspect_events events`" in run("dead", "--discard", "--type", "*", "--yes", code=2)
    assert "One act at a time" in run("dead", "--discard", "--stop", "x", code=2)
    assert "is no listener that is alive" in run("listeners", "--stop", "x", code=2)
    assert DeadLetter.objects.count() == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("dead", "--discard", "--receiver", "app.hear", "--fingerprint", "", "--yes"),
        ("dead", "--discard", "--receiver", "app.hear", "--ids", "", "--yes"),
        ("dead", "--discard", "--fingerprint", "f", "--receiver", "", "--yes"),
        ("listeners", "--stop", "", "--yes"),
        ("groups", "--claim", "orders", "shop", "--consumer", "", "--yes"),
        ("groups", "--claim", "orders", "", "--yes"),
        ("groups", "--fail-lag", "1000", "--channel", ""),
    ],
    ids=" ".join,
)
def test_an_option_with_nothing_in_it_is_a_mistake_and_not_one_left_out(
    shop: redis.Redis, arguments: tuple[str, ...]
) -> None:
    die()
    assert "has nothing in it" in run(*arguments, code=2)
    assert DeadLetter.objects.count() == 3


def test_an_act_that_reaches_no_server_ends_with_4(shop: redis.Redis, settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    for act in (CLAIM, ("receivers", "--pause", "app.hear"), ("receivers", "--resume", "app.hear")):
        _memory.forget()
        assert "connection refused" in run(*act, "--yes", code=4)


# ------------------------------------------------------------------ as a person runs it


def ended(process: Process) -> int:
    code = process.wait(30)
    assert "Traceback" not in process.output
    return code


def test_a_listener_is_seen_and_asked_to_stop(project: Project) -> None:
    project.write("receivers.py", "from redis_events import receives\n@receives('orders')\ndef hear(event): ...\n")
    listening = project.manage("listen_events")
    listening.wait_for_line("Listening on", timeout=20)
    shown = project.manage("inspect_events", "listeners", "--format", "json")
    assert ended(shown) == 0
    (one,) = json.loads(shown.output)["listeners"]
    assert (one["service"], one["is_alive"], one["receivers"]) == ("shop", True, ["app.receivers.hear"])
    stop = project.manage("inspect_events", "listeners", "--stop", one["id"], "--yes")
    assert ended(stop) == 0, stop.output
    assert listening.wait(20) == 0, listening.output


@pytest.fixture
def elsewhere(make_project: Callable[..., Project], migrated: Path) -> Callable[[str], Project]:
    def make(location: str) -> Project:
        project = make_project(location=location)
        shutil.copy(migrated, project.folder / "db.sqlite3")
        return project

    return make


def test_a_server_that_is_away_is_one_line_and_4(elsewhere: Callable[[str], Project]) -> None:
    project = elsewhere(f"redis://127.0.0.1:{free_port()}/0")
    process = project.manage("inspect_events")
    assert ended(process) == 4
    assert re.search(r"^listeners alive +—$", process.output, re.MULTILINE)
    assert "connection refused" in process.lines[-1]
    as_json = project.manage("inspect_events", "channels", "--format", "json")
    assert ended(as_json) == 4
    document = json.JSONDecoder().raw_decode(as_json.output)[0]
    assert (document["channels"], document["trouble"]["kind"]) == (None, "refused")


def test_a_wrong_password_is_4_and_not_shown(elsewhere: Callable[[str], Project]) -> None:
    with Server(password="right") as locked:
        process = elsewhere(f"redis://:wrong-one@127.0.0.1:{locked.port}/0").manage("inspect_events", "groups")
        assert ended(process) == 4
    assert "wrong-one" not in process.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("receivers", "--resume", "here"),
        ("groups", "--move", "orders", "shop", "0"),
        ("groups", "--remove-consumer", "orders", "shop", "gone"),
        ("pending", "--skip", "orders", "shop", "1-1"),
    ],
)
def test_where_there_is_no_server_to_act_on_it_is_4(settings: Any, arguments: tuple[str, ...]) -> None:
    settings.REDIS_EVENTS = {"LOCATION": "memory://", "SERVICE": "shop"}
    assert "there is no server" in terminal.run("inspect_events", *arguments, "--yes", code=4)


def test_missing_tables_are_5(make_project: Callable[..., Project]) -> None:
    process = make_project().manage("inspect_events", "dead")
    assert ended(process) == 5
    assert "is `migrate` done?" in process.output


def test_a_wrong_setting_is_5(project: Project) -> None:
    project.settings = {"LOCATION": "rdis://localhost"}
    process = project.manage("inspect_events")
    assert ended(process) == 5
    assert 'REDIS_EVENTS["LOCATION"]' in process.output


def test_whoever_has_seen_enough_may_close_the_pipe(project: Project) -> None:
    command = f"{sys.executable} -m django inspect_events receivers | true; exit ${{PIPESTATUS[0]}}"
    process = project.python("-c", f"import subprocess, sys; sys.exit(subprocess.call(['bash', '-c', {command!r}]))")
    assert ended(process) == 0, process.output
    assert "BrokenPipe" not in process.output
