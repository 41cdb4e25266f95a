"""Bytes ⇄ Event: what is written can be read anywhere, and whatever arrives has one verdict."""

from __future__ import annotations

import dataclasses
import enum
import gzip
import json
import pickle
import time
import uuid
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.utils import timezone as django_timezone
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from redis_events import Event
from redis_events.codec import MAX_DEPTH, decode, encode, encode_plain, encode_value, is_too_deep
from redis_events.exceptions import DecodeError, EncodeError, EventTooLarge, PublishError
from tests.naughty import STRINGS

REQUIRED = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.order.paid"}


def document(**attributes: Any) -> bytes:
    """A CloudEvents document; `...` leaves an attribute out."""
    given = {**REQUIRED, "data": {"id": 7}, **attributes}
    return json.dumps({name: value for name, value in given.items() if value is not ...}).encode()


def read(raw: bytes, data_type: Any = None) -> Event[Any]:
    found = decode(raw, channel="c")
    return found.read(data_type) if data_type else found.read()


def an_event(data: Any, **attributes: Any) -> Event[Any]:
    return Event(**{"data": data, "type": "shop.order.paid", "source": "shop", "channel": "c", **attributes})


# ------------------------------------------------------------------ publishing


def test_a_document_has_the_cloudevents_attributes_and_nothing_that_is_not_there() -> None:
    event = an_event({"id": 7}, key="7")
    written = json.loads(encode(event))
    assert written.pop("time").startswith(event.time.strftime("%Y-%m-%dT%H:%M:%S"))
    assert written == {
        "specversion": "1.0",
        "id": event.id,
        "source": "shop",
        "type": "shop.order.paid",
        "subject": "7",
        "datacontenttype": "application/json",
        "data": {"id": 7},
    }


def test_an_event_survives_the_way_out_and_in() -> None:
    event = an_event(
        {"a": [1, "2", None]}, key="k", correlation_id="c1", causation_id="c2", traceparent="00-ab-cd-01", hops=3
    )
    raw = encode(event)
    assert read(raw) == msgspec.structs.replace(event, raw=raw)


class Colour(enum.Enum):
    RED = "red"


class IntSubclass(int):
    pass


class FloatSubclass(float):
    pass


AS_JSON = [
    (Decimal("9.90"), "9.90"),
    (Decimal("1E+3"), "1E+3"),
    (datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "2026-01-02T03:04:05.678901Z"),
    (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=8))), "2026-01-02T00:00:00+08:00"),
    (date(2026, 1, 2), "2026-01-02"),
    (timedelta(seconds=90), "PT90S"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Colour.RED, "red"),
    (2**70, 2**70),
    ((1, 2), [1, 2]),
    ({1: "a"}, {"1": "a"}),
    (None, None),
    (mark_safe("<b>"), "<b>"),
    (gettext_lazy("Yes"), "Yes"),
    ({mark_safe("<b>"): 1}, {"<b>": 1}),
    (IntSubclass(3), 3),
    (FloatSubclass(1.5), 1.5),
    (False, False),
    (0, 0),
    ("", ""),
]


@pytest.mark.parametrize(("value", "written"), AS_JSON, ids=repr)
def test_values_have_one_json_form(value: Any, written: Any) -> None:
    assert json.loads(encode_value({"value": value})) == {"value": written}


@dataclasses.dataclass
class Holder:
    value: Any


class HolderStruct(msgspec.Struct):
    value: Any


NOT_FINITE = [
    FloatSubclass("nan"),
    float("nan"),
    float("inf"),
    float("-inf"),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("-Infinity"),
]
WRAPPERS = [lambda x: x, lambda x: [1, [x]], lambda x: {"a": {"b": x}}, Holder, HolderStruct, lambda x: (x,)]


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("value", NOT_FINITE, ids=str)
def test_nan_and_infinities_are_refused_wherever_they_hide(value: Any, wrap: Any) -> None:
    with pytest.raises(EncodeError, match="not a JSON number"):
        encode_value(wrap(value))


