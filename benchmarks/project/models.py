"""Tables of one shape, each published in another way, the first by nobody; and one that receivers write to."""

from django.db import models


class Order(models.Model):
    """An order as every measurement of saves writes it."""

    customer = models.CharField(max_length=100)
    status = models.CharField(max_length=20)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    placed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True


class UnpublishedOrder(Order):
    pass


class PublishedOrder(Order):
    pass


class OutboxedOrder(Order):
    pass


class HandPublishedOrder(Order):
    pass


class Note(models.Model):
    """The row of a receiver that writes one."""

    number = models.IntegerField()
    status = models.CharField(max_length=20)
