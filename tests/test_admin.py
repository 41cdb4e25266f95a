"""The pages of the admin, on a real server: what they say, and what is done from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

import redis_events
from redis_events import inspection, publish, receives
from redis_events.admin import PAGES, tables
from redis_events.conf import conf
from redis_events.events import now
from redis_events.heartbeat import asked_to_stop, own_id
from redis_events.models import (
    Channel,
    ConsumerGroup,
    DeadLetter,
    EffectiveSetting,
    HeldDelivery,
    InboxEntry,
    ListenerStatus,
    LiveFeed,
    LoggedEvent,
    OutboxEvent,
    Overview,
    ReceiverStatus,
)
from tests.pages import CHANNEL, GROUP, NAUGHTY, World, build_world, dead_letter, logged_in, page, text_of, user
from tests.processes import Project
from tests.servers import Server, wait_for

pytestmark = [pytest.mark.usefixtures("declared"), pytest.mark.django_db(databases=["default", "other"])]

STATIC = Path(redis_events.__file__).parent / "static" / "redis_events"
GROUP_ID = f"{CHANNEL}/{GROUP}"


@pytest.fixture
def redis_client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
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


def html_of(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return answer.content.decode()


def said(client: Client, address: str) -> str:
    return text_of(html_of(client, address).split("<main")[1])


def looks(world: World) -> list[str]:
    """Every page to look at: lists and what is on them."""
    return [address for _model, view, address in world.addresses() if view in ("changelist", "change")]


def acts(world: World) -> list[str]:
    views = {"publish", "claim", "skip", "remove", "move", "pause", "stop", "replay", "discard"}
    selected = f"?select={world.entry_id}&consumer=ghost"
    letter = f"?select=default:{world.letter.pk}"
    return [
        address + (letter if model == "deadletter" else selected)
        for model, view, address in world.addresses()
        if view in views
    ]


# ------------------------------------------------------------------ what the pages say


def test_the_overview_says_in_one_look_who_is_behind(world: World, root: Client) -> None:
    text = said(root, page(Overview))
    for words in ("✓ answers", "Largest lag 2", "Dead letters 1", "Listeners alive 1", "⚠ behind 1"):
        assert words.lower() in text.lower(), words


def test_consumer_groups_say_by_how_much_and_since_when(world: World, root: Client) -> None:
    html = html_of(root, page(ConsumerGroup))
    row = html[html.index(">shop</bdi>") :].split("</tr>")[0]
    assert text_of(row).startswith(">shop shop.orders 2 ")
    assert "⚠ behind 1 " in text_of(row)
    assert "<time datetime=" in row


def test_a_group_shows_its_consumers_and_what_they_have_not_settled(world: World, root: Client) -> None:
    text = said(root, page(ConsumerGroup, "change", to=GROUP_ID))
    assert f"{world.entry_id}" in text
    assert text.count("ghost") == 2


def test_an_event_shows_what_became_of_it(world: World, root: Client) -> None:
    text = said(root, page(LoggedEvent, "change", to=f"{CHANNEL}/{world.entry_id}"))
    for words in ("stream shop.orders ✓ in the stream", "consumer group shop ⚠ pending", "number", "700"):
        assert words in text, words


@pytest.mark.parametrize(
    ("model", "to", "words"),
    [
        (Channel, "", "shop.orders"),
        (Channel, CHANNEL, "XINFO STREAM"),
        (ReceiverStatus, "", "tests.index"),
        (ReceiverStatus, "shop/tests.index", "tests/pages.py"),
        (ListenerStatus, "", "✓ alive"),
        (DeadLetter, "", "ConnectionError"),
        (OutboxEvent, "", "default: 1 not sent yet"),
        (EffectiveSetting, "", "PREFIX"),
    ],
)
def test_each_page_answers_its_question(world: World, root: Client, model: Any, to: str, words: str) -> None:
    assert words in said(root, page(model, "change" if to else "changelist", to=to))


def test_pages_that_are_empty_teach_how_they_fill(streams: Any, root: Client) -> None:
    for model in (Channel, ReceiverStatus, LoggedEvent, ConsumerGroup, ListenerStatus, DeadLetter):
        if model is Channel:
            streams["CHANNELS"] = {}
            conf.clear()
        html = html_of(root, page(model))
        assert 'class="re-text"' in html, model
    assert "listen_events" in html_of(root, page(ListenerStatus))


def test_a_channel_that_cannot_be_read_shows_the_servers_answer_and_no_lesson(
    streams: Any, root: Client, redis_client: redis.Redis
) -> None:
    receives(CHANNEL, name="tests.index")(lambda event: None)
    redis_client.set(conf.redis_name(CHANNEL), "x")
    text = said(root, page(Channel, "change", to=CHANNEL))
    assert text.count("WRONGTYPE") == 2
    assert "has a consumer group" not in text
    assert "No stream has an event" not in text
    assert "shop.orders: WRONGTYPE" in said(root, page(ConsumerGroup))


def test_what_is_not_there_is_not_found(world: World, root: Client) -> None:
    nothing = {
        Channel: "nowhere",
        ReceiverStatus: "shop/nobody",
        LoggedEvent: f"{CHANNEL}/1-1",
        ConsumerGroup: f"{CHANNEL}/nobody",
        ListenerStatus: "a:1:b",
        DeadLetter: "default:99999",
    }
    for model, to in nothing.items():
        assert root.get(page(model, "change", to=to)).status_code == 404, model
    for to in ("", "default", "nowhere:1", "default:x", "default:" + "9" * 30, "default:٣"):
        assert root.get(page(DeadLetter, "change", to=to or ":")).status_code == 404, to


# ------------------------------------------------------------------ what others wrote stays text


def test_nothing_anybody_wrote_becomes_markup(world: World, root: Client) -> None:
    seen = 0
    for address in (*looks(world), *acts(world), f"{page(DeadLetter)}?fingerprint={'f' * 16}"):
        html = html_of(root, address)
        assert "<script>alert" not in html, address
        assert "14" not in re.findall(r"&#x27;&amp;(.{2})", html), address
        seen += "&lt;script&gt;alert(1)" in html and "中文 😀 שלום" in html
    assert seen >= 5


def test_what_is_asked_for_comes_back_as_text(world: World, root: Client) -> None:
    from urllib.parse import urlencode

    for model in (LoggedEvent, LiveFeed, DeadLetter):
        names = ("pattern", "text", "type", "key", "id", "receiver", "since", "before", "after", "fingerprint", "using")
        html = html_of(root, f"{page(model)}?{urlencode(dict.fromkeys(names, NAUGHTY))}")
        assert "<script>alert" not in html


def test_a_strict_content_policy_has_nothing_to_object_to(world: World, root: Client) -> None:
    of_tables = tuple(page(model) for model in (HeldDelivery, InboxEntry, OutboxEvent))
    for address in (*looks(world), *acts(world)):
        if address.startswith(of_tables):  # Django's own views
            continue
        main = html_of(root, address).split("<main")[1].split("</main>")[0]
        assert not re.findall(r"<style|<script|javascript:|<[^>]+\s(style|on\w+)=", main), address


def test_binary_is_shown_as_hexadecimal_and_long_data_is_cut(streams: Any, redis_client: Any, root: Client) -> None:
    publish(CHANNEL, "x" * 70_000, strict=True)
    key = conf.redis_name(CHANNEL)
    (entry,) = (id.decode() for id, _fields in redis_client.xrange(key))
    address = page(LoggedEvent, "change", to=f"{CHANNEL}/{entry}")
    html = html_of(root, address)
    assert "x" * 65_536 in html
    assert "x" * 65_537 not in html
    (more,) = re.findall(r'<a href="(\?whole=1)">', html)[:1]
    assert "x" * 70_000 in html_of(root, address + more)
    letter = dead_letter(raw=b"\x00\xff binary")
    assert "00 ff 20 62" in html_of(root, page(DeadLetter, "change", to=f"default:{letter.pk}"))
    long = dead_letter(2, raw=b"y" * 70_000)
    first, rest = html_of(root, page(HeldDelivery, "change", to=str(long.pk))).split("<details>")[:2]
    assert "y" * 65_536 in first
    assert "y" * 65_537 not in first
    assert "y" * 70_000 in rest


# ------------------------------------------------------------------ finding events


def order(number: int) -> None:
    publish(CHANNEL, {"number": number}, type="shop.order.paid", key=number, strict=True)


def test_an_event_is_found_by_a_number_in_its_data(streams: Any, root: Client) -> None:
    for number in (70_001, 70_002):
        order(number)
    html = html_of(root, f"{page(LoggedEvent)}?text=70002")
    assert "70002" in html
    assert "70001" not in html
    assert "Looked at 2 entries" in text_of(html)


@pytest.mark.parametrize("name", ["since", "until"])
def test_a_moment_that_is_none_finds_nothing_and_is_said(streams: Any, root: Client, name: str) -> None:
    order(1)
    for wrong in ("nonsense", "2026-13-40T00:00"):
        text = said(root, f"{page(LoggedEvent)}?{name}={wrong}")
        assert f"“{wrong}” is no moment" in text
        assert "shop.order.paid" not in text


def test_a_search_that_was_cut_goes_on_where_it_was(streams: Any, root: Client) -> None:
    for number in range(60):
        order(number)
    html = html_of(root, f"{page(LoggedEvent)}?pattern=shop.*")
    assert html.count("<time") == 51
    (further,) = re.findall(r'href="([^"]*before=[^"]*)"', html)
    older = html_of(root, further.replace("&amp;", "&"))
    assert older.count("shop.order.paid") >= 10
    assert "pattern=shop." in further


def test_text_in_data_is_not_searched_for_who_may_not_see_data(world: World) -> None:
    client = logged_in(user("viewer", "view_loggedevent", "view_livefeed"))
    html = html_of(client, f"{page(LoggedEvent)}?text=700")
    assert "needs the permission" in html
    assert "shop.order.paid" not in html


# ------------------------------------------------------------------ pages that stay open


def test_an_open_page_is_sent_again_only_when_it_changed(world: World, root: Client) -> None:
    address = f"{page(Channel)}?_fragment=1"
    first = root.get(address)
    assert "<html" not in first.content.decode()
    same = root.get(address, headers={"If-None-Match": first["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    order(8)
    other = root.get(address, headers={"If-None-Match": first["ETag"]})
    assert other.status_code == 200


def test_links_on_a_part_that_was_sent_again_lead_back_to_the_whole_page(world: World, root: Client) -> None:
    html = html_of(root, f"{page(DeadLetter)}?receiver=tests.index&_fragment=1")
    assert "_back=%2Fadmin%2Fredis_events%2Fdeadletter%2F%3Freceiver%3Dtests.index" in html
    assert "_fragment" not in html


def rows_since(client: Client, cursor: str, **query: str) -> tuple[list[str], str]:
    answer = client.get(page(LiveFeed, "rows"), {"after": cursor, **query})
    assert answer.status_code == 200
    return [text_of(row) for row in answer.content.decode().split("</tr>")[:-1]], answer["X-Cursor"]


def test_the_live_feed_hands_out_each_event_once_and_the_newest_on_top(streams: Any, root: Client) -> None:
    receives("live.*", name="tests.push")(lambda event: None)
    order(0)
    (cursor,) = re.findall(r'data-cursor="(\d+)"', html_of(root, page(LiveFeed)))
    found: list[str] = []
    for number in range(1, 21):
        order(number)

    def all_came() -> bool:
        nonlocal cursor
        rows, cursor = rows_since(root, cursor)
        found[:0] = rows
        return len(found) >= 20

    wait_for(all_came, what="20 events in the feed")
    keys = [re.search(r"shop.order.paid (\d+)", row)[1] for row in found]  # type: ignore[index]
    assert keys == [str(number) for number in range(20, 0, -1)]
    assert rows_since(root, cursor)[0] == []


def test_the_live_feed_hears_pubsub_and_filters_by_text(streams: Any, root: Client) -> None:
    receives("live.*", name="tests.push")(lambda event: None)
    _rows, cursor = rows_since(root, "")

    def heard() -> bool:
        publish("live.prices", {"of": "gold"}, strict=True)
        publish("live.prices", {"of": "tin"}, strict=True)
        return bool(rows_since(root, cursor, pattern="live.*", text="gold")[0])

    wait_for(heard, what="a message of pub/sub in the feed")
    rows, _cursor = rows_since(root, cursor, text="GOLD")
    assert rows
    assert all("gold" in row for row in rows)


# ------------------------------------------------------------------ dead letters


def follow(client: Client, html: str, label: str) -> str:
    """The page behind a link or button with this label."""
    found = re.findall(rf'<a href="([^"]*)"[^>]*>{re.escape(label)}</a>', html)
    assert found, f"no link {label}"
    return found[0].replace("&amp;", "&")


def confirm(client: Client, address: str, **typed: str) -> Any:
    """What the confirmation's form sends, sent; the answer after the way back."""
    html = html_of(client, address)
    hidden = dict(re.findall(r'<input type="hidden" name="(ids|until)" value="([^"]*)"', html))
    return client.post(address, {**hidden, **typed})


