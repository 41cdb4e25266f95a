"""What billing tells the others."""

from redis_events import ModelPublisher, publishes

from .models import Invoice


@publishes(Invoice)
class InvoicePublisher(ModelPublisher):
    channel = "billing.invoices"
    type_prefix = "billing.invoice"
    fields = ("id", "order_id", "amount")
    types = ("created",)
