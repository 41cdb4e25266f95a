"""A relay that empties the outbox; prints events/s of what was unsent when it began, BENCH_EVENTS of them."""

import json
import os
import time

import django


def main() -> None:
    django.setup()
    from redis_events.models import OutboxEvent
    from redis_events.relaying import Relay

    events = int(os.environ["BENCH_EVENTS"])
    last = OutboxEvent.objects.order_by("-id").values_list("id", flat=True)[0]
    waiting = OutboxEvent.objects.filter(id__lte=last, sent_ms=None)
    relay = Relay(["default"])
    started = time.perf_counter()
    while waiting.exists():
        relay.drain()
    print(json.dumps({"per_second": events / (time.perf_counter() - started)}))
    relay.close()


if __name__ == "__main__":
    main()
