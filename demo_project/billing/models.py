"""Invoices. An order is known here by its number alone: the shop's database is somewhere else."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Invoice(models.Model):
    event_id = models.CharField(_("event"), max_length=36, unique=True)
    order_id = models.PositiveBigIntegerField(_("order"))
    customer = models.CharField(_("customer"), max_length=60)
    amount = models.DecimalField(_("amount"), max_digits=8, decimal_places=2)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("invoice")
        verbose_name_plural = _("invoices")

    def __str__(self) -> str:
        return _("invoice %(id)s for order %(order)s") % {"id": self.pk, "order": self.order_id}
