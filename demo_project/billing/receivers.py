"""What billing does about orders: one invoice each, whatever happens to Redis or to this process."""

import logging
from dataclasses import dataclass
from decimal import Decimal

from redis_events import Event, receives

from .models import Invoice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What billing wants to know of an order; whatever else the shop sends is ignored."""

    id: int
    customer: str
    total: Decimal


@receives("shop.orders", types="shop.order.created", once=True)
def write_invoice(event: Event[Order]) -> None:
    order = event.data
    invoice = Invoice.objects.create(event_id=event.id, order_id=order.id, customer=order.customer, amount=order.total)
    logger.info("%s → invoice %s over %s for order %s", event.type, invoice.pk, invoice.amount, order.id)
