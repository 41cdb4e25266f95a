from django.contrib import admin

from .models import Invoice


@admin.register(Invoice)
class InvoiceAdmin(admin.ModelAdmin):
    list_display = ["id", "order_id", "customer", "amount", "created_at"]
    search_fields = ["customer", "event_id"]
