"""Bytes ⇄ Event: structured-mode CloudEvents 1.0 JSON (spec: CloudEvents 1.0.2, JSON format 1.0.2)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from django.utils import timezone
from django.utils.functional import Promise

from .conf import conf
from .events import Event, new_id, now
from .exceptions import DecodeError, EncodeError, EventTooLarge

MAX_DEPTH = 64
BACKSLASH, DELETE = 0x5C, 0x7F
ANY: Any = object()
"""The data type of a receiver that takes whatever JSON value there is."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Hops = Annotated[int, msgspec.Meta(ge=0, le=1_000)]


class Envelope(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A CloudEvents document, its attributes by their names on the wire; data stays bytes until it is wanted."""

    specversion: Literal["1.0"]
    id: Name
    source: Name
    type: Name
    time: Moment | None = None
    subject: Name | None = None
    datacontenttype: str | None = None
    dataschema: Name | None = None
    correlationid: Name | None = None
    causationid: Name | None = None
    traceparent: Name | None = None
    hops: Hops = 0
    dataversion: str | int | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    data_base64: str | None = None


class Head(msgspec.Struct, gc=False):
    """What a row of the outbox says of a document that we have made."""

    id: str
    type: str
    subject: str | None = None


def _as_builtin(value: Any) -> Any:
    """What msgspec does not know of Django's: subclasses of text and numbers (SafeString), and lazy translations."""
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, str):
        return str.__str__(value)  # str(value) would stay a SafeString
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"{type(value).__qualname__} is not known")


class Whole(Envelope, kw_only=True, omit_defaults=True, gc=False):
    """An envelope read together with its data as the JSON value it is: half a microsecond less where that is wanted."""

    data: Any = None


_encoder = msgspec.json.Encoder(enc_hook=_as_builtin)
_decode_whole = msgspec.json.Decoder(Whole).decode
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_value = msgspec.json.Decoder().decode
read_head = msgspec.json.Decoder(Head).decode
"""Of a document made by ``encode``: the rest is skipped, unchecked."""


# ------------------------------------------------------------------ publishing


def encode(event: Event[Any]) -> bytes:
    """The event's document. Raises EncodeError or EventTooLarge, before anything was written."""
    data = encode_value(event.data)
    return _within_limits(
        _encoder.encode(
            Envelope(
                specversion="1.0",
                id=event.id,
                source=event.source,
                type=event.type,
                time=event.time,
                subject=event.key or None,
                datacontenttype="application/json",
                correlationid=event.correlation_id or None,
                causationid=event.causation_id or None,
                traceparent=event.traceparent or None,
                hops=event.hops,
                data=msgspec.Raw(data),
            )
        )
    )


def encode_plain(data: Any) -> bytes:
    """What ``publish`` without a type sends: a text as it is, anything else as JSON. Raises as ``encode`` does."""
    try:
        return _within_limits(data.encode() if isinstance(data, str) else encode_value(data))
    except UnicodeEncodeError as error:
        raise EncodeError(f"the text is not valid Unicode: {error.reason}") from error


def encode_value(value: Any) -> bytes:
    """A JSON value. Raises EncodeError when ``value`` has none."""
    try:
        encoded = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"the data has no JSON form: {error}") from error
    return encoded if not _needs_care(encoded) else _encoder.encode(_careful(value))


def _needs_care(encoded: bytes) -> bool:
    """Whether NaN, an infinity or a naive datetime may have been in the value: a walk would cost ten times as much.

    msgspec writes NaN and the infinities as null, those of Decimal as text, and naive datetimes without an offset.
    """
    # A byte is looked for five times as fast as bytes are: one that is not there ends the question.
    return (
        encoded.find(b"null") >= 0
        or (ord("N") in encoded and b"NaN" in encoded)
        or (ord("I") in encoded and b"Inf" in encoded)
        or (ord("T") in encoded and bool(_NAIVE_TIME.search(encoded)))
    )


_NAIVE_TIME = re.compile(rb'T\d\d:\d\d:\d\d(?:\.\d{1,6})?"')


def _careful(value: Any) -> Any:
    """The value as builtins, naive datetimes made aware as Django does. Raises EncodeError for NaN and infinities."""
    return _walk(msgspec.to_builtins(value, builtin_types=(Decimal, datetime), enc_hook=_as_builtin))


