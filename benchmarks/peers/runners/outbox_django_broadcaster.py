"""django-broadcaster: `publish_event`, and batches of 100 like `manage.py outbox_worker`, without its pauses."""

from urllib.parse import urlsplit

from benchmarks.event import TYPE, order
from benchmarks.peers.outbox_runner import STREAM, URL, run, setup_peer


def main() -> None:
    setup_peer("django_broadcaster", OUTBOX_PUBLISHERS={"default": redis_stream()})
    from django_broadcaster.publishers import publisher

    def write(number: int) -> None:
        publisher.publish_event(event_type=TYPE, source="shop", data=order(number), subject=str(number))

    def relay() -> None:
        while publisher.process_pending_events(100):
            pass

    run(relay=relay, write=write)


def redis_stream() -> dict[str, object]:
    server = urlsplit(URL)
    options = {"host": server.hostname, "port": server.port, "stream_name": STREAM, "max_len": 10_000_000}
    return {"BACKEND": "django_broadcaster.backends.RedisStreamBackend", "OPTIONS": options}


if __name__ == "__main__":
    main()
