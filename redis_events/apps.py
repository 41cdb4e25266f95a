"""Connects redis_events to the project it is installed in."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RedisEventsConfig(AppConfig):
    name = "redis_events"
    verbose_name = _("Redis events")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, publishing, registry  # noqa: F401  # importing checks registers them

        registry.autodiscover()
        publishing.connect()
