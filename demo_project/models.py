"""What a service published, written down by itself."""

import json
from collections.abc import Sequence

from django.db import models
from django.utils.translation import gettext_lazy as _

from redis_events.transports.base import Outgoing


class PublishedEvent(models.Model):
    """An event that left this service, or tried to: one that Redis never took counts as lost."""

    event_id = models.CharField(_("event"), max_length=36, primary_key=True)
    type = models.CharField(_("type"), max_length=100)
    key = models.CharField(_("key"), max_length=100)
    published_at = models.DateTimeField(_("published at"), auto_now_add=True)

    class Meta:
        verbose_name = _("published event")
        verbose_name_plural = _("published events")

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"


def record(*, batch: Sequence[Outgoing], **_signal: object) -> None:
    """Receive `event_published` and `publish_failed`: write down the events of a batch."""
    documents = [json.loads(outgoing.body) for outgoing in batch if not outgoing.plain]
    rows = [PublishedEvent(event_id=each["id"], type=each["type"], key=each.get("subject", "")) for each in documents]
    PublishedEvent.objects.bulk_create(rows, ignore_conflicts=True)
