"""The base of every page that hangs on an unmanaged model: one look at the server, drawn in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.cache import get_conditional_response
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from ..inspection import Server
from .acts import Acts
from .blocks import FOLDER, Block, Field, Shown
from .look import FRAGMENT, Look
from .stock import ModelAdmin

Draw = Callable[[Look], Shown]
EVERY = 2
"""Seconds between two looks of an open page."""


class Page(Acts, ModelAdmin):
    """A page without a table: `shown` draws its first view, `item` one of its things."""

    has_items = False
    is_live = True

    # -------------------------------------------------------------- what a page says

    def shown(self, look: Look) -> Shown:
        """The first view."""
        return Shown(blocks=self.blocks(look), fields=self.fields_of(look))

    def blocks(self, look: Look) -> Iterable[Block]:
        """What the first view shows."""
        raise NotImplementedError

    def fields_of(self, look: Look) -> list[Field]:
        """The filter above it."""
        return []

    def item(self, look: Look, id: str) -> Shown:
        """The view of one thing. Raises Http404 where there is none of that id, as far as anybody knows."""
        raise NotImplementedError

    # -------------------------------------------------------------- views

    def get_urls(self) -> list[URLPattern]:
        views: list[tuple[str, Callable[..., HttpResponseBase], str]] = [("", self.changelist_view, "changelist")]
        views += self.act_views()
        if self.has_items:
            views.append(("<path:object_id>/change/", self.item_view, "change"))
        return [self._url(*each) for each in views]

    def _url(self, route: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
        meta = self.model._meta
        open_view = self.admin_site.admin_view(_outside_of_transactions(view))
        return path(route, open_view, name=f"{meta.app_label}_{meta.model_name}_{name}")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return self.drawn(request, self.shown)

    def item_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self.drawn(request, lambda look: self.item(look, unquote(object_id)))

    def drawn(self, request: HttpRequest, draw: Draw) -> HttpResponseBase:
        """The page, or only what is in it where a page that is open already asks again."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        with Server() as server:
            look = self.look(request, server=server)
            context = self._context(look, draw(look))
        if FRAGMENT in request.GET:
            return _fragment(request, context)
        return TemplateResponse(request, f"{FOLDER}/page.html", context)

    def look(self, request: HttpRequest, *, server: Server) -> Look:
        request.current_app = self.admin_site.name
        return Look(request, server=server, site=self.admin_site, model=self.model)

    def _context(self, look: Look, shown: Shown) -> dict[str, Any]:
        blocks = list(shown.blocks)  # asks the server, so that the banners know
        return {
            **self.chrome(look, title=shown.subtitle or self.title),
            "is_item": bool(shown.subtitle),
            "blocks": blocks,
            "banners": look.banners(),
            "fields": shown.fields,
            "feed": shown.feed,
            "every": EVERY if self.is_live else 0,
        }

    @property
    def title(self) -> str:
        return capfirst(str(self.model._meta.verbose_name_plural))

    def chrome(self, look: Look, *, title: str) -> dict[str, Any]:
        """What the templates of the admin need around a page."""
        return {
            **self.admin_site.each_context(look.request),
            "title": title,
            "page_title": self.title,
            "opts": self.model._meta,
            "media": self.media,
            "here": look.here,
            "list_url": look.url(self.model),
        }

    # -------------------------------------------------------------- nobody adds, changes or deletes these

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm(f"redis_events.view_{self.model._meta.model_name}")


def _outside_of_transactions(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A view that ATOMIC_REQUESTS leaves alone: acts commit their rows before they tell Redis."""

    @wraps(view)
    def outside(*args: Any, **kwargs: Any) -> HttpResponseBase:
        return view(*args, **kwargs)

    for alias in connections:
        outside = transaction.non_atomic_requests(alias)(outside)
    return outside


def _fragment(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """The inside of a page; 304 where it is what the browser has."""
    html = render_to_string(f"{FOLDER}/inside.html", context, request=request)
    etag = f'"{hashlib.blake2s(html.encode(), digest_size=16).hexdigest()}"'
    response = HttpResponse(html, headers={"ETag": etag, "Cache-Control": "no-store"})
    return get_conditional_response(request, etag=etag, response=response) or response


def needs_payload() -> str:
    """What stands in the place of data that a user may not see."""
    return _("— (seeing the data of events needs the permission “Can see the data of events”)")
