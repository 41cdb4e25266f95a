from django.urls import path

from . import views

urlpatterns = [
    path("", views.storefront, name="storefront"),
    path("orders/", views.order_list, name="orders"),
]
