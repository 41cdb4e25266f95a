"""django-event-bus on its broker for Redis streams: `RemoteSignal.send` and `manage.py eventbus_worker`."""

from collections.abc import Iterable
from io import StringIO

import django
from django.conf import settings
from django.core.management import call_command

from benchmarks.event import TYPE, order
from benchmarks.peers.runner import URL, Hit, run


def setup() -> None:
    settings.configure(
        SECRET_KEY="for benchmarks only",
        USE_TZ=True,
        LOGGING_CONFIG=None,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django_event_bus"],
        EVENT_BUS={
            "SERVICE_NAME": "bench",
            "BACKEND": "django_event_bus.brokers.redis_streams.RedisStreamsBroker",
            "OPTIONS": {"URL": URL},
        },
    )
    django.setup()


def publish(numbers: Iterable[int]) -> None:
    setup()
    from django_event_bus import RemoteSignal

    paid = RemoteSignal(TYPE)
    for number in numbers:
        paid.send(payload=order(number))


def consume(hit: Hit) -> None:
    setup()
    from django_event_bus import RemoteSignal, receiver

    RemoteSignal(TYPE)

    @receiver(TYPE)
    def count(payload: dict, **_: object) -> None:
        hit(payload["sent"])

    call_command("eventbus_worker", stdout=StringIO())


if __name__ == "__main__":
    run(publish=publish, consume=consume)