def states() -> dict[str, str]:
    return dict(HeldDelivery.objects.values_list("event_id", "state"))


def test_all_dead_letters_of_one_error_are_replayed_and_no_others(streams: Any, root: Client) -> None:
    receives(CHANNEL, name="tests.index")(lambda event: None)
    for number in range(37):
        dead_letter(number)
    dead_letter(100, fingerprint="e" * 16, exception="ValueError")
    first = f"{page(DeadLetter)}?receiver=tests.index"
    address = follow(root, html_of(root, first), "Replay all 37")
    asked = html_of(root, address)
    assert "Let the receivers of 37 dead letters run again?" in text_of(asked)
    hidden = dict(re.findall(r'<input type="hidden" name="(ids|until)" value="([^"]*)"', asked))
    dead_letter(101)  # came after the confirmation had counted
    answer = root.post(address, hidden)
    assert (answer.status_code, answer["Location"]) == (302, first)
    assert sorted(id for id, state in states().items() if state == "dead") == ["event-100", "event-101"]
    assert "37 done." in said(root, first)
    (entry,) = LogEntry.objects.all()
    assert "37 done" in entry.change_message
    assert entry.get_admin_url() is None or entry.content_type.model == "deadletter"


def test_all_dead_letters_of_one_receiver_are_replayed_and_no_others(streams: Any, root: Client) -> None:
    receives(CHANNEL, name="tests.index")(lambda event: None)
    receives(CHANNEL, name="tests.other")(lambda event: None)
    dead_letter(1), dead_letter(2, fingerprint="e" * 16), dead_letter(3, receiver="tests.other", fingerprint="d" * 16)
    address = follow(root, html_of(root, f"{page(DeadLetter)}?receiver=tests.index"), "Replay all 2")
    confirm(root, address)
    assert states() == {"event-1": "waiting", "event-2": "waiting", "event-3": "dead"}


