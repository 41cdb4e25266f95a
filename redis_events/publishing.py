"""Turning model changes and explicit calls into events on their way out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.signals import setting_changed
from django.db import connections, router, transaction
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete
from django.utils.asyncio import async_unsafe

from . import codec
from .conf import NAME, RESERVED, conf, suggest
from .departing import only_alias, send
from .events import MAX_HOPS, Event, current_event
from .exceptions import ConfigurationError, InvalidName, PublishError, TooManyHops
from .muting import is_muted
from .registry import add_publisher, event_types, publishers, publishers_of
from .routing import has_rows, is_outbox
from .saving import whole_saves
from .snapshot import Snapshot
from .transports.base import Outgoing

logger = logging.getLogger("redis_events.publish")

PublisherClass = TypeVar("PublisherClass", bound="type[ModelPublisher]")
NOTHING: Any = object()


# ------------------------------------------------------------------ explicit calls


@async_unsafe("publish() may wait for Redis: use `await apublish(…)` in async code.")
def publish(
    channel: str | object,
    data: Any = NOTHING,
    /,
    *,
    type: str = "",
    key: object = None,
    using: str | None = None,
    strict: bool = False,
) -> Event[Any]:
    """Publish an event after the current transaction commits, or now when there is none; return it.

    Three forms: ``publish(OrderRefunded(…))``, an instance of a class declared with ``@event``;
    ``publish("shop.orders", {"id": 7}, type="shop.order.noted", key=7)``; and without ``type``
    ``publish("channel", "Hello")``: the bare text or JSON, as any Redis client would send it.

    ``using`` is the database alias whose transaction counts; by default the one that is in an atomic block.
    Raises PublishError (or a child) for the caller's mistakes, before anything is sent. Trouble with Redis is counted,
    logged and signalled, never raised, unless ``strict``: then TransportError is (not possible inside a transaction).
    On a channel with OUTBOX the event is written to the database, now, and only that can fail: django.db.Error.
    """
    event = _event(channel, data, type=type, key=key)
    if not event.type and is_outbox(event.channel):
        raise PublishError(f"{event.channel!r} has an OUTBOX: what is published there needs a type.")
    outgoing = Outgoing(channel=event.channel, body=_body(event), plain=not event.type)
    if not is_muted(None):
        send([outgoing], using=using or only_alias(), strict=strict)
    return event


apublish = sync_to_async(publish, thread_sensitive=True)
apublish.__doc__ = "``publish`` for async code: the same arguments, run where Django keeps the database connection."


def _event(channel: Any, data: Any, *, type: str, key: object) -> Event[Any]:
    if not isinstance(channel, str):
        return _typed_event(channel, data, type=type, key=key)
    if data is NOTHING:
        raise PublishError(f"publish({channel!r}, …) needs the data to publish.")
    check_channel(channel)
    if type:
        return make_event(channel, data, type=type, key=key)
    if key is not None:
        raise PublishError("a key needs a type: without one the bare data is sent, and has no room for a key.")
    return Event(data=data, channel=channel)


def _typed_event(instance: Any, data: Any, *, type: str, key: object) -> Event[Any]:
    declared = event_types.get(instance.__class__)
    if declared is None:
        raise PublishError(f"{instance.__class__.__qualname__} is neither a channel name nor a class with @event.")
    if data is not NOTHING or type:
        raise PublishError(f"{instance.__class__.__qualname__} brings its own channel, type and data.")
    if key is None and declared.key_field:
        key = getattr(instance, declared.key_field)
    check_channel(declared.channel)
    return make_event(declared.channel, instance, type=declared.type, key=key)


def make_event(channel: str, data: Any, *, type: str, key: object) -> Event[Any]:
    """An event of this service, linked to the one whose receiver is running. Raises InvalidName, TooManyHops."""
    check_type(type)
    cause = current_event.get()
    if cause is None:
        return Event(data=data, type=type, source=conf.source, channel=channel, key=_key(key))
    if cause.hops >= MAX_HOPS:
        raise TooManyHops(f"{type} would be number {cause.hops + 1} in a chain of receivers that publish (a loop?).")
    return Event(
        data=data,
        type=type,
        source=conf.source,
        channel=channel,
        key=_key(key),
        correlation_id=cause.correlation_id or cause.id,
        causation_id=cause.id,
        traceparent=cause.traceparent,
        hops=cause.hops + 1,
    )


def _key(key: object) -> str:
    text = "" if key is None else str(key)
    if len(text) > 255 or not text.isprintable():
        raise PublishError("a key is a printable text of at most 255 characters.")
    return text


def _body(event: Event[Any]) -> bytes:
    return codec.encode(event) if event.type else codec.encode_plain(event.data)


def check_channel(name: str) -> None:
    """Raise InvalidName unless events can be published to a channel of this name."""
    _check_names(name, conf.redis_name(name))


@lru_cache(maxsize=10_000)
def _check_names(name: str, on_the_server: str) -> None:
    if not NAME.fullmatch(name) or not NAME.fullmatch(on_the_server):
        raise InvalidName(f"{name!r} is no channel name: letters, digits and ._:- only, 128 with the PREFIX.")
    if name.startswith(RESERVED):
        raise InvalidName(f"{name!r} is reserved for redis_events itself.")


@lru_cache(maxsize=10_000)
def check_type(name: str) -> None:
    """Raise InvalidName unless this is a legal event type."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidName(f"{name!r} is no event type: up to 128 letters, digits and ._:- such as shop.order.paid.")


