"""What notifications does about orders, invoices and everything live."""

import logging
from dataclasses import dataclass
from decimal import Decimal

from django.utils.translation import gettext as _

from redis_events import Event, publish, receives

from .events import ToastShown
from .models import Push, Toast

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    id: int
    customer: str
    status: str


@dataclass(frozen=True)
class Invoice:
    id: int
    order_id: int
    amount: Decimal


@receives("shop.orders", types="shop.order.*", once=True)
def tell_of_order(event: Event[Order]) -> None:
    order = event.data
    text = _("%(customer)s, your order is %(status)s") % {"customer": order.customer, "status": order.status}
    show(event, order.id, text)


@receives("billing.invoices", types="billing.invoice.created", once=True)
def tell_of_invoice(event: Event[Invoice]) -> None:
    invoice = event.data
    show(event, invoice.order_id, _("please pay %(amount)s") % {"amount": invoice.amount})


def show(event: Event, order_id: int, text: str) -> None:
    toast = Toast.objects.create(event_id=event.id, order_id=order_id, text=text)
    publish(ToastShown(order_id=order_id, text=text))  # leaves when the toast is committed
    logger.info("%s → toast for order %s: “%s”", event.type, order_id, toast.text)


@receives("live.*")
async def push(event: Event) -> None:
    """Runs in every listener there is: pub/sub has no groups."""
    await Push.objects.aget_or_create(event_id=event.id, defaults={"text": event.data["text"]})
    logger.info("%s → pushed “%s”", event.type, event.data["text"])
