"""Models the tests publish, or take care not to. No migrations: the tables are made as the classes say."""

from __future__ import annotations

import uuid

from django.db import models


class Customer(models.Model):
    """A key that is not a number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=100)


class Order(models.Model):
    """The model most tests publish."""

    customer = models.ForeignKey(Customer, null=True, blank=True, on_delete=models.CASCADE, related_name="orders")
    status = models.CharField(max_length=20, default="new")
    quantity = models.IntegerField(default=1)
    total = models.DecimalField(max_digits=10, decimal_places=2, default="0.00")
    note = models.TextField(blank=True)
    placed_at = models.DateTimeField(auto_now_add=True)
    tags: models.ManyToManyField[Tag, models.Model] = models.ManyToManyField("Tag", blank=True)

    def __str__(self) -> str:
        return f"order {self.pk}"


class UrgentOrder(Order):
    """A proxy: the same row under another class."""

    class Meta:
        proxy = True


class GiftOrder(Order):
    """Inherited over two tables: one save writes both."""

    wrapping = models.CharField(max_length=20, default="paper")


class Stamped(models.Model):
    """Abstract: its fields, not its table."""

    stamp = models.CharField(max_length=20, default="fresh")

    class Meta:
        abstract = True


class Parcel(Stamped):
    """Inherited from an abstract class; saves itself in its own way."""

    weight = models.FloatField(default=1.0)
    saves = models.IntegerField(default=0)

    def save(self, **options: object) -> None:
        self.saves += 1
        super().save(**options)  # type: ignore[arg-type]


class Tag(models.Model):
    name = models.CharField(max_length=20)


class Unpublished(models.Model):
    """Nobody ever publishes this one."""

    name = models.CharField(max_length=20, default="quiet")
