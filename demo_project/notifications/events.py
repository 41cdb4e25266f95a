"""What notifications tells the others: an event with a shape of its own, no model behind it."""

from dataclasses import dataclass

from redis_events import event


@event("notifications.toast.shown", channel="live.toasts", key_field="order_id")
@dataclass(frozen=True)
class ToastShown:
    order_id: int
    text: str
