"""What the shop does when others tell it something."""

import logging
from dataclasses import dataclass
from decimal import Decimal

from django.utils.translation import gettext as _

from redis_events import Event, receives

from .models import Order, Reaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Invoice:
    """What the shop wants to know of an invoice; whatever else billing sends is ignored."""

    id: int
    order_id: int
    amount: Decimal


@dataclass(frozen=True)
class Toast:
    order_id: int
    text: str


@receives("billing.invoices", types="billing.invoice.created", once=True)
def mark_invoiced(event: Event[Invoice]) -> None:
    order = Order.objects.get(pk=event.data.order_id)
    add_reaction(order, event, _("invoice %(id)s over %(amount)s") % {"id": event.data.id, "amount": event.data.amount})
    order.status = Order.Status.INVOICED
    order.save(update_fields=["status"])
    logger.info("%s → order %s is invoiced", event.type, order.pk)


@receives("live.toasts", types="notifications.toast.shown")
def show_toast(event: Event[Toast]) -> None:
    order = Order.objects.get(pk=event.data.order_id)
    add_reaction(order, event, event.data.text)
    logger.info("%s → the page of order %s shows it", event.type, order.pk)


def add_reaction(order: Order, event: Event, text: str) -> None:
    Reaction.objects.create(event_id=event.id, order=order, source=event.source, text=text, at=event.time)