# ------------------------------------------------------------------ model changes


class ModelPublisher:
    """What turns the changes of one model into events; declare a subclass with ``@publishes(Model)``.

    ``channel`` and one of ``fields``, ``exclude`` (as in a ModelForm; ``"__all__"`` for all) or an own ``data`` are
    required.
    """

    channel: ClassVar[str]
    type_prefix: ClassVar[str] = ""
    fields: ClassVar[Collection[str] | None] = None
    exclude: ClassVar[Collection[str] | None] = None
    types: ClassVar[Collection[str]] = ("created", "updated", "deleted")
    key_field: ClassVar[str] = "pk"
    model: ClassVar[type[Model]]
    _snapshot: ClassVar[Snapshot]
    _key: ClassVar[Snapshot | None]

    def data(self, instance: Model) -> Any:
        """The event's data: the chosen fields, as they are stored."""
        return self._snapshot(instance, using=_alias(instance))

    def key(self, instance: Model) -> object:
        """Which thing it happened to: ``key_field``, as it is stored."""
        stored = self._key(instance, using=_alias(instance)) if self._key else {}
        return next(iter(stored.values())) if stored else getattr(instance, self.key_field)

    @classmethod
    def publish(cls, verb: str, rows: Model | Iterable[Model], *, using: str | None = None) -> list[Event[Any]]:
        """Publish one event a row, in one batch: after ``bulk_create`` and ``update()``, before ``delete()``.

        ``verb`` is one of ``types``. They leave after the commit on ``using``, by default where rows of the model are
        written. Returns the events. Raises PublishError.
        """
        if verb not in cls.types:
            raise PublishError(f"{cls.__qualname__} publishes no {verb!r}. {suggest(verb, tuple(cls.types))}")
        found = [rows] if isinstance(rows, Model) else list(rows)
        publisher = cls()
        events = [publisher.event(verb, instance) for instance in found]
        if events and not is_muted(cls.model):
            alias = using or router.db_for_write(cls.model, instance=found[0])
            _warn_outside_atomic(cls, alias)
            send([Outgoing(channel=cls.channel, body=codec.encode(event)) for event in events], using=alias)
        return events

    def event(self, verb: str, instance: Model) -> Event[Any]:
        """The event that says what happened to one instance."""
        type = f"{self.type_prefix}.{verb}"
        return make_event(self.channel, self.data(instance), type=type, key=self.key(instance))


def _warn_outside_atomic(publisher: type[ModelPublisher], alias: str) -> None:
    if has_rows(publisher.channel) and not connections[alias].in_atomic_block:
        name = publisher.__qualname__
        logger.warning("%s.publish() outside of atomic: a crash before it loses the events of what was changed", name)


def _alias(instance: Model) -> str:
    return instance._state.db or "default"


def publishes(model: type[Model]) -> Callable[[PublisherClass], PublisherClass]:
    """Publish a model's changes as the decorated ModelPublisher says.

    Several publishers of one model are fine. Raises ConfigurationError for what the class has wrong.
    """
    if not isinstance(model, type) or not issubclass(model, Model):
        raise ConfigurationError(f"@publishes(Model) needs a model, not {model!r}.")

    def declare(publisher: PublisherClass) -> PublisherClass:
        publisher.model = model
        publisher.type_prefix = publisher.type_prefix or model._meta.label_lower
        _check_publisher(publisher)
        if publisher.data is ModelPublisher.data:
            publisher._snapshot = Snapshot(model, fields=publisher.fields, exclude=publisher.exclude)
        publisher._key = _key_snapshot(publisher)
        add_publisher(model, publisher)
        if apps.ready:
            connect()
        return publisher

    return declare


def _check_publisher(publisher: type[ModelPublisher]) -> None:
    place = f"{publisher.__module__}.{publisher.__qualname__}"
    if publisher.model._meta.abstract:
        raise ConfigurationError(f"{place}: {publisher.model.__name__} is abstract; publish its concrete models.")
    if not getattr(publisher, "channel", ""):
        raise ConfigurationError(f'{place}: needs a channel, such as channel = "{publisher.model._meta.app_label}".')
    if publisher.fields is publisher.exclude is None and publisher.data is ModelPublisher.data:
        raise ConfigurationError(f'{place}: needs fields or exclude, as a ModelForm does; "__all__" takes all fields.')
    if isinstance(publisher.fields, str) and publisher.fields != "__all__":
        raise ConfigurationError(f'{place}: fields is a tuple of names or "__all__", not {publisher.fields!r}.')
    if isinstance(publisher.types, str):
        raise ConfigurationError(f"{place}: types is a tuple of names, not {publisher.types!r}.")
    try:
        _check_names(publisher.channel, publisher.channel)  # the PREFIX is not looked at yet: that is check E001's
        for verb in publisher.types:
            check_type(f"{publisher.type_prefix}.{verb}")
    except InvalidName as error:
        raise ConfigurationError(f"{place}: {error}") from error


