"""What the shop tells the others. Found by itself, as admin.py is."""

from redis_events import ModelPublisher, publishes

from .models import Order


@publishes(Order)
class OrderPublisher(ModelPublisher):
    channel = "shop.orders"
    type_prefix = "shop.order"
    fields = ("id", "customer", "item", "quantity", "total", "status")
    types = ("created", "updated")
