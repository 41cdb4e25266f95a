"""The admin in every service; the shop has its storefront in front of it."""

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls)]
if apps.is_installed("demo_project.shop"):
    urlpatterns.append(path("", include("demo_project.shop.urls")))
