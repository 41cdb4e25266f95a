from redis_events import Event, receives


@receives("shop.orders", types="shop.order.*", name="search.receivers.index")
def index(event: Event) -> None:
    """Ran until its listener was stopped for good."""