def test_texts_that_look_like_nan_are_texts() -> None:
    value = {"NaN": ["Infinity", None, "null", "2026-01-02T03:04:05"]}
    assert json.loads(encode_value(value)) == value


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_naive_datetimes_get_the_current_time_zone(wrap: Any) -> None:
    with django_timezone.override("Asia/Tokyo"):
        written = encode_value(wrap(datetime(2026, 1, 2, 3, 4, 5)))  # noqa: DTZ001  # naive on purpose
    assert b'"2026-01-02T03:04:05+09:00"' in written


REFUSED = [object(), {"a": object()}, {(1, 2): 3}, lambda: None, 1j, "\ud800", {"\udfff": 1}, Exception("x")]


@pytest.mark.parametrize("value", REFUSED, ids=ascii)
def test_what_has_no_json_form_is_refused_as_the_callers_mistake(value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(an_event(value))
    assert isinstance(caught.value, PublishError)
    with pytest.raises(EncodeError):
        encode_plain(value)


def test_data_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError):
        encode_value(endless)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_can_be_published_can_be_received_and_one_level_more_is_refused_on_both_sides() -> None:
    deepest = nested(MAX_DEPTH - 1)  # the document itself is the first level
    assert read(encode(an_event(deepest))).data == deepest
    with pytest.raises(EventTooLarge, match="deeper than 64"):
        encode(an_event(nested(MAX_DEPTH)))
    with pytest.raises(DecodeError, match="deeper than 64"):
        decode(document(data=nested(MAX_DEPTH)), channel="c")


def test_the_size_limit_counts_bytes_and_is_the_same_on_both_sides(settings: Any) -> None:
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "MAX_EVENT_BYTES": 300}
    raw = encode_plain("ü" * 150)
    assert read(raw, str).data == "ü" * 150
    with pytest.raises(EventTooLarge, match="302 bytes"):
        encode_plain("ü" * 151)
    with pytest.raises(DecodeError, match="MAX_EVENT_BYTES"):
        decode(raw + b"x", channel="c")


@pytest.mark.parametrize("text", STRINGS, ids=ascii)
def test_naughty_texts_pass_as_data_unharmed(text: str) -> None:
    for data in (text, {text: text}, [text]):
        assert read(encode(an_event(data))).data == data
    assert encode_plain(text) == text.encode()
    assert read(encode_plain({text: text})).data == {text: text}


# ------------------------------------------------------------------ receiving: plain messages

TEXTS = [
    b"Hello, World!!!",
    b"",
    b" ",
    b"{",
    b"}{",
    b'{"a":1,}',
    b'{"a":1}x',
    b"{'a':1}",
    b'{"a":NaN}',
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"[1e999]",
    b"9" * 5000,
    b"01",
    b"+1",
    b".5",
    b"nul",
    b"True",
    b'"\\ud800"',
    b'"\\x41"',
    b'"tab\there"',
    b'"open',
    b"/* c */ 1",
    b"\xef\xbb\xbf{}",
    b"\x00",
    b'{"specversion":"1.0"',
    document()[:-1],
    document() + b"{}",
    document().replace(b'"data"', b"data"),
]


@pytest.mark.parametrize("raw", TEXTS, ids=lambda raw: repr(raw[:40]))
def test_what_is_no_json_is_a_text(raw: bytes) -> None:
    event = read(raw)
    assert event.data == raw.decode()
    assert (event.type, event.key, event.source, event.raw) == ("", "", "", raw)


VALUES = [
    (b"1", 1),
    (b" null ", None),
    (b'"text"', "text"),
    (b"[1,2]", [1, 2]),
    (b'{"id":7}', {"id": 7}),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'{"id":"1","source":"s","type":"t"}', {"id": "1", "source": "s", "type": "t"}),
    (b'[{"specversion":"1.0"}]', [{"specversion": "1.0"}]),
    (b"\n\t" + b'{"a":"\xe4\xb8\xad"}', {"a": "中"}),
    (b"123456789012345678901234567890", 123456789012345678901234567890),
]


@pytest.mark.parametrize(("raw", "value"), VALUES, ids=repr)
def test_json_that_is_no_envelope_is_its_value(raw: bytes, value: Any) -> None:
    event = read(raw)
    assert event.data == value
    assert event.type == ""


