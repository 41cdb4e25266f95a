"""FastStream from a stream, with a consumer group, up to 100 messages a call."""

from faststream.redis import RedisBroker, StreamSub

from benchmarks.event import STREAM
from benchmarks.peers.runner import URL, Hit, run
from benchmarks.peers.runners.faststream_stream import GROUP, make_group, publish, serve


def consume(hit: Hit) -> None:
    make_group()
    broker = RedisBroker(URL, logger=None)

    @broker.subscriber(stream=StreamSub(STREAM, **GROUP, batch=True, max_records=100))
    async def count(messages: list[dict]) -> None:
        for message in messages:
            hit(message["data"]["sent"])

    serve(broker)


if __name__ == "__main__":
    run(publish=publish, consume=consume)
