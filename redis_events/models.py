"""The tables: what must outlive a process."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class HeldDelivery(models.Model):
    """One receiver's unfinished part of a delivery, in the receiving service's database."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        PARKED = "parked", _("parked")
        DEAD = "dead", _("dead")

    id = models.BigAutoField(primary_key=True)
    source = models.CharField(_("source"), max_length=255)
    event_id = models.CharField(_("event id"), max_length=255)
    group = models.CharField(_("consumer group"), max_length=129)
    receiver = models.CharField(_("receiver"), max_length=255, help_text=_("Empty for bytes that are no event."))
    channel = models.CharField(_("channel"), max_length=255)
    type = models.CharField(_("type"), max_length=255)
    key = models.CharField(_("key"), max_length=255)
    entry_id = models.CharField(_("entry id"), max_length=64, help_text=_("Empty for pub/sub."))
    state = models.CharField(_("state"), max_length=8, choices=State.choices)
    attempt = models.PositiveIntegerField(_("attempt"), help_text=_("Runs begun so far."))
    replayed = models.BooleanField(
        _("replayed"), default=False, help_text=_("Whether somebody asked for its next run.")
    )
    due = models.DateTimeField(_("due"), null=True, help_text=_("When it is run again; empty for dead letters."))
    raw = models.BinaryField(_("raw bytes"))
    reason = models.TextField(_("reason"))
    exception = models.CharField(_("exception"), max_length=255)
    traceback = models.TextField(_("traceback"))
    fingerprint = models.CharField(_("fingerprint"), max_length=16)
    created_at = models.DateTimeField(_("held since"))
    updated_at = models.DateTimeField(_("last run"))

    class Meta:
        verbose_name = _("held delivery")
        verbose_name_plural = _("held deliveries")
        constraints = [
            models.UniqueConstraint(fields=["source", "event_id", "group", "receiver"], name="redis_events_held_once"),
        ]
        indexes = [
            models.Index(fields=["due"], name="redis_events_held_due", condition=Q(state="waiting")),
            models.Index(fields=["fingerprint"], name="redis_events_held_print", condition=Q(state="dead")),
            models.Index(fields=["receiver"], name="redis_events_held_parked", condition=Q(state="parked")),
        ]

    def __str__(self) -> str:
        return f"{self.type or self.channel} {self.event_id} → {self.receiver}"


class DeadLetterManager(models.Manager["DeadLetter"]):
    """Only the dead ones."""

    def get_queryset(self) -> models.QuerySet[DeadLetter]:
        return super().get_queryset().filter(state=HeldDelivery.State.DEAD)


class DeadLetter(HeldDelivery):
    """A held delivery that will not be tried again by itself, whole, with its reason."""

    objects: ClassVar[models.Manager[DeadLetter]] = DeadLetterManager()

    class Meta:
        proxy = True
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        permissions = [("discard_deadletter", "Can discard dead letters")]


class ChannelState(models.Model):
    """How far a group has settled a channel, in the database of the service that listens."""

    id = models.BigAutoField(primary_key=True)
    channel = models.CharField(_("channel"), max_length=255)
    group = models.CharField(_("consumer group"), max_length=200)
    floor = models.CharField(_("floor"), max_length=64, help_text=_("All entries up to this id are settled."))
    updated_at = models.DateTimeField(_("updated"))

    class Meta:
        verbose_name = _("channel state")
        verbose_name_plural = _("channel states")
        constraints = [models.UniqueConstraint(fields=["channel", "group"], name="redis_events_channel_group")]

    def __str__(self) -> str:
        return f"{self.channel} · {self.group}: {self.floor}"


class OutboxEvent(models.Model):
    """An event written in the transaction of the change it tells of, and where Redis has it since it was sent."""

    id = models.BigAutoField(primary_key=True)
    channel = models.CharField(_("channel"), max_length=255)
    event_id = models.CharField(_("event id"), max_length=255)
    type = models.CharField(_("type"), max_length=255)
    key = models.CharField(_("key"), max_length=255)
    body = models.BinaryField(_("raw bytes"))
    created_at = models.DateTimeField(_("written"))
    sent_ms = models.BigIntegerField(_("entry id, milliseconds"), null=True)
    sent_seq = models.BigIntegerField(_("entry id, sequence"), null=True)
    discarded = models.BooleanField(_("discarded"), default=False, help_text=_("Removed on purpose: never sent again."))

    class Meta:
        verbose_name = _("outbox event")
        verbose_name_plural = _("outbox events")
        indexes = [
            models.Index(fields=["id"], name="redis_events_outbox_unsent", condition=Q(sent_ms=None, discarded=False)),
            models.Index(fields=["channel", "sent_ms", "sent_seq"], name="redis_events_outbox_sent"),
        ]

    def __str__(self) -> str:
        return f"{self.type or self.channel} {self.event_id}"


class InboxEntry(models.Model):
    """That the effect of an event is committed: written in the transaction of the receiver that had it."""

    digest = models.BinaryField(
        _("digest"), primary_key=True, max_length=16, help_text=_("Of source, event id, group and receiver.")
    )
    created_at = models.DateTimeField(_("committed"), db_index=True)

    class Meta:
        verbose_name = _("inbox entry")
        verbose_name_plural = _("inbox entries")

    def __str__(self) -> str:
        return bytes(self.digest).hex()


# ------------------------------------------------------------------ what admin pages hang on: no tables


class Overview(models.Model):
    """Whether everything is healthy."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = verbose_name_plural = _("overview")


class Channel(models.Model):
    """What events travel under."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name, verbose_name_plural = _("channel"), _("channels")


class ReceiverStatus(models.Model):
    """What runs where."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = [("pause_receiver", "Can pause and resume receivers")]
        verbose_name, verbose_name_plural = _("receiver"), _("receivers")


class LoggedEvent(models.Model):
    """An event in a stream."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = [
            ("view_payload", "Can see the data of events"),
            ("publish_event", "Can publish events"),
            ("replay_event", "Can replay events and dead letters"),
        ]
        verbose_name, verbose_name_plural = _("event"), _("events")


class LiveFeed(models.Model):
    """What is happening now."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = verbose_name_plural = _("live feed")


class ConsumerGroup(models.Model):
    """Who is behind, and who is stuck."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = [("claim_pending", "Can claim and skip pending entries")]
        verbose_name, verbose_name_plural = _("consumer group"), _("consumer groups")


class ListenerStatus(models.Model):
    """Who is alive."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = [("stop_listener", "Can ask listeners to stop")]
        verbose_name, verbose_name_plural = _("listener"), _("listeners")


class EffectiveSetting(models.Model):
    """What the settings came to, and what the checks say."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = verbose_name_plural = _("settings and checks")
