"""Settings of the service `billing`."""

from .base import *  # noqa: F403
from .base import INSTALLED_APPS, database, redis_events

INSTALLED_APPS = [*INSTALLED_APPS, "demo_project.billing"]
DATABASES = database("billing")
REDIS_EVENTS = redis_events("billing", outboxes=("billing.invoices",))
