"""What the shop publishes, run in processes of its own: `python -m tests.browser.shop.fill PART`."""

from __future__ import annotations

import sys

import django


def first() -> None:
    """What every group reads."""
    from redis_events import publish

    for number in range(1, 31):
        publish("shop.orders", {"id": number, "total": f"{number}.90"}, type="shop.order.placed", key=number)


def failures() -> None:
    """Three kinds of dead letters: twelve, four and two; retries that wait; runs that are parked."""
    from redis_events import publish

    problems = [{"card": "refused"}] * 12 + [{"weight": 0}] * 4 + [{"address": ""}] * 2 + [{"unpaid": True}] * 3
    for number, problem in enumerate(problems, start=100):
        publish("shop.orders", {"id": number, **problem}, type="shop.order.placed", key=number)


def last() -> None:
    """One more of what every group reads."""
    from redis_events import publish

    publish("shop.orders", {"id": 31}, type="shop.order.placed", key=31)


def texts() -> None:
    """Events that say what no browser may run."""
    from redis_events import publish
    from tests.browser.naughty import STRINGS

    for number, text in enumerate(STRINGS, start=200):
        key = "".join(filter(str.isprintable, text))[:200]
        data = {"id": number, "note": text, text[:40]: [text, {"deeper": text}]}
        publish("shop.orders", data, type="shop.order.noted", key=key)
        publish("guestbook", text)
        publish("live.guestbook", {"note": text}, type="shop.guest.wrote", key=key)


def channels() -> None:
    """Fifty channels with something on each."""
    from redis_events import publish

    for number in range(44):
        publish(f"stock.shelf-{number:02}", {"left": number}, type="stock.shelf.counted", key=number)


def unsent() -> None:
    """Rows that stay in the outbox: the server cannot be reached from this process."""
    from django.db import transaction

    from redis_events import publish
    from tests.browser.naughty import XSS

    with transaction.atomic():
        for key in ("7", "8", XSS):
            publish("shop.refunds", {"id": key, "amount": "9.90"}, type="shop.order.refunded", key=key)


def people() -> None:
    """Somebody who may do everything, and a row of somebody else's app."""
    from django.contrib.auth.models import User

    from tests.testapp.models import Unpublished

    User.objects.create_superuser("ada", "ada@example.com", "ada")
    Unpublished.objects.create(name="a" * 20)


if __name__ == "__main__":
    django.setup()
    for part in sys.argv[1:]:
        globals()[part]()
