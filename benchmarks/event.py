"""The event every measurement carries: a CloudEvents document of about 550 bytes, as one writes it by hand."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

CHANNEL = "bench.orders"
STREAM = "bench.stream"
ONCE = "bench.once"
TYPE = "shop.order.paid"


def order(number: int) -> dict[str, Any]:
    """The data of event `number`, stamped with the wall clock in seconds."""
    return {
        "id": number,
        "sent": time.time(),
        "customer": {"id": 4242, "name": "Ada Lovelace", "email": "ada@example.org"},
        "status": "paid",
        "currency": "EUR",
        "total": "1234.50",
        "changed": ["status", "total"],
        "lines": [
            {"sku": "AB-1001", "quantity": 2, "price": "17.25"},
            {"sku": "CD-2002", "quantity": 1, "price": "1200.00"},
        ],
    }


def envelope(number: int, *, type: str = TYPE) -> dict[str, Any]:
    """The whole document, with the id and time a hand-writer would give it."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "shop",
        "type": type,
        "subject": str(number),
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": order(number),
    }


def encoded(number: int, *, type: str = TYPE) -> bytes:
    """The bytes of event `number`."""
    return json.dumps(envelope(number, type=type)).encode()


def kind(number: int) -> str:
    """One of many types: `number` says which."""
    return f"shop.kind{number}.paid"