def test_the_selected_dead_letters_are_replayed_and_no_others(streams: Any, root: Client) -> None:
    receives(CHANNEL, name="tests.index")(lambda event: None)
    letters = [dead_letter(number) for number in range(3)]
    selected = "&".join(f"select=default:{each.pk}" for each in letters[:2])
    group = f"{page(DeadLetter)}?fingerprint={'f' * 16}&using=default"
    assert html_of(root, group).count('name="select"') == 3
    confirm(root, f"{page(DeadLetter, 'replay')}?{selected}")
    assert states() == {"event-0": "waiting", "event-1": "waiting", "event-2": "dead"}


def test_an_id_that_is_also_another_letters_event_id_touches_neither(streams: Any, root: Client) -> None:
    letter = dead_letter()
    dead_letter(2, event_id=str(letter.pk))
    assert root.post(page(DeadLetter, "discard"), {"ids": f"default:{letter.pk}"}).status_code == 302
    assert len(states()) == 2
    assert "event ids of other dead letters" in said(root, page(DeadLetter))


def test_what_nobody_here_can_run_is_not_asked_for_and_said(streams: Any, root: Client) -> None:
    letter = dead_letter(receiver="gone.away")
    answer = root.get(f"{page(DeadLetter, 'replay')}?select=default:{letter.pk}")
    assert answer.status_code == 302
    assert states() == {"event-1": "dead"}
    assert "None of them can be replayed (no receiver of that name here: 1)" in said(root, page(DeadLetter))


