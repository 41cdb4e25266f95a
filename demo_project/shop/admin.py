from django.contrib import admin
from django.http import HttpRequest

from .models import Order, Reaction


class ReactionInline(admin.TabularInline):
    model = Reaction
    fields = readonly_fields = ["at", "source", "text", "event_id"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Order | None = None) -> bool:
        return False


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "customer", "item", "quantity", "total", "status", "placed_at"]
    list_filter = ["status", "item"]
    search_fields = ["customer"]
    readonly_fields = ["total", "status", "placed_at"]
    inlines = [ReactionInline]
