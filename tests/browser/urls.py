from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.static import serve

from tests.testapp.models import Unpublished

if not admin.site.is_registered(Unpublished):
    admin.site.register(Unpublished)  # a plain ModelAdmin: what the pages of Django's own look like


def icon(request: HttpRequest) -> HttpResponse:
    """Every browser asks for it, once."""
    return HttpResponse(status=204)


urlpatterns = [
    path("favicon.ico", icon),
    path("admin/", admin.site.urls),
    path("static/<path:path>", serve, {"document_root": settings.STATIC_ROOT}),
]
