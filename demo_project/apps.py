"""The part every service has: a record of what it published, so that the demo can count what arrived."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "demo_project"
    verbose_name = "Demo"

    def ready(self) -> None:
        from redis_events.signals import event_published, publish_failed

        from .models import record

        event_published.connect(record, dispatch_uid="demo_project.published")
        publish_failed.connect(record, dispatch_uid="demo_project.failed")
