"""What customers were told."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Toast(models.Model):
    """A short text about something that happened to an order."""

    event_id = models.CharField(_("event"), max_length=36, unique=True)
    order_id = models.PositiveBigIntegerField(_("order"))
    text = models.CharField(_("text"), max_length=200)
    shown_at = models.DateTimeField(_("shown at"), auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("toast")
        verbose_name_plural = _("toasts")

    def __str__(self) -> str:
        return self.text


class Push(models.Model):
    """A live message that went out to the customer's phone."""

    event_id = models.CharField(_("event"), max_length=36, unique=True)
    text = models.CharField(_("text"), max_length=200)
    sent_at = models.DateTimeField(_("sent at"), auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("push")
        verbose_name_plural = _("pushes")

    def __str__(self) -> str:
        return self.text
