"""Who sends and receives what: event classes, publishers, receivers, and the table that matches them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from django.apps import AppConfig, apps
from django.db.models import Model
from django.utils.module_loading import module_has_submodule

from .codec import ANY
from .conf import glob
from .events import Event, EventType
from .exceptions import ConfigurationError
from .retry import Retry

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)
Item = TypeVar("Item")

MOST_REMEMBERED = 10_000
"""Matches remembered: junk types must not fill the memory."""


# ------------------------------------------------------------------ event classes

event_types: dict[type, EventType] = {}


def event(type: str, *, channel: str, key_field: str | None = None) -> Callable[[Class], Class]:
    """Declare the shape of one event type: a dataclass, msgspec.Struct or attrs class.

    Publishes nothing by itself, so publishing and receiving services may share it. ``key_field`` names the field that
    says which thing it happened to.
    """

    def declare(data_type: Class) -> Class:
        event_types[data_type] = EventType(data_type=data_type, type=type, channel=channel, key_field=key_field)
        return data_type

    return declare


# ------------------------------------------------------------------ publishers

publishers: dict[type[Model], list[Any]] = {}
"""The publisher classes of each model, in the order of declaration."""


def add_publisher(model: type[Model], publisher: Any) -> None:
    """Register a publisher; declaring the same class again (a reload) replaces it."""
    identity = (publisher.__module__, publisher.__qualname__)
    others = [known for known in publishers.get(model, []) if (known.__module__, known.__qualname__) != identity]
    publishers[model] = [*others, publisher]


def publishers_of(model: type[Model]) -> list[Any]:
    """The publishers of a model; for a proxy, those of the models it stands for too."""
    found = list(publishers.get(model, ()))
    while model._meta.proxy:
        model = model._meta.proxy_for_model  # type: ignore[assignment]  # a proxy always has one
        found += publishers.get(model, ())
    return found


# ------------------------------------------------------------------ receivers


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A function registered for a channel."""

    function: Callable[..., Any]
    name: str
    channel: str
    types: tuple[str, ...] | None
    event_type: EventType | None
    group: str = ""
    once: bool = False
    using: str | None = None
    retry: Retry | None = None
    timeout: float | None = None
    is_async: bool = field(default=False)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def has_inbox(self) -> bool:
        """Whether its effects are noted in the inbox, in their own transaction.

        An async function cannot have that. SILENCED_SYSTEM_CHECKS lets E005 through all the same, and whoever wrote it
        there wants the receiver run: it runs as if it had not said ``once``, not into a dead letter for each event.
        """
        return self.once and not self.is_async

    @property
    def place(self) -> str:
        """Where the function stands, for people: ``file:line``."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else self.name

    @cached_property
    def data_type(self) -> Any:
        """What ``event.data`` is decoded to. Raises ConfigurationError for an annotation that cannot be resolved."""
        annotated = self._annotated_type()
        if annotated is not ANY:
            return annotated
        return self.event_type.data_type if self.event_type else ANY

    def _annotated_type(self) -> Any:
        if get_origin(self.annotation) is not Event:
            return ANY
        data_type = get_args(self.annotation)[0]
        return ANY if data_type is Any or isinstance(data_type, TypeVar) else data_type

    @property
    def annotation(self) -> Any:
        """What the function says its event is; ``Any`` when it does not. Raises ConfigurationError."""
        try:
            hints = get_type_hints(self.function)
            parameter = next(iter(inspect.signature(self.function).parameters), "")
        except (AttributeError, NameError, SyntaxError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{self.name}: its annotation cannot be resolved: {error}") from error
        return hints.get(parameter, Any)


_receivers: dict[tuple[str, str, str], Receiver] = {}


def receives(
    channel: str | type,
    /,
    *,
    types: str | Sequence[str] | None = None,
    group: str = "",
    once: bool = False,
    using: str | None = None,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    name: str = "",
) -> Callable[[Function], Function]:
    """Run the decorated function for each event of a channel, a pattern (``live.*``) or an event class.

    It stays callable. ``types``: globs; ``group``: a consumer group of its own; ``once``: its database effect once;
    ``timeout``: seconds after which a run ends the process; ``name``: who it is when moved. Raises ConfigurationError.
    """
    _check_kinds(channel, types=types, group=group, using=using, retry=retry, timeout=timeout, name=name)
    name_or_pattern, event_type, wanted = _target(channel, types)

    def register(function: Function) -> Function:
        _check_function(function, name_or_pattern)
        identity = (function.__module__, function.__qualname__, f"{name_or_pattern} {wanted} {name}")
        _receivers[identity] = Receiver(
            function=function,
            name=name or f"{function.__module__}.{function.__qualname__}",
            channel=name_or_pattern,
            types=wanted,
            event_type=event_type,
            group=group,
            once=once,
            using=using,
            retry=retry,
            timeout=_positive(timeout, name_or_pattern),
            is_async=inspect.iscoroutinefunction(function),
        )
        return function

    return register


def _check_function(function: Any, channel: str) -> None:
    if not inspect.isroutine(function):
        raise ConfigurationError(f"@receives({channel!r}) decorates a function, not {function!r}.")


def _positive(timeout: Any, channel: str) -> float | None:
    """A timeout in seconds, None for none."""
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is None or (is_number and seconds > 0):
        return seconds
    raise ConfigurationError(f"@receives({channel!r}): timeout={timeout!r} is no number of seconds above 0.")


KINDS: dict[str, tuple[Any, str]] = {
    "types": (str | Collection | None, "a type or a tuple of types"),
    "group": (str, "a text"),
    "using": (str | None, "the name of a database"),
    "retry": (Retry | None, "a Retry, such as Retry(attempts=3)"),
    "timeout": (int | float | timedelta | None, "a number of seconds"),
    "name": (str, "a text"),
}


def _check_kinds(channel: Any, **given: Any) -> None:
    """Refuse at once what would end the listener when the first event arrives."""
    if inspect.isroutine(channel):
        name = channel.__qualname__
        raise ConfigurationError(f'@receives on {name} lacks its parentheses: write @receives("…") with a channel.')
    if not isinstance(channel, str | type):
        raise ConfigurationError(f"@receives({channel!r}): a channel, a pattern or an event class is needed.")
    for argument, value in given.items():
        kind, meaning = KINDS[argument]
        items = value if isinstance(value, Collection) else ()
        if not isinstance(value, kind) or not all(isinstance(each, str) for each in items):
            raise ConfigurationError(f"@receives({channel!r}): {argument}= is {meaning}, not {value!r}.")


def _target(
    channel: str | type, types: str | Sequence[str] | None
) -> tuple[str, EventType | None, tuple[str, ...] | None]:
    """The channel, the event class if it is one, and the types a receiver wants."""
    wanted = (types,) if isinstance(types, str) else tuple(types) if types else None
    if isinstance(channel, str):
        return channel, None, wanted
    declared = event_types.get(channel)
    if declared is None:
        raise ConfigurationError(f"@receives({channel.__qualname__}): the class is not declared with @event.")
    return declared.channel, declared, wanted or (declared.type,)


def all_receivers() -> tuple[Receiver, ...]:
    """Every registered receiver, in the order of registration."""
    return tuple(_receivers.values())


# ------------------------------------------------------------------ matching


class PatternIndex(Generic[Item]):
    """Finds the items whose pattern covers a name without trying every pattern: 10,000 cost what 10 do."""

    def __init__(self, patterns: Iterable[tuple[str, Item]]) -> None:
        self._exact: dict[str, list[Item]] = {}
        self._by_head: dict[int, dict[str, list[tuple[str, Item]]]] = {}
        for pattern, item in patterns:
            head, star, _ = pattern.partition("*")
            if star:
                self._by_head.setdefault(len(head), {}).setdefault(head, []).append((pattern, item))
            else:
                self._exact.setdefault(pattern, []).append(item)

    def find(self, name: str) -> Iterator[Item]:
        yield from self._exact.get(name, ())
        for length, heads in self._by_head.items():
            yield from (item for pattern, item in heads.get(name[:length], ()) if glob(pattern, name))


class Table:
    """Which receivers an event goes to, by its channel and type; filled as they come, 0.05 µs from then on."""

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._order = {id(receiver): number for number, receiver in enumerate(receivers)}
        self._channels = PatternIndex((receiver.channel, receiver) for receiver in receivers)
        self._types: dict[str, PatternIndex[Receiver]] = {}
        self._found: dict[tuple[str, str], tuple[Receiver, ...]] = {}
        self._untyped: dict[str, bool] = {}

    def has_one_untyped(self, channel: str) -> bool:
        """Whether all events of a channel go to one receiver at most, which takes the data as the JSON value it is."""
        try:
            return self._untyped[channel]
        except KeyError:
            receivers = list(self._channels.find(channel))
            self._untyped[channel] = len(receivers) == 1 and receivers[0].data_type is ANY
            return self._untyped[channel]

    def match(self, channel: str, type: str) -> tuple[Receiver, ...]:
        """The receivers of an event, in the order of registration. ``""`` is the type of a plain message."""
        try:
            return self._found[channel, type]
        except KeyError:
            return self._fill(channel, type)

    def _fill(self, channel: str, type: str) -> tuple[Receiver, ...]:
        if len(self._found) >= MOST_REMEMBERED:
            self._found.clear()
        matching = {id(receiver): receiver for receiver in self._by_type(channel).find(type)}
        if not type:
            matching = {key: receiver for key, receiver in matching.items() if receiver.types is None}
        found = tuple(sorted(matching.values(), key=lambda receiver: self._order[id(receiver)]))
        self._found[channel, type] = found
        return found

    def _by_type(self, channel: str) -> PatternIndex[Receiver]:
        if channel not in self._types:
            if len(self._types) >= MOST_REMEMBERED:
                self._types.clear()
                self._untyped.clear()
            receivers = self._channels.find(channel)
            pairs = ((type, receiver) for receiver in receivers for type in receiver.types or ("*",))
            self._types[channel] = PatternIndex(pairs)
        return self._types[channel]


# ------------------------------------------------------------------ discovery


def autodiscover() -> None:
    """Import ``events`` and ``receivers`` of every installed app. Raises ConfigurationError naming file and setting."""
    for app in apps.get_app_configs():
        for name in ("events", "receivers"):
            if module_has_submodule(app.module, name):
                _import(app, name)


def _import(app: AppConfig, name: str) -> None:
    try:
        import_module(f"{app.name}.{name}")
    except Exception as error:
        place = f'{app.path}/{name}.py, found through INSTALLED_APPS = [… "{app.name}" …]'
        raise ConfigurationError(f"{place}: {type(error).__name__}: {error}") from error