@pytest.mark.parametrize(
    ("receiver", "why"), [("", "no event"), ("gone.away", "no receiver of that name here"), ("tests.index", "")]
)
def test_what_cannot_be_replayed_has_no_button_for_it_but_the_reason(
    streams: Any, root: Client, receiver: str, why: str
) -> None:
    receives(CHANNEL, name="tests.index")(lambda event: None)
    letter = dead_letter(receiver=receiver)
    of_error = f"{page(DeadLetter)}?fingerprint={letter.fingerprint}&using=default"
    for address in (page(DeadLetter), of_error, page(DeadLetter, "change", to=f"default:{letter.pk}")):
        html = html_of(root, address)
        assert ("/replay/" in html) is not bool(why)
        assert (f"cannot be replayed: {why}" in html) is bool(why)
        assert "/discard/" in html


def test_of_a_choice_only_what_can_be_replayed_is_counted(streams: Any, root: Client) -> None:
    receives(CHANNEL, name="tests.index")(lambda event: None)
    letters = [dead_letter(1), dead_letter(2, receiver="gone.away")]
    selected = "&".join(f"select=default:{each.pk}" for each in letters)
    address = f"{page(DeadLetter, 'replay')}?{selected}"
    asked = said(root, address)
    assert "Let the receiver of 1 dead letter run again?" in asked
    assert "left alone (no receiver of that name here: 1)" in asked
    confirm(root, address)
    assert states() == {"event-1": "waiting", "event-2": "dead"}


