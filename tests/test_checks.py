"""System checks: each misuse is told once, with an id of its own and what to do about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import connection, connections, models
from django.test.utils import isolate_apps

from redis_events import Event, ModelPublisher, Retry, checks, event, publishes, receives
from redis_events.transports.pubsub import MOST_PATTERNS
from tests.processes import ROOT, Project, source_of
from tests.testapp.models import Order

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypes

SAYS_WHAT_TO_DO = (
    *("Add", "Choose", "Correct", "Did", "Give", "Import", "Known:", "Leave", "Make", "Name", "Narrow", "Raise", "Set"),
    *("Use", "Write"),
)
"""How hints begin."""


@pytest.fixture
def ids(declared: None, settings: Any) -> Any:
    """The ids that the checks find now, without redis_events."""

    def ids(**given: Any) -> list[str]:
        if given:
            settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, **given}
        return [message.id.removeprefix("redis_events.") for message in found()]

    return ids


def found(*, deploy: bool = False) -> list[CheckMessage]:
    """What the checks say now. Whatever it is, its hint says what to do."""
    ours = run_checks(tags=["redis_events"], include_deployment_checks=deploy)
    messages = [message for message in ours if message.id.startswith("redis_events.")]
    for message in messages:
        assert message.hint.split()[0] in SAYS_WHAT_TO_DO, message
    return messages


@dataclass
class Refunded:
    order_id: int


@dataclass
class Both:
    value: Refunded | Event[Any]


def receiver(event: Event[Any]) -> None: ...


# ------------------------------------------------------------------ each one


def test_a_project_without_mistakes_has_no_message(ids: Any) -> None:
    event("shop.order.refunded", channel="shop.orders", key_field="order_id")(Refunded)
    receives(Refunded)(receiver)
    receives("live.*", types="a.*", group="search", using="other", name="other")(receiver)
    publishes(Order)(type("P", (ModelPublisher,), {"channel": "shop.orders", "fields": "__all__"}))
    assert ids() == []


def test_each_wrong_setting_is_an_e001_with_its_hint(ids: Any) -> None:
    assert ids(PREFX="x", GRACE=0) == ["E001", "E001"]
    assert any('Did you mean "PREFIX"?' in message.hint for message in found())


def test_a_wrong_setting_is_told_alone(ids: Any) -> None:
    receives("c", once=True)(receiver)
    assert ids(PREFX="x", CHANNELS={"c": {"TRANSPORT": "nowhere.Pigeon"}}) == ["E001"]


def test_a_signature_that_does_not_take_one_event_is_an_e002(ids: Any) -> None:
    def none() -> None: ...
    def two(event: Any, more: Any) -> None: ...
    def named(*, event: Any) -> None: ...
    def fine(event: Any, more: int = 1, *rest: Any, **options: Any) -> None: ...

    for function in (none, two, named, fine):
        receives("c")(function)
    assert ids() == ["E002"] * 3


def test_an_annotation_that_cannot_be_resolved_is_an_e003(ids: Any) -> None:
    def credit(event: Event[OnlyForTypes]) -> None: ...

    receives("c")(credit)
    assert ids() == ["E003"]


class Named(Protocol):
    id: str


@pytest.mark.parametrize("annotation", [Refunded, int, dict, dict[str, int], list[Refunded], Refunded | None])
def test_an_argument_annotated_with_the_data_instead_of_the_event_is_an_e016(ids: Any, annotation: Any) -> None:
    def credit(event: Any) -> None: ...

    credit.__annotations__["event"] = annotation
    event("t", channel="c")(Refunded)
    receives(Refunded)(credit)
    assert ids() == ["E022"]
    name = getattr(annotation, "__name__", "") if annotation in (Refunded, int, dict) else str(annotation)
    assert f"Write Event[{name}] instead" in found()[0].hint


@pytest.mark.parametrize(
    "annotation", [Event, Event[Any], Event[Refunded], Event[Refunded] | None, Any, object, msgspec.Struct, Named]
)
def test_an_annotation_an_event_can_have_is_no_mistake(ids: Any, annotation: Any) -> None:
    def credit(event: Any) -> None: ...

    credit.__annotations__["event"] = annotation
    receives("c", types="t")(credit)
    assert ids() == []


def test_a_data_type_no_json_can_be_read_into_is_an_e004(ids: Any) -> None:
    def credit(event: Event[Refunded | Both]) -> None: ...

    receives("c", types="t")(credit)
    assert ids() == ["E004"]


def test_once_in_an_async_receiver_is_an_e005(ids: Any) -> None:
    async def credit(event: Any) -> None: ...

    receives("c", once=True)(credit)
    assert ids() == ["E005"]


@pytest.mark.parametrize("channel", ["", "a b", "a\n", "redis-events:stats", "redis-events:*"])
def test_a_channel_where_nothing_ever_comes_is_an_e006(ids: Any, channel: str) -> None:
    receives(channel)(receiver)
    assert ids() == ["E006"]


@pytest.mark.parametrize("group", ["a b", "~relay", "a:b", "x" * 65])
def test_a_group_that_is_no_name_is_an_e007(ids: Any, group: str) -> None:
    receives("c", group=group)(receiver)
    assert ids() == ["E007"]


def test_an_unknown_database_is_an_e008(ids: Any) -> None:
    receives("c", using="nowhere")(receiver)
    assert ids() == ["E008"]


def test_two_receivers_of_one_name_are_an_e009(ids: Any) -> None:
    receives("a")(receiver)
    receives("b")(receiver)
    assert ids() == ["E009"]


def test_more_patterns_than_a_listener_may_have_are_one_e010(ids: Any) -> None:
    for number in range(MOST_PATTERNS):
        receives(f"tenant-{number}.*", name=str(number))(receiver)
    assert ids() == []
    receives("*", name="more")(receiver)
    assert ids() == ["E010"]


class Plain:
    """Not a dataclass: its values have no fields."""

    order_id: int


@dataclass
class Nested:
    lines: dict[str, list[Plain]]
    next: Nested | None = None


@dataclass
class Unresolved:
    amount: OnlyForTypes


@pytest.mark.parametrize("data_type", [Both, Plain, Nested, Unresolved])
def test_an_event_class_that_is_no_shape_is_an_e011(ids: Any, data_type: type) -> None:
    event("t", channel="c")(data_type)
    assert ids() == ["E011"]


@pytest.mark.parametrize("data_type", [Plain, list[Nested], complex])
def test_a_class_inside_a_data_type_that_json_cannot_be_made_into_is_an_e004(ids: Any, data_type: Any) -> None:
    def credit(event: Any) -> None: ...

    credit.__annotations__["event"] = Event[data_type]
    receives("c", types="t")(credit)
    assert ids() == ["E004"]
    assert any((word in found()[0].msg) for word in ("Plain", "complex"))


@dataclass
class Rich:
    amount: Decimal
    at: datetime
    state: State
    tags: Iterable[str]
    extra: object
    parts: tuple[Struct, ...] = ()
    next: Rich | None = None


class State(Enum):
    NEW = "new"


class Struct(msgspec.Struct):
    value: Literal["a", "b"]


@pytest.mark.parametrize("data_type", [Rich, Struct, dict[str, list[Rich]], Rich | None])
def test_what_json_can_be_made_into_is_no_mistake(ids: Any, data_type: Any) -> None:
    def credit(event: Any) -> None: ...

    credit.__annotations__["event"] = Event[data_type]
    receives("c", types="t")(credit)
    event("t", channel="c", key_field="amount")(Rich)
    assert ids() == []


@pytest.mark.parametrize(
    "given",
    [
        {"type": "order refunded"},
        {"type": None},
        {"channel": "shop.*"},
        {"channel": "redis-events:stats"},
        {"key_field": "order"},
        {"key_field": 5},
    ],
    ids=str,
)
def test_an_event_class_nobody_can_publish_is_an_e012(ids: Any, given: Any) -> None:
    event(**{"type": "t", "channel": "c", **given})(Refunded)
    assert ids() == ["E012"]


class Point(models.Field):
    pass


def test_a_published_field_that_may_have_no_json_form_is_a_w004(ids: Any) -> None:
    with isolate_apps("tests.testapp"):

        class Place(models.Model):
            where = Point()

            class Meta:
                app_label = "testapp"

        publishes(Place)(type("Places", (ModelPublisher,), {"channel": "c", "fields": ("id", "where")}))
        assert ids() == ["W004"]


class NoTransport:
    def __init__(self, location: str) -> None: ...


@pytest.mark.parametrize("path", ["nowhere.Pigeon", "tests.test_checks.Missing", "tests.test_checks.NoTransport"])
def test_a_transport_that_is_none_is_an_e013(ids: Any, path: str) -> None:
    assert ids(LOCATION="redis://localhost", CHANNELS={"c": {"TRANSPORT": path}}) == ["E013"]


def test_a_data_class_for_every_type_of_a_channel_is_a_w001(ids: Any) -> None:
    def credit(event: Event[Refunded]) -> None: ...

    receives("c")(credit)
    assert ids() == ["W001"]
    receives("c", types="t", name="narrow")(credit)
    assert ids() == ["W001"]


@pytest.mark.parametrize("location", ["memory://", "redis://localhost"])
def test_once_on_pubsub_is_a_w002(ids: Any, location: str) -> None:
    receives("c", once=True)(receiver)
    assert ids(LOCATION=location) == ["W002"]


def test_receivers_outside_of_the_installed_apps_are_a_w003(project: Project) -> None:
    stray = project.folder / "app/stray"
    stray.mkdir()
    (stray / "__init__.py").write_text("")
    settings = {"TEST_APPS": "app.inner"}
    (project.folder / "app/inner").mkdir()
    (project.folder / "app/inner/__init__.py").write_text("")
    (stray / "receivers.py").write_text("from redis_events import receives")
    (stray / "events.py").write_text("# nothing of ours")
    check = project.manage("check", **settings)
    assert check.wait() == 0, check.output
    assert check.output.count("redis_events.W003") == 1
    assert f"{stray / 'receivers.py'} is never imported: app.stray is not in INSTALLED_APPS." in check.output


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("REDIS_EVENT", "REDIS_EVENTS"),
        ("REDISEVENTS", "REDIS_EVENTS"),
        ("REDIS_EVNTS", "REDIS_EVENTS"),
        ("REDIS_EVENTS_SETTINGS", "REDIS_EVENTS"),
        ("REDIS_EVENT_CONFIG", "REDIS_EVENTS"),
        ("DJANGO_REDIS_EVENTS", "REDIS_EVENTS"),
        ("REDIS_EVENTS_LOCATION", 'REDIS_EVENTS["LOCATION"]'),
    ],
)
def test_a_setting_whose_name_is_nearly_ours_is_a_w006(ids: Any, settings: Any, name: str, meant: str) -> None:
    setattr(settings, name, "redis://localhost" if name.endswith("LOCATION") else {"SERVICE": "shop"})
    assert ids() == ["W006"]
    assert f"Did you mean {meant}?" in found()[0].hint


@pytest.mark.parametrize("name", ["REDIS", "REDIS_CLIENTS", "REDIS_SENTINELS", "EVENTS", "REDIS_SETTINGS", "LOCATION"])
def test_a_setting_of_another_app_is_left_alone(ids: Any, settings: Any, name: str) -> None:
    setattr(settings, name, {"SERVICE": "shop"})
    settings.REDIS_EVENT_URL = "no dict, no setting of ours"
    assert ids() == []


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("redis://example.com", ["W010"]),
        ("redis://:secret@example.com?ssl_cert_reqs=none", ["W010", "W011"]),
        ("rediss://example.com?ssl_cert_reqs=none", ["W011"]),
        ("rediss://example.com", []),
        ("redis://localhost", []),
        ("redis://[::1]:1", []),
        ("unix:///run/redis.sock", []),
    ],
)
def test_what_leaves_the_machine_unprotected_is_told_before_a_deployment_only(
    ids: Any, location: str, expected: list[str]
) -> None:
    assert ids(LOCATION=location) == []
    messages = found(deploy=True)
    assert [message.id.removeprefix("redis_events.") for message in messages] == expected
    assert "secret" not in str(messages)


# ------------------------------------------------------------------ all of them


def written_ids() -> Iterator[str]:
    for node in ast.walk(ast.parse(source_of(checks))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "message":
            assert isinstance(node.args[1], ast.Constant)
            yield node.args[1].value


def test_one_id_is_one_check_and_every_id_is_tested_and_documented() -> None:
    by_function: dict[str, set[str]] = {}
    tree = ast.parse(source_of(checks))
    for function in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
        for id in re.findall(r'\bmessage\(\s*\w+, "([EW]\d{3})"', ast.unparse(function).replace("'", '"')):
            by_function.setdefault(id, set()).add(function.name)
    assert set(by_function) == set(written_ids())
    assert {id: names for id, names in by_function.items() if len(names) > 1} == {}
    here, documented = Path(__file__).read_text().lower(), (ROOT / "docs" / "checks.md").read_text()
    for id in by_function:
        assert id.lower() in here
        assert f"## {id}\n" in documented


def test_e014_a_stream_needs_the_name_of_the_service(ids: Any) -> None:
    stream = {"orders": {"TRANSPORT": "stream"}, "live.*": {}}
    assert ids(SERVICE="", CHANNELS=stream) == ["E014"]
    assert ids(SERVICE="shop", CHANNELS=stream) == []


def test_e023_tables_take_no_times_without_a_zone(ids: Any, settings: Any) -> None:
    settings.USE_TZ = False
    assert ids(CHANNELS={"orders": {}}) == []
    assert ids(CHANNELS={"orders": {"OUTBOX": True}}) == ["E023"]
    assert ids(CHANNELS={}) == []
    receives("orders")(receiver)
    assert ids() == ["E023"]
    settings.USE_TZ = True
    assert ids() == []


def test_w005_a_stream_is_kept_for_longer_than_its_retries_may_take(ids: Any) -> None:
    def kept(seconds: float) -> dict[str, Any]:
        return {"orders": {"TRANSPORT": "stream", "RETENTION": seconds}, "live": {"RETENTION": 1}}

    assert ids(CHANNELS=kept(127 + 60)) == []  # 1 + 2 + … + 64 s, and CLAIM_AFTER
    assert ids(CHANNELS=kept(127 + 59)) == ["W005"]
    assert ids(CHANNELS=kept(300)) == []
    receives("orders", retry=Retry(attempts=10**9, delay=1, max_delay=2))(receiver)
    assert ids() == ["W005"]
    assert ids(RETENTION=50, CHANNELS={"bills": {"TRANSPORT": "stream"}}) == ["W005"]


def test_every_message_has_a_hint_that_ends_in_its_page(ids: Any) -> None:
    receives("", group="a b", using="nowhere", once=True)(receiver)
    receives("c", name="not async")(lambda: None)
    assert set(ids()) == {"E002", "E006", "E007", "E008", "W002"}
    for message in found():
        anchor = message.id.removeprefix("redis_events.").lower()
        assert message.hint.endswith(f" (docs/checks.md#{anchor})")
        assert message.msg.endswith(".")


def test_checking_opens_no_socket(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: Any) -> None:
        raise AssertionError("a check connects")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    receives("c")(receiver)
    assert ids(LOCATION="redis://example.com", CHANNELS={"c": {"TRANSPORT": "pubsub"}}) == []
    found(deploy=True)


def stream_once(ids: Any, **options: Any) -> list[str]:
    receives("orders", once=True, **options)(receiver)
    return list(ids(SERVICE="shop", LOCATION="redis://localhost", CHANNELS={"orders": {"TRANSPORT": "stream"}}))


def test_once_on_a_stream_is_fine(ids: Any) -> None:
    assert stream_once(ids) == []
    assert ids(CHANNELS={}) == ["W002"]


def test_e019_a_database_that_cannot_say_which_rows_an_insert_made(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 34, 1))
    assert stream_once(ids) == ["E019"]


def test_e019_a_database_of_another_vendor(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connections["default"]), "vendor", "oracle")
    assert stream_once(ids) == ["E019"]


class KeepsUsOut:
    """Lets no table of redis_events into `other`."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if (db, app_label) == ("other", "redis_events") else None