def _walk(value: Any) -> Any:
    if isinstance(value, dict):
        return {_walk(key): _walk(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_walk(item) for item in value]
    if isinstance(value, datetime) and value.tzinfo is None:
        return timezone.make_aware(value)
    if (isinstance(value, Decimal) and not value.is_finite()) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise EncodeError(f"the data has no JSON form: {value} is not a JSON number")
    return value


def _within_limits(document: bytes) -> bytes:
    if len(document) > conf.MAX_EVENT_BYTES:
        raise EventTooLarge(f"the event has {len(document):,} bytes; MAX_EVENT_BYTES is {conf.MAX_EVENT_BYTES:,}")
    if is_too_deep(document):
        raise EventTooLarge(f"the data is nested deeper than {MAX_DEPTH}")
    return document


# ------------------------------------------------------------------ receiving


class Document(msgspec.Struct, frozen=True, gc=False):
    """One received message, read as far as matching and bookkeeping need; its data stays bytes until wanted."""

    envelope: Envelope
    channel: str
    raw: bytes
    is_plain: bool = False
    """Whether it came without an envelope; then its data is its JSON value, else its text."""

    def read(self, data_type: Any = ANY, attempt: int = 1, replayed: bool = False) -> Event[Any]:
        """The event with its data as ``data_type`` (any type msgspec knows). Raises DecodeError."""
        envelope = self.envelope
        return Event(
            data=envelope.data if type(envelope) is Whole and data_type is ANY else self.data(data_type),
            id=envelope.id,
            type=envelope.type,
            source=envelope.source,
            channel=self.channel,
            key=envelope.subject or "",
            time=envelope.time or now(),
            attempt=attempt,
            correlation_id=envelope.correlationid or "",
            causation_id=envelope.causationid or "",
            traceparent=envelope.traceparent or "",
            hops=envelope.hops,
            replayed=replayed,
            raw=self.raw,
        )

    def data(self, data_type: Any = ANY) -> Any:
        """The data alone. Raises DecodeError with the whole message as ``raw``."""
        try:
            if type(self.envelope) is Whole and data_type is ANY:
                return self.envelope.data
            return _decode_value(self.envelope.data) if data_type is ANY else self._typed(data_type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if self.is_plain and data_type is ANY:
                return self.raw.decode()
            raise DecodeError(f"the data does not fit {type_name(data_type)}: {error}", raw=self.raw) from error

    def _typed(self, data_type: Any) -> Any:
        return self.raw.decode() if self.is_plain and data_type is str else _reader(data_type)(self.envelope.data)


@lru_cache(maxsize=1024)
def _reader(data_type: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(data_type).decode


def type_name(data_type: Any) -> str:
    """How messages call a data type."""
    return "JSON" if data_type is ANY else getattr(data_type, "__qualname__", str(data_type))


def decode(raw: bytes, *, channel: str, id: str = "", is_document: bool = False, with_data: bool = False) -> Document:
    """A received message. Raises DecodeError for what must be quarantined.

    Bytes that are no JSON are a text; JSON that is no CloudEvents object is a value; both are events. They have no id
    of their own: it is ``id``, or a new one. With ``is_document`` anything but a CloudEvents object is broken.
    ``with_data`` reads the data in the same pass, as the JSON value it is: for one receiver that wants it so.
    """
    if len(raw) > conf.MAX_EVENT_BYTES:
        raise DecodeError(f"larger than MAX_EVENT_BYTES ({conf.MAX_EVENT_BYTES:,} bytes)", raw=raw)
    is_ascii = raw.isascii()  # nearly all JSON is, and knowing that is ten times as fast as decoding it
    if not is_ascii:
        _refuse_other_encodings(raw)
    if is_too_deep(raw):
        raise DecodeError(f"nested deeper than {MAX_DEPTH}", raw=raw)
    try:
        envelope = _decode_whole(raw) if with_data else _decode_envelope(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if with_data:  # whose fault it is, the envelope's or the data's, shows in two steps
            return decode(raw, channel=channel, id=id, is_document=is_document)
        _refuse_broken_document(raw, error, is_document)
        return plain(raw, channel=channel, id=id)
    # PostgreSQL refuses some control characters in text, log files all; without these bytes there is none.
    if BACKSLASH in raw or DELETE in raw or not is_ascii:
        _refuse_control_characters(envelope, raw)
    if envelope.data_base64 is not None:
        raise DecodeError("data_base64 is not supported: events carry JSON", raw=raw)
    return Document(envelope, channel, raw)


def _refuse_other_encodings(raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"not UTF-8: {error.reason} at byte {error.start}", raw=raw) from error


def is_too_deep(raw: bytes) -> bool:
    """Whether JSON is nested deeper than 64, told without parsing it (parsers raise RecursionError there)."""
    # What replace() takes away is counted in half the time count() needs.
    if 2 * len(raw) - len(raw.replace(b"[", b"")) - len(raw.replace(b"{", b"")) <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


# Never fails once begun, also where a text has no closing quote: else 64 KB of `\"` take a minute.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def plain(raw: bytes, *, channel: str, id: str = "") -> Document:
    """A message without an envelope. Its id is new where the transport knows no other."""
    nobody = Envelope(specversion="1.0", id=id or new_id(), source="", type="", time=now(), data=msgspec.Raw(raw))
    return Document(nobody, channel, raw, is_plain=True)


def _refuse_broken_document(raw: bytes, error: Exception, is_document: bool) -> None:
    """Raise DecodeError for what means to be a CloudEvents object and is not a proper one."""
    if is_document or _has_specversion(raw):
        raise DecodeError(f"breaks the CloudEvents rules: {error}", raw=raw) from error


def _has_specversion(raw: bytes) -> bool:
    try:
        value = _decode_value(raw)
    except msgspec.DecodeError:
        return False
    return isinstance(value, dict) and "specversion" in value


def _refuse_control_characters(envelope: Envelope, raw: bytes) -> None:
    for attribute in ("id", "source", "type", "subject", "correlationid", "causationid", "traceparent"):
        if _CONTROL.search(getattr(envelope, attribute) or ""):
            raise DecodeError(f"breaks the CloudEvents rules: a control character in {attribute}", raw=raw)