def test_discarding_leaves_a_note_in_the_log(streams: Any, root: Client) -> None:
    letter = dead_letter()
    address = f"{page(DeadLetter, 'discard')}?select=default:{letter.pk}"
    confirm(root, address, note="asked for by support")
    assert states() == {}
    assert "asked for by support" in LogEntry.objects.get().change_message
    assert "There is nothing left to do" in text_of(root.get(address, follow=True).content.decode())


def test_a_submission_that_was_not_confirmed_touches_nothing(streams: Any, root: Client) -> None:
    letter = dead_letter()
    for view in ("replay", "discard"):
        for query in (f"?fingerprint={letter.fingerprint}", f"?select=default:{letter.pk}", ""):
            root.post(page(DeadLetter, view) + query)
        root.post(page(DeadLetter, view), {"ids": "nowhere:1,default:x"})
        root.post(page(DeadLetter, view) + f"?fingerprint={letter.fingerprint}", {"until": "9" * 40})
    assert states() == {"event-1": "dead"}
    assert not LogEntry.objects.exists()


FORGED = ("", "soon", "0001-01-01T00:00:00+14:00", "9999-12-31T00:00:00+00:00", "9999-12-31T00:00:00-14:00")


@pytest.mark.parametrize("of", [f"fingerprint={'f' * 16}", "receiver=tests.index"])
@pytest.mark.parametrize("view", ["replay", "discard"])
def test_a_moment_that_no_confirmation_gave_is_refused_and_said(streams: Any, root: Client, view: str, of: str) -> None:
    for name in ("tests.index", "tests.other"):
        receives(CHANNEL, name=name)(lambda event: None)
    dead_letter(1), dead_letter(2, receiver="tests.other", fingerprint="e" * 16)
    other = html_of(root, f"{page(DeadLetter, view)}?fingerprint={'e' * 16}")
    (elsewhere,) = re.findall(r'name="until" value="([^"]*)"', other)
    for until in (*FORGED, now().isoformat(), elsewhere, f"9999{elsewhere[4:]}"):
        answer = root.post(f"{page(DeadLetter, view)}?{of}", {"until": until}, follow=True)
        assert "not what was confirmed: nothing was changed" in text_of(answer.content.decode()), until
    assert states() == {"event-1": "dead", "event-2": "dead"}
    assert not LogEntry.objects.exists()


def in_other(letter: HeldDelivery) -> None:
    """Moves it to the second database."""
    HeldDelivery.objects.filter(pk=letter.pk).delete()
    letter.save(using="other", force_insert=True)


def test_what_was_confirmed_of_one_database_is_not_done_in_another(streams: Any, root: Client) -> None:
    receives(CHANNEL, name="tests.index", once=True, using="other")(lambda event: None)
    dead_letter(1)
    address = f"{page(DeadLetter, 'discard')}?receiver=tests.index"
    hidden = dict(re.findall(r'name="(until)" value="([^"]*)"', html_of(root, address)))
    for number, died in ((2, now() - timedelta(hours=1)), (3, now())):
        in_other(dead_letter(number, updated_at=died))
    answer = root.post(address, hidden, follow=True)
    assert "not what was confirmed" in text_of(answer.content.decode())
    assert (HeldDelivery.objects.count(), HeldDelivery.objects.using("other").count()) == (1, 2)


def test_all_of_a_receiver_with_rows_in_two_databases_says_how_many_the_act_will_touch(
    streams: Any, root: Client
) -> None:
    receives(CHANNEL, name="tests.index", once=True, using="other")(lambda event: None)
    dead_letter(1, updated_at=now() - timedelta(hours=1))
    in_other(dead_letter(2)), in_other(dead_letter(3, fingerprint="e" * 16))
    first = f"{page(DeadLetter)}?receiver=tests.index"
    assert "Discard all 2" in said(root, first)
    address = follow(root, html_of(root, first), "Replay all 2")
    assert "Let the receivers of 2 dead letters run again?" in said(root, address)
    confirm(root, address)
    assert "2 done." in said(root, first)
    assert states() == {"event-1": "dead"}


def test_no_zero_byte_of_a_form_gets_into_the_log(streams: Any, root: Client) -> None:
    confirm(root, f"{page(DeadLetter, 'discard')}?select=default:{dead_letter().pk}", note="by\0me")
    assert LogEntry.objects.get().change_message.endswith("byme.")


