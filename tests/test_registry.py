"""Who receives what: registering, annotations, and the table that matches."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from redis_events import Event, Retry, event, receives
from redis_events.codec import ANY
from redis_events.conf import glob
from redis_events.exceptions import ConfigurationError
from redis_events.registry import MOST_REMEMBERED, PatternIndex, Receiver, Table, all_receivers

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypes

pytestmark = pytest.mark.usefixtures("declared")


@dataclass
class Refunded:
    order_id: int


def receiver(channel: str, *, types: Any = None, name: str = "r") -> Receiver:
    def function(event: Event[Any]) -> None: ...

    receives(channel, types=types, name=name)(function)
    return all_receivers()[-1]


def names(channel: str, type: str = "") -> list[str]:
    return [each.name for each in Table(all_receivers()).match(channel, type)]


# ------------------------------------------------------------------ registering


def test_the_decorated_function_stays_as_it_is() -> None:
    def credit(event: Event[Any]) -> Any:
        return event.data

    assert receives("c")(credit) is credit
    assert credit(Event(data=7)) == 7


def test_a_receiver_is_known_by_its_path_or_its_name() -> None:
    @receives("c")
    def plain(event: Any) -> None: ...

    @receives("c", name="billing.credit")
    async def named(event: Any) -> None: ...

    first, second = all_receivers()
    assert first.name.startswith("tests.test_registry.test_a_receiver_is_known")
    assert (second.name, second.is_async, first.is_async) == ("billing.credit", True, False)
    assert first.place.rpartition(":")[0].endswith("test_registry.py")


def test_registering_again_replaces_as_a_reload_does() -> None:
    for group in ("one", "two"):

        @receives("c", group=group)
        def again(event: Any) -> None: ...

    assert [each.group for each in all_receivers()] == ["two"]


def test_an_event_class_brings_channel_and_type() -> None:
    event("shop.order.refunded", channel="shop.orders")(Refunded)

    @receives(Refunded)
    def credit(event: Any) -> None: ...

    (found,) = all_receivers()
    assert (found.channel, found.types, found.data_type) == ("shop.orders", ("shop.order.refunded",), Refunded)


@pytest.mark.parametrize(
    "given",
    [
        {"types": 5},
        {"types": ("shop.*", 5)},
        {"retry": 3},
        {"retry": Retry},
        {"timeout": "30"},
        {"group": None},
        {"using": ["default"]},
        {"name": 5},
    ],
    ids=str,
)
def test_an_argument_of_the_wrong_kind_is_refused_where_it_is_written(given: Any) -> None:
    (argument,) = given
    with pytest.raises(ConfigurationError, match=rf"@receives\('orders'\): {argument}= is "):
        receives("orders", **given)
    assert all_receivers() == ()


@pytest.mark.parametrize("channel", [5, None, ["orders"]])
def test_a_receiver_of_something_that_is_no_channel_is_refused(channel: Any) -> None:
    with pytest.raises(ConfigurationError, match="a channel, a pattern or an event class"):
        receives(channel)


def test_a_class_nobody_declared_and_a_decorator_without_parentheses_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Refunded"):
        receives(Refunded)
    with pytest.raises(ConfigurationError, match=r'forgot lacks its parentheses: write @receives\("…"\)'):

        @receives
        def forgot(event: Any) -> None: ...

    assert all_receivers() == ()


# ------------------------------------------------------------------ annotations


def data_type(function: Any) -> Any:
    receives("c")(function)
    return all_receivers()[-1].data_type


def test_the_annotation_says_what_data_is_decoded_to() -> None:
    def typed(event: Event[Refunded]) -> None: ...
    def text(event: Event[str]) -> None: ...
    def many(event: Event[list[Refunded] | None]) -> None: ...

    assert [data_type(each) for each in (typed, text, many)] == [Refunded, str, list[Refunded] | None]


def test_without_a_data_class_any_json_is_taken() -> None:
    def bare(event) -> None: ...
    def open_(event: Event) -> None: ...
    def anything(event: Event[Any]) -> None: ...
    def other(event: int) -> None: ...

    assert [data_type(each) for each in (bare, open_, anything, other)] == [ANY] * 4


def test_the_annotation_of_a_wrapped_function_counts() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            return function(*arguments)

        return wrapper

    @logged
    def credit(event: Event[Refunded]) -> None: ...

    assert data_type(credit) is Refunded


def test_an_annotation_that_cannot_be_resolved_is_told_with_the_receivers_name() -> None:
    def type_checking(event: Event[OnlyForTypes]) -> None: ...
    def missing(event: Event[random.Missing]) -> None: ...
    def broken(event: Any) -> None: ...

    broken.__annotations__["event"] = "Event["
    for function in (type_checking, missing, broken):
        with pytest.raises(ConfigurationError, match=f"{function.__name__}: its annotation cannot be resolved"):
            data_type(function)


# ------------------------------------------------------------------ matching


def test_receivers_match_by_channel_and_type_in_the_order_of_registration() -> None:
    receiver("shop.orders", name="all")
    receiver("shop.*", types="shop.order.*", name="pattern")
    receiver("*", types=("shop.order.paid", "x"), name="either")
    receiver("shop.orders", types="shop.order.shipped", name="shipped")
    assert names("shop.orders", "shop.order.paid") == ["all", "pattern", "either"]
    assert names("shop.orders", "shop.order.shipped") == ["all", "pattern", "shipped"]
    assert names("shop.other", "shop.order.paid") == ["pattern", "either"]
    assert names("billing", "x") == ["either"]
    assert names("billing", "y") == []


def test_plain_messages_reach_only_receivers_without_types() -> None:
    receiver("c", name="all")
    receiver("c", types="*", name="typed")
    receiver("c", types=("a", "*"), name="several")
    assert names("c", "") == ["all"]
    assert names("c", "t") == ["all", "typed", "several"]


def test_a_receiver_matched_twice_is_found_once() -> None:
    receiver("c", types=("a*", "*b", "ab"), name="r")
    assert names("c", "ab") == ["r"]


def test_two_receivers_of_one_name_are_both_found() -> None:
    def first(event: Any) -> None: ...
    def second(event: Any) -> None: ...

    for function in (first, second):
        receives("c", name="same")(function)
    assert names("c", "t") == ["same", "same"]


def test_a_pattern_index_finds_what_trying_every_pattern_finds() -> None:
    chance = random.Random(7)
    patterns = ["".join(chance.choices("ab.*", k=chance.randrange(6))) for _ in range(300)]
    index = PatternIndex((pattern, number) for number, pattern in enumerate(patterns))
    for _ in range(300):
        name = "".join(chance.choices("ab.", k=chance.randrange(8)))
        assert sorted(index.find(name)) == [number for number, each in enumerate(patterns) if glob(each, name)]


def test_junk_names_do_not_fill_the_memory() -> None:
    receiver("*", types="a", name="r")
    receiver("*", name="s")
    table = Table(all_receivers())
    for number in range(MOST_REMEMBERED + 10):
        table.match(f"junk.{number}", f"junk.{number}")
    assert len(table._found) <= MOST_REMEMBERED
    assert len(table._types) <= MOST_REMEMBERED
    assert [each.name for each in table.match("c", "a")] == ["r", "s"]
