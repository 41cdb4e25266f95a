"""The settings: read late, refused with the place, never leaking a password."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from redis_events.conf import READERS, conf, glob, mask, problems, suggest
from redis_events.exceptions import ConfigurationError
from redis_events.retry import Retry


@pytest.fixture
def given(settings: Any) -> Any:
    """Set REDIS_EVENTS to exactly these settings."""

    def set_to(value: Any) -> None:
        settings.REDIS_EVENTS = value

    return set_to


DEFAULTS = {
    "SERVICE": "",
    "LOCATION": "redis://localhost:6379/0",
    "PREFIX": "",
    "CHANNELS": {},
    "CLAIM_AFTER": 60.0,
    "MAX_DELIVERIES": 5,
    "GRACE": 30.0,
    "BATCH": 100,
    "RETRY": {"attempts": 8, "delay": 1.0, "max_delay": 600.0},
    "MAX_EVENT_BYTES": 262_144,
    "PUBLISH_TIMEOUT": 0.25,
    "RECONNECT_MAX": 3.0,
    "POLL": 1.0,
    "RETENTION": 7 * 86_400.0,
    "MAX_LENGTH": None,
    "KEEP_DEAD": 30 * 86_400.0,
    "ADMIN": True,
}


def test_without_the_setting_everything_has_its_default(settings: Any) -> None:
    del settings.REDIS_EVENTS
    assert {name: getattr(conf, name) for name in READERS} == DEFAULTS
    assert conf.source == "unnamed"


def test_the_location_comes_from_the_environment_when_the_setting_is_silent(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "REDIS_URL", "redis://elsewhere:1/2")
    given({})
    assert conf.LOCATION == "redis://elsewhere:1/2"
    given({"LOCATION": "memory://"})
    assert conf.LOCATION == "memory://"


def test_a_changed_setting_counts_at_once_and_everywhere(given: Any) -> None:
    given({"PREFIX": "one"})
    assert conf.redis_name("c") == "one:c"
    given({"PREFIX": ""})
    assert conf.redis_name("c") == "c"


def test_durations_may_be_timedeltas(given: Any) -> None:
    given({"GRACE": timedelta(minutes=1), "RETRY": {"delay": timedelta(seconds=2)}})
    assert conf.GRACE == 60.0
    assert conf.RETRY["delay"] == 2.0


def test_retry_may_be_the_class_receivers_use(given: Any) -> None:
    given({"RETRY": Retry(attempts=3, delay=0.5, max_delay=5)})
    assert conf.RETRY == {"attempts": 3, "delay": 0.5, "max_delay": 5.0}


WRONG = [
    ([], "REDIS_EVENTS: must be a dict."),
    ("redis://localhost", "REDIS_EVENTS: must be a dict."),
    ({"PREFX": "x"}, "REDIS_EVENTS: unknown setting 'PREFX'. Did you mean \"PREFIX\"?"),
    ({"prefix": "x"}, "REDIS_EVENTS: unknown setting 'prefix'. "),
    ({1: "x"}, "REDIS_EVENTS: unknown setting 1. Known: SERVICE, LOCATION"),
    ({"SERVICE": "my shop"}, 'REDIS_EVENTS["SERVICE"]: must be a name'),
    ({"SERVICE": "shop\n"}, 'REDIS_EVENTS["SERVICE"]: must be a name'),
    ({"SERVICE": "s" * 65}, 'REDIS_EVENTS["SERVICE"]: must be a name'),
    ({"SERVICE": None}, 'REDIS_EVENTS["SERVICE"]: must be a name'),
    ({"PREFIX": "a b"}, 'REDIS_EVENTS["PREFIX"]: must be up to 64'),
    ({"PREFIX": "*"}, 'REDIS_EVENTS["PREFIX"]: must be up to 64'),
    ({"LOCATION": None}, 'REDIS_EVENTS["LOCATION"]: must be a URL'),
    ({"LOCATION": "localhost:6379"}, "REDIS_EVENTS[\"LOCATION\"]: has the scheme 'localhost'. Known: redis, "),
    ({"LOCATION": "redsi://localhost"}, 'REDIS_EVENTS["LOCATION"]: has the scheme \'redsi\'. Did you mean "redis"?'),
    ({"LOCATION": "redis://localhost:port"}, 'REDIS_EVENTS["LOCATION"]: is not a URL'),
    ({"LOCATION": "redis://localhost:99999"}, 'REDIS_EVENTS["LOCATION"]: is not a URL'),
    ({"LOCATION": "redis://[::1"}, 'REDIS_EVENTS["LOCATION"]: is not a URL'),
    ({"LOCATION": "redis://:12/secret@localhost"}, 'REDIS_EVENTS["LOCATION"]: has an @ after the host'),
    ({"LOCATION": "redis://:12#secret@localhost"}, 'REDIS_EVENTS["LOCATION"]: has an @ after the host'),
    ({"LOCATION": "redis://localhost/first"}, 'REDIS_EVENTS["LOCATION"]: has the database'),
    ({"GRACE": 0}, 'REDIS_EVENTS["GRACE"]: must be a positive number of seconds'),
    ({"GRACE": True}, 'REDIS_EVENTS["GRACE"]: must be a positive number of seconds'),
    ({"GRACE": "30"}, 'REDIS_EVENTS["GRACE"]: must be a positive number of seconds'),
    ({"GRACE": float("nan")}, 'REDIS_EVENTS["GRACE"]: must be a positive number of seconds'),
    ({"GRACE": float("inf")}, 'REDIS_EVENTS["GRACE"]: must be a positive number of seconds'),
    ({"BATCH": 0}, 'REDIS_EVENTS["BATCH"]: must be a whole number'),
    ({"BATCH": 1.5}, 'REDIS_EVENTS["BATCH"]: must be a whole number'),
    ({"BATCH": True}, 'REDIS_EVENTS["BATCH"]: must be a whole number'),
    ({"MAX_LENGTH": 0}, 'REDIS_EVENTS["MAX_LENGTH"]: must be a whole number'),
    ({"ADMIN": 1}, 'REDIS_EVENTS["ADMIN"]: must be True or False'),
    ({"RETRY": {"tries": 3}}, "REDIS_EVENTS[\"RETRY\"]: has no key 'tries'. Known: attempts"),
    ({"RETRY": {"attempts": 0}}, 'REDIS_EVENTS["RETRY"]: must be a whole number'),
    ({"RETRY": {"delay": 700}}, 'REDIS_EVENTS["RETRY"]: has a delay'),
    ({"RETRY": {"max_delay": 1e12}}, 'REDIS_EVENTS["RETRY"]: has a delay'),
    ({"RETRY": 3}, 'REDIS_EVENTS["RETRY"]: must be a whole number'),
    ({"CHANNELS": ["c"]}, 'REDIS_EVENTS["CHANNELS"]: must be a dict'),
    ({"CHANNELS": {"c": None}}, 'REDIS_EVENTS["CHANNELS"]["c"]: must be a dict, not None.'),
    ({"CHANNELS": {"a b": {}}}, 'REDIS_EVENTS["CHANNELS"]["a b"]: is not a channel name'),
    ({"CHANNELS": {1: {}}}, 'REDIS_EVENTS["CHANNELS"]["1"]: is not a channel name'),
    ({"CHANNELS": {"redis-events:x": {}}}, 'REDIS_EVENTS["CHANNELS"]["redis-events:x"]: is not a channel name'),
    ({"CHANNELS": {"c": {"TRANSPROT": "pubsub"}}}, '["CHANNELS"]["c"]: unknown setting \'TRANSPROT\'. Did you mean'),
    ({"CHANNELS": {"c": {"OUTBOX": True, "TRANSPORT": "pubsub"}}}, '["CHANNELS"]["c"]: OUTBOX needs a stream'),
    ({"CHANNELS": {"c": {"OUTBOX": 1}}}, '["CHANNELS"]["c"]["OUTBOX"]: must be True or False'),
    ({"CHANNELS": {"c": {"TRANSPORT": "pubsubb"}}}, '["CHANNELS"]["c"]["TRANSPORT"]: is unknown: \'pubsubb\'. Did you'),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=lambda each: str(each)[:40])
def test_a_mistake_is_told_with_its_place_and_what_was_meant(given: Any, value: Any, message: str) -> None:
    given(value)
    said = "\n".join(map(str, problems()))
    assert message in said
    assert "secret" not in said
    with pytest.raises(ConfigurationError) as caught:
        _ = conf.PREFIX
    assert isinstance(caught.value, ImproperlyConfigured)


def test_a_channel_with_an_outbox_is_a_stream(given: Any) -> None:
    given({"CHANNELS": {"a": {"OUTBOX": True}, "b": {"OUTBOX": True, "TRANSPORT": "stream"}, "c": {"OUTBOX": False}}})
    assert [(each.OUTBOX, each.TRANSPORT) for each in conf.CHANNELS.values()] == [
        (True, "stream"),
        (True, "stream"),
        (False, "pubsub"),
    ]


def test_every_mistake_is_found_at_once(given: Any) -> None:
    given({"PREFX": "x", "GRACE": 0, "BATCH": 0})
    assert len(list(problems())) == 3


def test_the_default_settings_have_no_problem(given: Any) -> None:
    given(DEFAULTS)
    assert list(problems()) == []


def test_a_bad_redis_url_is_blamed_on_the_environment(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "REDIS_URL", "http://localhost")
    given({})
    assert [problem.place for problem in problems()] == ["REDIS_URL"]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("shop.orders", "shop.orders"),
        ("shop.orders.paid", "shop.orders.*"),
        ("shop.other", "shop.*"),
        ("shop.", "shop.*"),
        ("shop", "*"),
        ("x", "*"),
    ],
)
def test_the_exact_name_wins_then_the_longest_pattern(given: Any, name: str, entry: str) -> None:
    given({"CHANNELS": {"*": {}, "shop.*": {}, "shop.orders.*": {}, "shop.orders": {}, "*s": {}}})
    found = conf.channel(name)
    assert found
    assert found.name == entry


def test_a_channel_nobody_named_has_no_entry(given: Any) -> None:
    given({"CHANNELS": {"shop.*": {}}})
    assert conf.channel("billing.x") is None


GLOBS = [
    ("*", "", True),
    ("*", "a.b:c", True),
    ("a", "a", True),
    ("a", "ab", False),
    ("a*", "a", True),
    ("a*a", "a", False),
    ("a*a", "aa", True),
    ("*.b", ".b", True),
    ("a*b*c", "a1b2c", True),
    ("a*b*c", "acb", False),
    ("ab*ba", "aba", False),
    ("*a*a*", "a", False),
    ("a**c", "abc", True),
    ("a?", "ab", False),
    ("[ab]", "a", False),
    ("a\\*", "a\\b", True),
    ("", "", True),
    ("", "a", False),
    ("*ab*ab*ab*", "abab" * 2, True),
]


@pytest.mark.parametrize(("pattern", "name", "covers"), GLOBS)
def test_a_star_is_any_characters_and_nothing_else_is_special(pattern: str, name: str, covers: bool) -> None:
    assert glob(pattern, name) is covers


MASKED = [
    ("redis://localhost:6379/0", "redis://localhost:6379/0"),
    ("redis://:secret@localhost", "redis://:***@localhost"),
    ("redis://ana:secret@localhost:1/2", "redis://ana:***@localhost:1/2"),
    ("redis://ana:s:e@cret@localhost", "redis://ana:***@localhost"),
    ("redis://ana@localhost", "redis://ana@localhost"),
    ("rediss://h/0?password=secret&ssl_cert_reqs=none", "rediss://h/0"),
    ("unix://ana:secret@/run/redis.sock?db=1", "unix://ana:***@/run/redis.sock"),
    ("unix:///run/redis.sock", "unix:///run/redis.sock"),
]


@pytest.mark.parametrize(("location", "shown"), MASKED)
def test_a_location_is_shown_without_its_password(location: str, shown: str) -> None:
    assert mask(location) == shown


def test_a_near_miss_is_suggested_and_a_far_one_gets_the_list() -> None:
    assert suggest("craeted", ("created", "updated")) == 'Did you mean "created"?'
    assert suggest("xyz", ("created", "updated")) == "Known: created, updated."
