from django.contrib import admin

from .models import Push, Toast


@admin.register(Toast)
class ToastAdmin(admin.ModelAdmin):
    list_display = ["id", "order_id", "text", "shown_at"]
    search_fields = ["text", "event_id"]


@admin.register(Push)
class PushAdmin(admin.ModelAdmin):
    list_display = ["id", "text", "sent_at"]
    search_fields = ["text", "event_id"]
