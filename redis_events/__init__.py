"""Events between Django services, over Redis.

Install it by adding ``"redis_events"`` to ``INSTALLED_APPS``. Publish a model's changes, in ``shop/events.py``::

    from redis_events import ModelPublisher, publishes

    @publishes(Order)
    class OrderPublisher(ModelPublisher):
        channel = "shop.orders"
        fields = ("id", "status", "total")

Receive them in another project, in ``billing/receivers.py``, run by ``python manage.py listen_events``::

    from redis_events import Event, receives

    @receives("shop.orders", types="shop.order.created")
    def invoice(event: Event) -> None:
        Invoice.objects.create(order_id=event.data["id"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from .events import Event as Event
    from .exceptions import Reject as Reject
    from .exceptions import RetryLater as RetryLater
    from .muting import muted as muted
    from .publishing import ModelPublisher as ModelPublisher
    from .publishing import apublish as apublish
    from .publishing import publish as publish
    from .publishing import publishes as publishes
    from .registry import event as event
    from .registry import receives as receives
    from .retry import Retry as Retry
    from .signals import event_published as event_published
    from .signals import event_settled as event_settled
    from .signals import gap_detected as gap_detected
    from .signals import publish_failed as publish_failed
    from .subscribing import subscribe as subscribe

# The one lazy place: `import redis_events` must work in settings.py and before django.setup().
_HOMES = {
    "Event": "events",
    "ModelPublisher": "publishing",
    "Reject": "exceptions",
    "Retry": "retry",
    "RetryLater": "exceptions",
    "apublish": "publishing",
    "event": "registry",
    "event_published": "signals",
    "event_settled": "signals",
    "gap_detected": "signals",
    "muted": "muting",
    "publish": "publishing",
    "publish_failed": "signals",
    "publishes": "publishing",
    "receives": "registry",
    "subscribe": "subscribing",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
