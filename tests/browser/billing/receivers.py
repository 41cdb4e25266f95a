from redis_events import Event, receives


@receives("shop.orders", types="shop.order.*", name="billing.receivers.invoice")
def invoice(event: Event) -> None:
    """Sends nothing: it is here to have a group that has caught up."""
