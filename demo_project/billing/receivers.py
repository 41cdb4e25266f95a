"""What billing does about orders. An event may come twice; it leaves one invoice."""

import logging
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction

from redis_events import Event, receives

from .events import InvoicePublisher
from .models import Invoice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What billing wants to know of an order; whatever else the shop sends is ignored."""

    id: int
    customer: str
    total: Decimal


@receives("shop.orders", types="shop.order.created")
@transaction.atomic
def write_invoice(event: Event[Order]) -> None:
    order = event.data
    invoice, is_new = Invoice.objects.get_or_create(
        event_id=event.id, defaults={"order_id": order.id, "customer": order.customer, "amount": order.total}
    )
    if not is_new:  # a listener died over this event, perhaps before it had told of the invoice
        InvoicePublisher.publish("created", [invoice])
    logger.info("%s → invoice %s over %s for order %s", event.type, invoice.pk, invoice.amount, order.id)
