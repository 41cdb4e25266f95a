"""Settings of the service `shop`."""

from .base import *  # noqa: F403
from .base import INSTALLED_APPS, database, redis_events

INSTALLED_APPS = [*INSTALLED_APPS, "demo_project.shop"]
DATABASES = database("shop")
REDIS_EVENTS = redis_events("shop", outboxes=("shop.orders",))