class PutsUsElsewhere:
    """Puts the tables of redis_events in `other`."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model._meta.app_label == "redis_events" else None


def test_e020_a_database_a_router_keeps_the_inbox_out_of(ids: Any, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [KeepsUsOut()]
    assert stream_once(ids, using="other") == ["E020"]


def test_e021_a_database_where_nobody_would_commit(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings

    monkeypatch.setitem(settings.DATABASES["other"], "AUTOCOMMIT", False)
    assert stream_once(ids, using="other") == ["E021"]


def test_w014_a_router_moves_the_transaction_where_nobody_said(ids: Any, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [PutsUsElsewhere()]
    assert stream_once(ids) == ["W014"]
    assert stream_once(ids, using="other") == []


def test_a_once_receiver_whose_database_nobody_knows_is_an_e008_alone(ids: Any) -> None:
    assert stream_once(ids, using="nowhere") == ["E008"]


# ------------------------------------------------------------------ outbox


class OrdersElsewhere:
    """Orders are written to `other`; our tables are kept to `default`."""

    def db_for_write(self, model: type[models.Model], **_: Any) -> str | None:
        return "other" if model is Order else None

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        return db == "default" if app_label == "redis_events" else None


OUTBOXED: dict[str, Any] = {"LOCATION": "redis://localhost", "CHANNELS": {"shop.*": {"OUTBOX": True}}}


@pytest.fixture
def order_publisher(declared: None) -> None:
    @publishes(Order)
    class OrderPublisher(ModelPublisher):
        channel = "shop.orders"
        fields = ("id",)


def test_e016_names_the_database_the_routers_keep_the_outbox_from(
    ids: Any, settings: Any, order_publisher: None
) -> None:
    assert ids(**OUTBOXED) == []
    settings.DATABASE_ROUTERS = [OrdersElsewhere()]
    assert ids(**OUTBOXED) == ["E016"]
    assert "'other'" in found()[0].msg
    assert ids(CHANNELS={"shop.*": {"TRANSPORT": "stream"}}) == []


def test_w012_a_plain_receiver_of_our_own_outbox_may_run_twice(ids: Any) -> None:
    receives("shop.orders")(receiver)
    assert ids(**OUTBOXED) == ["W012"]
    assert ids(LOCATION="memory://") == []


@pytest.mark.usefixtures("real_transactions")
def test_w013_asks_the_database_only_when_told_to(ids: Any, order_publisher: None) -> None:
    assert ids(**OUTBOXED) == []
    ask = {"tags": ["database"], "databases": ["default", "other"]}
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE redis_events_outboxevent RENAME TO gone")
    try:
        assert [message.id for message in run_checks(**ask)] == ["redis_events.W013"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE gone RENAME TO redis_events_outboxevent")
    assert run_checks(**ask) == []