@pytest.mark.parametrize(
    "address", ["https://evil.example/", "//evil.example/", "/admin/redis_events/../auth/", "/admin/auth/user/", "x"]
)
def test_an_act_never_leads_to_an_address_that_is_not_ours(streams: Any, root: Client, address: str) -> None:
    letter = dead_letter()
    asked = f"{page(DeadLetter, 'discard')}?select=default:{letter.pk}&_back={address}"
    assert address not in re.findall(r'href="([^"]*)"', html_of(root, asked).split("<main")[1])
    assert confirm(root, asked)["Location"] == page(DeadLetter)


# ------------------------------------------------------------------ consumer groups


def pending(redis_client: redis.Redis) -> dict[str, str]:
    """Consumer of each pending entry."""
    found = redis_client.xpending_range(conf.redis_name(CHANNEL), GROUP, "-", "+", 100)
    return {each["message_id"].decode(): each["consumer"].decode() for each in found}


def test_the_entries_of_a_dead_consumer_are_claimed(world: World, root: Client, redis_client: redis.Redis) -> None:
    address = page(ConsumerGroup, "claim", to=GROUP_ID) + "?consumer=ghost"
    assert "Hand 1 pending entry of shop on shop.orders" in text_of(html_of(root, address))
    confirm(root, address)
    assert pending(redis_client)[world.entry_id] != "ghost"
    assert "1 done." in said(root, page(ConsumerGroup))
    entry = LogEntry.objects.get()
    assert root.get(str(entry.get_admin_url()) if entry.get_admin_url() else "/").status_code == 200


def test_an_entry_is_settled_without_running_and_leaves_a_dead_letter(
    world: World, root: Client, redis_client: redis.Redis
) -> None:
    world.letter.delete()  # what is held already would stay as it is
    confirm(root, f"{page(ConsumerGroup, 'skip', to=GROUP_ID)}?select={world.entry_id}")
    assert pending(redis_client) == {}
    assert HeldDelivery.objects.filter(reason__contains="root").count() == 1


def test_a_consumer_that_has_something_pending_is_not_removed(
    world: World, root: Client, redis_client: redis.Redis
) -> None:
    address = page(ConsumerGroup, "remove", to=GROUP_ID) + "?consumer=ghost"
    answer = confirm(root, address)
    assert "claim them first" in text_of(root.get(answer["Location"]).content.decode())
    redis_client.xack(conf.redis_name(CHANNEL), GROUP, world.entry_id)
    confirm(root, address)
    assert redis_client.xinfo_consumers(conf.redis_name(CHANNEL), GROUP) == []


def test_a_position_is_set_only_after_the_name_was_typed(world: World, root: Client, redis_client: redis.Redis) -> None:
    def last() -> str:
        (group,) = redis_client.xinfo_groups(conf.redis_name(CHANNEL))
        return group["last-delivered-id"].decode()

    address = page(ConsumerGroup, "move", to=GROUP_ID)
    before = last()
    assert "Type exactly" in text_of(confirm(root, address, typed="shopp", position="0").content.decode())
    assert last() == before
    confirm(root, address, typed="shop", position="0")
    assert last() == "0-0"


def test_a_position_that_is_none_is_said_where_it_was_typed(world: World, root: Client) -> None:
    answer = confirm(root, page(ConsumerGroup, "move", to=GROUP_ID), typed="shop", position="<b>tomorrow")
    html = answer.content.decode()
    assert "is no entry id" in text_of(html)
    assert 'value="&lt;b&gt;tomorrow"' in html


# ------------------------------------------------------------------ publishing by hand


def test_an_event_is_published_by_hand(world: World, root: Client) -> None:
    one = page(Channel, "change", to=CHANNEL)
    address = follow(root, html_of(root, one), "Publish an event…")
    answer = confirm(root, address, type="shop.order.noted", key="7", data='{"by": "hand"}')
    assert answer["Location"] == one
    (event,) = inspection.events(CHANNEL, type="shop.order.noted").events
    assert (event.key, event.data, event.source) == ("7", {"by": "hand"}, "shop")
    message = LogEntry.objects.get().change_message
    assert "shop.order.noted" in message
    assert 'hand"' not in message


