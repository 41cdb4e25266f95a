"""The tables themselves, to look at only: held deliveries, the inbox, the outbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import inspection
from ..models import HeldDelivery, InboxEntry, OutboxEvent
from ..registry import all_receivers
from . import show
from .blocks import FOLDER
from .pages import needs_payload
from .stock import ModelAdmin, Paginator

MOST_COUNTED = 10_000
"""Rows that are counted, and paged through: counting millions would take seconds."""


class Glimpse(Paginator):
    """Pages through the first rows only."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:MOST_COUNTED].count())


class ReadOnly(ModelAdmin):
    """A table of ours: nobody adds, changes or deletes here, and nothing counts or sorts all of it."""

    show_full_result_count = False
    list_per_page = 100
    paginator = Glimpse
    ordering = ("-pk",)
    sortable_by = ()
    actions = None
    change_list_template = f"{FOLDER}/change_list.html"
    change_form_template = f"{FOLDER}/change_form.html"
    open_fields: tuple[Any, ...] = ()
    secret_fields: tuple[str, ...] = ()
    """Fields that may hold data, for those with the permission to see it."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Headed by what the rows are; the title of stock asks to choose one of them."""
        title = capfirst(str(self.model._meta.verbose_name_plural))
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        is_list = request.resolver_match is not None and "object_id" not in request.resolver_match.kwargs
        return rows.defer(*self.secret_fields) if is_list else rows

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """An address may not search in data either: Django lets it in any column, and that tells what stands there."""
        return lookup.partition("__")[0] not in self.secret_fields and super().lookup_allowed(lookup, value, request)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return [*self.open_fields, *([*self.secret_fields] if _may_see_data(request) else ["concealed"])]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return self.get_fields(request, obj)

    @admin.display(description=gettext_lazy("event id"))
    def event(self, row: Any) -> str:
        return show.data(show.tail(row.event_id))

    @admin.display(description=gettext_lazy("data"))
    def concealed(self, row: Model) -> str:
        return needs_payload()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def to_the_second(model: type[Model], name: str) -> Callable[[Model], str]:
    """A column for a moment, headed as its field is: stock's has no seconds."""
    field: Any = model._meta.get_field(name)

    @admin.display(description=field.verbose_name)
    def shown(row: Model) -> str:
        return show.moment(getattr(row, name))

    shown.__name__ = name  # the help text and the style of the column go by it
    return shown


def _may_see_data(request: HttpRequest) -> bool:
    return request.user.has_perm("redis_events.view_payload")


def shown_bytes(raw: bytes | memoryview) -> str:
    """Bytes in a box of their own: the first 64 KB of them, the others only when they are asked for."""
    whole = bytes(raw)
    box = '<pre class="re-text" dir="auto" tabindex="0">{}</pre>'
    beginning = format_html(box, show.raw_text(whole[: show.MOST_SHOWN]))
    if len(whole) <= show.MOST_SHOWN:
        return beginning
    label = _("Show all %s bytes") % show.number(len(whole))
    return format_html("{}<details><summary>{}</summary>" + box + "</details>", beginning, label, show.raw_text(whole))


class ByReceiver(admin.SimpleListFilter):
    """The receivers of this code: asking the table for all names in it would read all of it."""

    title = gettext_lazy("receiver")
    parameter_name = "receiver"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return sorted((receiver.name, receiver.name) for receiver in all_receivers())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(receiver=self.value()) if self.value() else queryset


class HeldTable(ReadOnly):
    due, created_at, updated_at = (to_the_second(HeldDelivery, name) for name in ("due", "created_at", "updated_at"))
    list_display = ("event", "state", "receiver", "type", "key", "attempt", due, updated_at, "channel")
    list_filter = ("state", ByReceiver)
    open_fields = (
        *("event_id", "source", "state", "receiver", "group", "channel", "type", "key", "entry_id"),
        *("attempt", "replayed", due, created_at, updated_at, "exception", "fingerprint"),
    )
    secret_fields = ("reason", "traceback", "raw")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return ["bytes" if name == "raw" else name for name in super().get_fields(request, obj)]

    @admin.display(description=gettext_lazy("raw bytes"))
    def bytes(self, row: HeldDelivery) -> str:
        return shown_bytes(row.raw)


class InboxTable(ReadOnly):
    created_at = to_the_second(InboxEntry, "created_at")
    list_display = ("__str__", created_at)
    list_display_links = None
    ordering = ("-created_at",)
    open_fields = ("__str__", created_at)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """An address names an entry as its line in the list does."""
        try:
            digest = bytes.fromhex(object_id)
        except ValueError:
            return None
        return self.get_queryset(request).filter(pk=digest).first()

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return [*self.open_fields]


class OutboxTable(ReadOnly):
    created_at = to_the_second(OutboxEvent, "created_at")
    list_display = ("event", "type", created_at, "is_sent", "key", "channel", "discarded")
    list_filter = ("discarded",)
    open_fields = ("event_id", "channel", "type", "key", created_at, "entry", "discarded")
    secret_fields = ("body",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return ["bytes" if name == "body" else name for name in super().get_fields(request, obj)]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """The rows, and above them what is not sent, in every database."""
        return super().changelist_view(request, {**(extra_context or {}), "outboxes": list(_outboxes())})

    @admin.display(description=gettext_lazy("sent"), boolean=True)
    def is_sent(self, row: OutboxEvent) -> bool:
        return row.sent_ms is not None

    @admin.display(description=gettext_lazy("entry id"))
    def entry(self, row: OutboxEvent) -> str:
        return show.UNKNOWN if row.sent_ms is None else f"{row.sent_ms}-{row.sent_seq}"

    @admin.display(description=gettext_lazy("raw bytes"))
    def bytes(self, row: OutboxEvent) -> str:
        return shown_bytes(row.body)


def _outboxes() -> Iterable[str]:
    for each in inspection.outboxes():
        if each.problem:
            yield show.status("error", f"{each.using}: {each.problem}")
            continue
        count = f"{show.number(each.unsent)}{'+' if each.is_more else ''}"
        told = _("%(using)s: %(count)s not sent yet") % {"using": each.using, "count": count}
        oldest = format_html("{}, {} {}", told, _("the oldest since"), show.since(each.oldest)) if each.oldest else told
        yield show.status("warning" if each.unsent else "ok", oldest)
