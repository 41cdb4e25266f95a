"""What can be the shape of an event's data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.inspect import CustomType, type_info

JSON_VALUES: tuple[Any, ...] = ({}, [], "", 0, 0.0, True, None)


def obstacle(data_type: Any) -> str:
    """What keeps JSON from being decoded to a type; ``""`` when nothing does."""
    try:
        msgspec.json.Decoder(data_type)
        strangers = sorted({stranger.__qualname__ for stranger in _strangers(type_info(data_type), set())})
    except (NameError, TypeError, ValueError) as error:
        return str(error)
    return f"JSON cannot be made into {', '.join(strangers)}" if strangers else ""


def _strangers(info: Any, seen: set[int]) -> Iterator[type]:
    """The classes inside of a type that msgspec leaves to a hook of the caller: nothing in JSON is one of theirs."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, CustomType):
        if not any(isinstance(value, info.cls) for value in JSON_VALUES):
            yield info.cls
        return
    parts = (
        info if isinstance(info, tuple) else [getattr(info, name) for name in getattr(info, "__struct_fields__", ())]
    )
    for part in parts:
        yield from _strangers(part, seen)


def is_data_class(data_type: Any) -> bool:
    marks = ("__dataclass_fields__", "__struct_fields__", "__attrs_attrs__")
    return any(hasattr(data_type, mark) for mark in marks)
