"""The names events travel under."""

from __future__ import annotations

from functools import lru_cache

from .conf import NAME, RESERVED, conf
from .exceptions import InvalidName


def check_channel(name: str) -> None:
    """Raise InvalidName unless events can be published to a channel of this name."""
    check_names(name, conf.redis_name(name))


@lru_cache(maxsize=10_000)
def check_names(name: str, on_the_server: str) -> None:
    """``check_channel``, whatever the PREFIX is. Raises InvalidName."""
    if not NAME.fullmatch(name) or not NAME.fullmatch(on_the_server):
        raise InvalidName(f"{name!r} is no channel name: letters, digits and ._:- only, 128 with the PREFIX.")
    if name.startswith(RESERVED):
        raise InvalidName(f"{name!r} is reserved for redis_events itself.")


@lru_cache(maxsize=10_000)
def check_type(name: str) -> None:
    """Raise InvalidName unless this is a legal event type."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidName(f"{name!r} is no event type: up to 128 letters, digits and ._:- such as shop.order.paid.")
