"""What the measured project publishes."""

from benchmarks.event import CHANNEL
from benchmarks.project.models import OutboxedOrder, PublishedOrder
from redis_events import ModelPublisher, publishes


@publishes(PublishedOrder)
class OrderPublisher(ModelPublisher):
    channel = CHANNEL
    type_prefix = "shop.order"
    fields = "__all__"


@publishes(OutboxedOrder)
class OutboxedOrderPublisher(ModelPublisher):
    channel = "bench.outbox"
    type_prefix = "shop.order"
    fields = "__all__"