@pytest.mark.parametrize("raw", [b'"text"', b"1", b"Hello", b'{"a":1}'])
def test_a_receiver_of_text_gets_plain_messages_as_they_were_sent(raw: bytes) -> None:
    assert read(raw, str).data == raw.decode()


def test_a_plain_message_gets_an_id_of_its_own_or_the_transports() -> None:
    assert read(b"x").id != read(b"x").id
    assert decode(b"x", channel="c", id="c/1-0").read().id == "c/1-0"


def test_every_truncation_of_a_document_is_a_text_and_never_an_exception() -> None:
    whole = encode(an_event({"ü": '\\"[{'}, key="7", correlation_id="c"))
    for end in range(len(whole)):
        part = whole[:end]
        if part.decode(errors="ignore").encode() == part:
            assert read(part).data == part.decode()
            continue
        with pytest.raises(DecodeError, match="not UTF-8"):  # cut inside a character
            read(part)


# ------------------------------------------------------------------ receiving: documents

BROKEN = {
    "specversion": ["0.3", "1", "", None, 1, 1.0, [], {}, True],
    "id": [..., None, "", 1, [], {}, True, "x" * 256, "a\x00b", "a\nb", "\x9b31m"],
    "source": [..., None, "", 1, [], "x" * 256, "a\rb"],
    "type": [..., None, "", 1, [], "x" * 256, "a\nb", "\x1b[31m", "\x7f", "a\u2028b"],
    "subject": ["", 1, [], "x" * 256, "a\tb", "\x85"],
    "time": ["", "yesterday", 1, [], "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z"],
    "datacontenttype": [1, []],
    "dataschema": ["", 1],
    "correlationid": ["", 1, "x" * 256, "\x00"],
    "causationid": ["", 1, "x" * 256, "\x1b"],
    "traceparent": ["", 1, "x" * 256, "\n"],
    "hops": [-1, 1.5, "1", None, True, 10**30, 1001],
    "dataversion": [1.5, [], True],
    "data_base64": ["aGVsbG8=", ""],
}
BROKEN_PAIRS = [(name, value) for name, values in BROKEN.items() for value in values]


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize(("name", "value"), BROKEN_PAIRS, ids=lambda each: ascii(each)[:30])
def test_a_document_that_breaks_the_rules_is_quarantined_whole(name: str, value: Any, escaped: bool) -> None:
    given = {**REQUIRED, name: value}
    kept = {key: each for key, each in given.items() if each is not ...}
    raw = json.dumps(kept, ensure_ascii=escaped).encode()
    with pytest.raises(DecodeError) as caught:
        decode(raw, channel="c")
    assert caught.value.raw == raw


def test_a_document_of_another_client_is_read_as_it_is() -> None:
    raw = document(
        id="A234-1234",
        source="https://github.com/cloudevents/spec/pull",
        type="com.github.pull_request.opened",
        subject="123 ü",
        time="2018-04-05T17:31:00+02:00",
        datacontenttype="text/xml",
        comexampleextension="value",
        othervalue=5,
        data='<much wow="xml"/>',
    )
    event = read(raw)
    assert (event.id, event.key, event.data) == ("A234-1234", "123 ü", '<much wow="xml"/>')
    assert event.time == datetime(2018, 4, 5, 15, 31, tzinfo=UTC)


@pytest.mark.parametrize("absent", ["time", "subject", "correlationid", "traceparent", "data"])
def test_optional_attributes_may_be_missing_or_null(absent: str) -> None:
    for value in (..., None):
        event = read(document(**{absent: value}))
        assert (event.key, event.correlation_id, event.traceparent) == ("", "", "")
        assert event.time.tzinfo
        assert event.data == (None if absent == "data" else {"id": 7})


def test_attributes_may_be_as_long_as_the_columns_that_keep_them() -> None:
    longest = "ü" * 255
    event = read(document(id=longest, source=longest, type=longest, subject=longest))
    assert event.id == event.source == event.type == event.key == longest


def test_escaped_letters_in_names_are_letters() -> None:
    raw = document().replace(b"shop.order.paid", b"shop\\u002eorder.p\\u0061id")
    assert read(raw).type == "shop.order.paid"