@pytest.mark.parametrize(
    ("entered", "words"),
    [
        ({"type": "shop.order.noted", "data": "{no"}, "The data is no JSON"),
        ({"type": "shop.order.noted", "data": "[" * 100_000}, "The data is no JSON"),
        ({"type": "no type!", "data": "1"}, "type"),
        ({"type": "", "key": "7", "data": "text"}, "key"),
    ],
)
def test_a_mistake_in_an_event_is_said_and_what_was_entered_stays(
    world: World, root: Client, entered: dict[str, str], words: str
) -> None:
    html = confirm(root, page(Channel, "publish", to=CHANNEL), **entered).content.decode()
    assert words in text_of(html.split('class="errornote"')[1].split("</p>")[0])
    assert entered["data"] in html
    assert len(inspection.events(CHANNEL).events) == 3
    assert not LogEntry.objects.exists()


# ------------------------------------------------------------------ receivers and listeners


def test_a_receiver_is_paused_and_resumed(world: World, root: Client) -> None:
    one = page(ReceiverStatus, "change", to="shop/tests.index")
    confirm(root, follow(root, html_of(root, one), "Pause"))
    assert "paused by root" in said(root, page(ReceiverStatus))
    confirm(root, follow(root, html_of(root, one), "Resume"))
    assert "paused by root" not in said(root, page(ReceiverStatus))
    assert LogEntry.objects.count() == 2


def test_what_a_paused_receiver_has_parked_is_counted(streams: Any, root: Client) -> None:
    receives(CHANNEL, name="tests.index")(lambda event: None)
    dead_letter(1, state="parked")
    dead_letter(2, state="waiting", due=now())
    text = said(root, page(ReceiverStatus, "change", to="shop/tests.index"))
    assert "Waiting to run again 1" in text
    assert "Parked until it is resumed 1" in text
    assert "Waiting" in said(root, page(ReceiverStatus))


def test_a_listener_is_asked_to_stop(world: World, root: Client, redis_client: redis.Redis) -> None:
    one = page(ListenerStatus, "change", to=own_id())
    confirm(root, follow(root, html_of(root, one), "Ask it to stop"))
    assert redis_client.execute_command(*asked_to_stop(own_id())) == b"root"
    assert "⚠ stopping" in said(root, page(ListenerStatus))


# ------------------------------------------------------------------ budgets


def test_styles_and_script_stay_small() -> None:
    sizes = {path.suffix: path.stat().st_size for path in STATIC.iterdir()}
    assert sizes.keys() == {".css", ".js"}
    assert sizes[".css"] <= 10_000
    assert sizes[".js"] <= 8_000


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many round trips to the server the pages have made since the last call."""
    made: list[inspection.Server] = []

    class Counted(inspection.Server):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    for module in ("pages", "acts", "feed"):
        monkeypatch.setattr(f"redis_events.admin.{module}.Server", Counted)

    def counted() -> int:
        total = sum(each.round_trips for each in made)
        made.clear()
        return total

    return counted


def queries_of(client: Client, address: str) -> list[str]:
    """The SQL of a page, without the savepoints that are there because a test runs in a transaction."""
    with CaptureQueriesContext(connections["default"]) as one, CaptureQueriesContext(connections["other"]) as two:
        html_of(client, address)
    found = [query["sql"] for query in (*one.captured_queries, *two.captured_queries)]
    return [sql for sql in found if "SAVEPOINT" not in sql]


def test_each_page_keeps_to_15_queries_and_12_round_trips(world: World, root: Client, round_trips: Any) -> None:
    for address in looks(world):
        queries, trips = queries_of(root, address), round_trips()
        assert len(queries) <= 15, "\n".join([address, *queries])
        assert trips <= 12, f"{address}: {trips} round trips"


def test_the_page_of_one_error_asks_the_database_for_no_other(streams: Any, root: Client) -> None:
    dead_letter(1), dead_letter(2, fingerprint="e" * 16)
    queries = queries_of(root, f"{page(DeadLetter)}?fingerprint={'f' * 16}&using=default")
    (grouped,) = (sql for sql in queries if "GROUP BY" in sql)
    assert f""""fingerprint" = '{"f" * 16}'""" in grouped


def test_a_big_table_is_neither_counted_nor_sorted_as_a_whole(
    streams: Any, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_COUNTED", 10)
    for number in range(12):
        dead_letter(number)
    queries = queries_of(root, page(HeldDelivery))
    counts = [sql for sql in queries if "COUNT(" in sql]
    assert counts
    assert all("LIMIT 10" in sql for sql in counts)
    rows = [sql for sql in queries if "ORDER BY" in sql and "held" in sql.lower()]
    assert all('ORDER BY "redis_events_helddelivery"."id" DESC' in sql for sql in rows)
    assert not any('"raw"' in sql for sql in rows)


# ------------------------------------------------------------------ where it is installed


def test_pages_work_in_an_admin_site_of_ones_own(project: Project) -> None:
    code = """
