"""Django's own classes as the type checker wants them: generic, which they are not while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core import paginator

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    Paginator = paginator.Paginator[Any]
else:
    ModelAdmin = admin.ModelAdmin
    Paginator = paginator.Paginator