# ------------------------------------------------------------------ receiving: bombs


class Explodes:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was run",))


NOT_UTF8 = [
    pickle.dumps(Explodes()),
    gzip.compress(document()),
    document().decode().encode("utf-16"),
    document().decode().encode("utf-32"),
    b"\xff",
    b'{"a":"\xed\xa0\x80"}',  # a surrogate
    b"\xc0\xaf",  # overlong
    "中文".encode("gb18030"),
    document()[:-2] + b"\x80}",
]


@pytest.mark.parametrize("raw", NOT_UTF8, ids=lambda raw: repr(raw[:12]))
def test_bytes_that_are_not_utf8_are_quarantined_and_never_run(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="not UTF-8") as caught:
        decode(raw, channel="c")
    assert caught.value.raw == raw


DEEP = [
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    b'["[[["],' * 10 + b"[" * 65,
    document().replace(b'{"id": 7}', b"[" * 100_000 + b"]" * 100_000),
]


@pytest.mark.parametrize("raw", DEEP, ids=lambda raw: repr(raw[:12]))
def test_depth_is_refused_before_anything_is_parsed(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="deeper than 64"):
        decode(raw, channel="c")


SHALLOW = [
    b"[" + b"[1]," * 5000 + b"[1]]",
    b'["' + b"[" * 5000 + b'"]',
    b'["' + b'\\"[' * 5000 + b'"]',
    b'["\\\\", "' + b"[" * 100 + b'"]',
    b"[" * 64 + b"]" * 64,
]


@pytest.mark.parametrize("raw", SHALLOW, ids=lambda raw: repr(raw[:12]))
def test_brackets_in_texts_or_side_by_side_are_not_depth(raw: bytes) -> None:
    assert not is_too_deep(raw)
    assert read(raw).data == json.loads(raw)


SLOW = [
    b"[" * 65 + b'\\"' * 130_000,
    b"[" * 65 + b'"\\\n' * 80_000,
    b"[]" * 130_000 + b'"',
    b'{"' * 130_000,
    b'"' * 262_000 + b"[" * 65,
    b"[" + b"9" * 262_000 + b"]",
    json.dumps({str(number): number for number in range(20_000)}).encode(),
    b'{"specversion":"1.0","a":' + b"9" * 260_000 + b"}",
]


@pytest.mark.parametrize("raw", SLOW, ids=lambda raw: repr(raw[:12]))
def test_no_bytes_take_long(raw: bytes) -> None:
    began = time.thread_time()  # of this thread alone: a busy machine takes long for anything
    with suppress(DecodeError):
        read(raw)
    assert time.thread_time() - began < 0.5


# ------------------------------------------------------------------ receiving: typed data


@dataclasses.dataclass(frozen=True)
class Refund:
    order_id: int
    amount: Decimal
    at: datetime | None = None


def test_data_is_decoded_to_its_class() -> None:
    written = an_event(Refund(order_id=7, amount=Decimal("9.90"), at=datetime(2026, 1, 2, tzinfo=UTC)))
    assert read(encode(written), Refund).data == written.data


@pytest.mark.parametrize(
    "data", [None, [], 1, "x", {}, {"order_id": "7", "amount": "1"}, {"order_id": 7, "amount": []}]
)
def test_data_that_does_not_fit_its_class_is_told_with_the_bytes(data: Any) -> None:
    raw = document(data=data)
    with pytest.raises(DecodeError, match="does not fit Refund") as caught:
        read(raw, Refund)
    assert caught.value.raw == raw


def test_fields_a_receiver_does_not_know_are_no_reason_to_fail() -> None:
    assert read(document(data={"order_id": 7, "amount": "1", "new": True}), Refund).data == Refund(7, Decimal(1))


def test_data_no_parser_takes_is_told_when_it_is_read() -> None:
    found = decode(document().replace(b'{"id": 7}', b"1e999"), channel="c")
    assert found.envelope.type == "shop.order.paid"
    with pytest.raises(DecodeError, match="does not fit JSON"):
        found.read()