from django.contrib.admin import AdminSite
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import path
from redis_events.admin import PAGES, register
import sys, types
mine = AdminSite(name="mine")
register(mine)
urls = types.ModuleType("my_urls"); urls.urlpatterns = [path("back-office/", mine.urls)]; sys.modules["my_urls"] = urls
user = User.objects.create_superuser("root")
with override_settings(ROOT_URLCONF="my_urls"):
    client = Client(); client.force_login(user)
    for model in PAGES:
        answer = client.get(f"/back-office/redis_events/{model._meta.model_name}/")
        assert answer.status_code == 200, (model, answer.status_code)
        assert b'"/admin/' not in answer.content
print("all", len(PAGES))
"""
    assert f"all {len(PAGES)}" in project.shell(code)


def test_nothing_is_registered_where_the_setting_says_so(project: Project) -> None:
    project.settings = {"ADMIN": False}
    code = "from django.contrib import admin; print([m for m in admin.site._registry if 'redis_events' in str(m)])"
    assert "[]" in project.shell(code)


def test_broken_settings_are_said_by_check_and_not_by_the_admin(project: Project) -> None:
    project.settings = {"MISSPELT": 1}
    process = project.manage("check")
    assert process.wait(timeout=30) == 1
    assert "redis_events.E001" in process.output
    assert "Traceback" not in process.output


def test_nothing_of_the_admin_is_imported_where_it_is_not_installed(project: Project) -> None:
    (project.folder / "bare.py").write_text(
        "from tests.settings import *\n"
        "INSTALLED_APPS = ['django.contrib.contenttypes', 'redis_events', 'app']\n"
        "MIDDLEWARE = []\nROOT_URLCONF = 'bare'\nurlpatterns = []\n"
    )
    project.env["DJANGO_SETTINGS_MODULE"] = "bare"
    output = project.shell("import sys; print([name for name in sys.modules if name.startswith('redis_events.admin')])")
    assert "[]" in output
    process = project.manage("check")
    assert process.wait(timeout=30) == 0, process.output


def test_static_files_are_found_under_the_names_of_a_manifest(project: Project) -> None:
    (project.folder / "hashed.py").write_text(
        "from tests.settings import *\n"
        "STORAGES = {'default': {'BACKEND': 'django.core.files.storage.FileSystemStorage'}, 'staticfiles': "
        "{'BACKEND': 'django.contrib.staticfiles.storage.ManifestStaticFilesStorage'}}\n"
        f"STATIC_ROOT = {str(project.folder / 'static')!r}\n"
    )
    project.env["DJANGO_SETTINGS_MODULE"] = "hashed"
    code = """
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("collectstatic", verbosity=0, interactive=False)
client = Client(); client.force_login(User.objects.create_superuser("root"))
print(client.get("/admin/redis_events/overview/").content.decode())
"""
    output = project.shell(code, timeout=60)
    assert re.search(r"redis_events/admin\.[0-9a-f]{12}\.css", output)
    assert re.search(r"redis_events/admin\.[0-9a-f]{12}\.js", output)


def test_no_view_runs_in_a_transaction_of_its_request(world: World) -> None:
    """An act commits its rows before it tells Redis."""
    for model, _view, address in world.addresses():
        if model not in ("helddelivery", "inboxentry", "outboxevent"):
            assert resolve(address).func._non_atomic_requests == set(connections), address  # type: ignore[attr-defined]


@pytest.mark.parametrize("language", ["de", "zh-hans", "ar"])
def test_every_page_opens_in_other_languages(world: World, root: Client, settings: Any, language: str) -> None:
    settings.LANGUAGE_CODE = language
    for address in (*looks(world), *acts(world)):
        html = html_of(root, address)
        assert f'lang="{language}"' in html
    assert "shop.order.paid" in html_of(root, page(LoggedEvent))


def test_every_page_has_a_title_and_a_way_back(world: World, root: Client) -> None:
    for model in PAGES:
        html = html_of(root, page(model))
        assert "<title>" in html
        assert 'href="/admin/redis_events/"' in html
        assert re.search(r"<h1>.+</h1>", html), model


def test_moments_can_be_read_by_machines(world: World, root: Client) -> None:
    letter = dead_letter(2, created_at=now() - timedelta(days=3))
    html = html_of(root, page(DeadLetter, "change", to=f"default:{letter.pk}"))
    assert "(3 days)" in html
    assert re.search(r'<time datetime="20\d\d-\d\d-\d\dT[\d:.]+\+00:00">', html)
