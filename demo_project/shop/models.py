"""Orders, and what other services did about them."""

from decimal import Decimal
from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _


class Item(models.TextChoices):
    TEA = "tea", _("Tea, 4.50")
    COFFEE = "coffee", _("Coffee, 7.90")
    CUP = "cup", _("Cup, 12.00")


PRICES = {Item.TEA: Decimal("4.50"), Item.COFFEE: Decimal("7.90"), Item.CUP: Decimal("12.00")}


class Order(models.Model):
    class Status(models.TextChoices):
        PLACED = "placed", _("placed")
        INVOICED = "invoiced", _("invoiced")

    customer = models.CharField(_("customer"), max_length=60)
    item = models.CharField(_("item"), max_length=10, choices=Item.choices, default=Item.TEA)
    quantity = models.PositiveSmallIntegerField(
        _("quantity"), default=1, validators=[MinValueValidator(1), MaxValueValidator(20)]
    )
    total = models.DecimalField(_("total"), max_digits=8, decimal_places=2, editable=False)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.PLACED, editable=False)
    placed_at = models.DateTimeField(_("placed at"), auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("order")
        verbose_name_plural = _("orders")

    def __str__(self) -> str:
        return _("order %(id)s of %(customer)s") % {"id": self.pk, "customer": self.customer}

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.total = PRICES[Item(self.item)] * self.quantity
        super().save(*args, **kwargs)


class Reaction(models.Model):
    """One event of another service about an order: a line of its timeline."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="reactions", verbose_name=_("order"))
    event_id = models.CharField(_("event"), max_length=36, unique=True)
    source = models.CharField(_("service"), max_length=64)
    text = models.CharField(_("text"), max_length=200)
    at = models.DateTimeField(_("at"))

    class Meta:
        ordering = ["at"]
        verbose_name = _("reaction")
        verbose_name_plural = _("reactions")

    def __str__(self) -> str:
        return f"{self.source}: {self.text}"
