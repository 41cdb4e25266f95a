"""The storefront: one page with a form, and the list of orders that it keeps fresh."""

import logging

from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from .forms import OrderForm
from .models import Order

logger = logging.getLogger(__name__)

SHOWN = 20


@require_http_methods(["GET", "HEAD", "POST"])
def storefront(request: HttpRequest) -> HttpResponse:
    form = OrderForm(request.POST or None)
    if form.is_valid():
        order = place(form)
        thanks = _("Thank you, %(customer)s: this is order %(id)s.")
        messages.success(request, thanks % {"customer": order.customer, "id": order.pk})
        return redirect("storefront")
    return render(request, "shop/storefront.html", {"form": form, "orders": latest_orders()})


@transaction.atomic
def place(form: OrderForm) -> Order:
    """The new order, saved. The others hear of it when the transaction commits, not before."""
    order = form.save()
    logger.info("order %s: %s × %s for %s, %s", order.pk, order.quantity, order.item, order.customer, order.total)
    return order


@require_GET
def order_list(request: HttpRequest) -> HttpResponse:
    """The list alone, for the page's own polling."""
    return render(request, "shop/order_list.html", {"orders": latest_orders()})


def latest_orders() -> QuerySet[Order]:
    return Order.objects.prefetch_related("reactions")[:SHOWN]
