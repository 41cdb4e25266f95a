"""FastStream from a stream, with a consumer group, one message a call."""

import asyncio
from collections.abc import Iterable

import redis
from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

from benchmarks.event import STREAM, envelope
from benchmarks.peers.runner import URL, Hit, run

GROUP = {"group": "group", "consumer": "one"}


def publish(numbers: Iterable[int]) -> None:
    asyncio.run(publish_all(numbers))


async def publish_all(numbers: Iterable[int]) -> None:
    async with RedisBroker(URL, logger=None) as broker:
        for number in numbers:
            await broker.publish(envelope(number), stream=STREAM)


def make_group() -> None:
    """From the beginning: the group FastStream would make begins at what comes next."""
    redis.Redis.from_url(URL).xgroup_create(STREAM, GROUP["group"], id="0")


def serve(broker: RedisBroker) -> None:
    asyncio.run(FastStream(broker, logger=None).run())


def consume(hit: Hit) -> None:
    make_group()
    broker = RedisBroker(URL, logger=None)

    @broker.subscriber(stream=StreamSub(STREAM, **GROUP))
    async def count(message: dict) -> None:
        hit(message["data"]["sent"])

    serve(broker)


if __name__ == "__main__":
    run(publish=publish, consume=consume)
