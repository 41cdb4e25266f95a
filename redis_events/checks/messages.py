"""What the checks say: an id, what is wrong, what to do about it, and where it is described."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from ..conf import RESERVED

DOCS = "docs/checks.md"
ELSEWHERE = f"Choose a name that does not start with {RESERVED}"


def message(kind: type[Error] | type[Warning], id: str, text: str, hint: str, obj: Any = None) -> CheckMessage:
    return kind(text, hint=f"{hint} ({DOCS}#{id.lower()})", obj=obj, id=f"redis_events.{id}")
