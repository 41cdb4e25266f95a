"""Settings of the service `notifications`."""

from .base import *  # noqa: F403
from .base import INSTALLED_APPS, database, redis_events

INSTALLED_APPS = [*INSTALLED_APPS, "demo_project.notifications"]
DATABASES = database("notifications")
REDIS_EVENTS = redis_events("notifications")
