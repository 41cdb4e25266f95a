"""Celery with Redis as its broker, no results kept, the worker in one process (`--pool solo`)."""

from collections.abc import Iterable

from celery import Celery

from benchmarks.event import envelope
from benchmarks.peers.runner import URL, Hit, run

app = Celery("bench", broker=URL)
app.conf.update(
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_serializer="json",
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=64,
    worker_redirect_stdouts=False,  # the meter's line goes to the real one
    worker_send_task_events=False,
)


def task(hit: Hit):
    @app.task(name="bench.count")
    def count(event: dict) -> None:
        hit(event["data"]["sent"])

    return count


def publish(numbers: Iterable[int]) -> None:
    count = task(lambda sent: None)
    for number in numbers:
        count.delay(envelope(number))


def consume(hit: Hit) -> None:
    task(hit)
    quiet = ["--loglevel", "CRITICAL", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool", "solo", *quiet])


if __name__ == "__main__":
    run(publish=publish, consume=consume)
