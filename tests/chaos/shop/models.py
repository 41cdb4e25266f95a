"""What the trials' service keeps: its orders, and what its receivers made of their events."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """Published on an outbox channel. `kind` tells the receivers how to fail."""

    kind = models.CharField(max_length=10, default="good")


class Effect(models.Model):
    """What a receiver did about an event, in the database."""

    source = models.CharField(max_length=255)
    event_id = models.CharField(max_length=255)
    order = models.BigIntegerField()
    receiver = models.CharField(max_length=20)