def _key_snapshot(publisher: type[ModelPublisher]) -> Snapshot | None:
    """Reads the key as it is stored; None where it is no field but an attribute of the class. ConfigurationError."""
    try:
        return Snapshot(publisher.model, fields=(publisher.key_field,))
    except ConfigurationError:
        if hasattr(publisher.model, publisher.key_field):
            return None
        raise


def connect() -> None:
    """Connect the signals of every published model and its proxies; of no other, so that those cost nothing."""
    for published, declared in publishers.items():
        verbs = {verb for publisher in declared for verb in publisher.types}
        for model in _with_proxies(published):
            _connect(model, verbs)
        if any(_must_arrive(publisher) for publisher in declared):
            for model in _with_proxies(published):
                whole_saves(model, when=_has_outbox)


def _reconnect(*, setting: str, **_: object) -> None:
    if setting == "REDIS_EVENTS" and apps.ready:
        connect()


setting_changed.connect(_reconnect, dispatch_uid="redis_events.publishing")


def _has_outbox(model: type[Model]) -> bool:
    return any(_must_arrive(publisher) for publisher in publishers_of(model))


def _must_arrive(publisher: type[ModelPublisher]) -> bool:
    """Whether a change must not be committed without its event; nobody knows while the settings cannot be read."""
    try:
        return is_outbox(publisher.channel)
    except ConfigurationError:
        return False


def _with_proxies(model: type[Model]) -> list[type[Model]]:
    concrete = model._meta.concrete_model
    return [
        each
        for each in apps.get_models(include_auto_created=True)
        if each is model or (each._meta.proxy and each._meta.concrete_model is concrete and issubclass(each, model))
    ]


def _connect(model: type[Model], verbs: set[str]) -> None:
    if verbs & {"created", "updated"}:
        post_save.connect(model_saved, sender=model, dispatch_uid="redis_events")
    if "deleted" in verbs:  # these switch off Django's fast deletes
        pre_delete.connect(model_deleting, sender=model, dispatch_uid="redis_events")
        post_delete.connect(model_deleted, sender=model, dispatch_uid="redis_events")


def model_saved(
    sender: type[Model], instance: Model, *, created: bool, using: str, raw: bool = False, **_: object
) -> None:
    """``post_save`` of a published model. Fixtures (``raw``) publish nothing: they are copies, not changes."""
    if raw:
        return
    verb = "created" if created else "updated"
    _send_changes([_encoded(each, verb, instance, using=using) for each in _publishing(sender, verb)], using=using)


def model_deleting(sender: type[Model], instance: Model, *, using: str, **_: object) -> None:
    """``pre_delete``: write the event down while the row and its primary key are still there."""
    instance._state.__dict__["redis_events"] = [
        _encoded(each, "deleted", instance, using=using) for each in _publishing(sender, "deleted")
    ]


def model_deleted(sender: type[Model], instance: Model, *, using: str, **_: object) -> None:
    """``post_delete``: the row is gone, so the event is true."""
    _send_changes(instance._state.__dict__.pop("redis_events", ()), using=using)


def _send_changes(encoded: Iterable[Outgoing | None], *, using: str) -> None:
    outgoing = [each for each in encoded if each]
    try:
        if outgoing:
            send(outgoing, using=using)
    except PublishError as error:
        if any(is_outbox(each.channel) for each in outgoing):
            _spoil(using)
            raise
        logger.error("not published: %s", error)
    except ConfigurationError as error:
        _tell_once(error)


def _spoil(using: str) -> None:
    """Whoever catches our exception must not commit the change: its event could not be written."""
    if connections[using].in_atomic_block:
        transaction.set_rollback(True, using=using)


def _publishing(sender: type[Model], verb: str) -> list[type[ModelPublisher]]:
    return [each for each in publishers_of(sender) if verb in each.types and not is_muted(each.model)]


def _encoded(publisher: type[ModelPublisher], verb: str, instance: Model, *, using: str) -> Outgoing | None:
    """The event, encoded now, while the instance is as it was saved. A mistake in the publisher is logged.

    On a channel with OUTBOX it is raised, and ends the transaction.
    """
    try:
        event = publisher().event(verb, instance)
        return Outgoing(channel=event.channel, body=codec.encode(event))
    except Exception as error:
        if _must_arrive(publisher):
            _spoil(using)
            raise
        _log_mistake(publisher, verb, error)
    return None


def _log_mistake(publisher: type[ModelPublisher], verb: str, error: Exception) -> None:
    if isinstance(error, ConfigurationError):
        _tell_once(error)
    else:
        logger.error("%s.%s: not published", publisher.__qualname__, verb, exc_info=error)


_told: set[str] = set()


def _tell_once(error: ConfigurationError) -> None:
    """One line for a wrong setting, not one for each save: it stays wrong until the process is started anew."""
    if str(error) not in _told:
        _told.add(str(error))
        logger.error("model changes are not published: %s", error)
