"""What notifications does about orders, invoices and everything live. An event may come twice; it is told once."""

import logging
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction
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


@receives("shop.orders", types="shop.order.*")
def tell_of_order(event: Event[Order]) -> None:
    order = event.data
    text = _("%(customer)s, your order is %(status)s") % {"customer": order.customer, "status": order.status}
    show(event, order.id, text)


@receives("billing.invoices", types="billing.invoice.created")
def tell_of_invoice(event: Event[Invoice]) -> None:
    invoice = event.data
    show(event, invoice.order_id, _("please pay %(amount)s") % {"amount": invoice.amount})


@transaction.atomic
def show(event: Event, order_id: int, text: str) -> None:
    toast, is_new = Toast.objects.get_or_create(event_id=event.id, defaults={"order_id": order_id, "text": text})
    if is_new:
        publish(ToastShown(order_id=order_id, text=text))
    logger.info("%s → toast for order %s: “%s”", event.type, order_id, toast.text)


@receives("live.*")
async def push(event: Event) -> None:
    """Runs in every listener there is: pub/sub has no groups."""
    await Push.objects.aget_or_create(event_id=event.id, defaults={"text": event.data["text"]})
    logger.info("%s → pushed “%s”", event.type, event.data["text"])
