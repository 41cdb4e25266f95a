"""What the trials' service publishes."""

from redis_events import ModelPublisher, publishes

from .models import Order


@publishes(Order)
class OrderPublisher(ModelPublisher):
    channel = "orders"
    fields = "__all__"
