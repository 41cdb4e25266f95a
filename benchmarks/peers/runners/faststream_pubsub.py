"""FastStream from a pub/sub channel."""

from faststream.redis import RedisBroker

from benchmarks.event import CHANNEL
from benchmarks.peers.runner import URL, Hit, publish_nothing, run
from benchmarks.peers.runners.faststream_stream import serve


def consume(hit: Hit) -> None:
    broker = RedisBroker(URL, logger=None)

    @broker.subscriber(CHANNEL)
    async def count(message: dict) -> None:
        hit(message["data"]["sent"])

    serve(broker)


if __name__ == "__main__":
    run(publish=publish_nothing, consume=consume)
