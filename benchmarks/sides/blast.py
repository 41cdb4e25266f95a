"""Publishes BENCH_EVENTS pre-encoded events in pipelines of 200.

Cheap on purpose: the listener is what is measured, and it shares the machine with this.
"""

import json
import os
import socket
from urllib.parse import urlsplit

from benchmarks.event import CHANNEL, encoded

PIPELINE = 200
DIFFERENT = 5


def packed(number: int) -> bytes:
    """One PUBLISH in Redis' protocol."""
    document = encoded(number)
    head = f"*3\r\n$7\r\nPUBLISH\r\n${len(CHANNEL)}\r\n{CHANNEL}\r\n${len(document)}\r\n"
    return head.encode() + document + b"\r\n"


def publish(server: socket.socket, pipeline: bytes) -> None:
    """Send one pipeline and wait for its last reply."""
    server.sendall(pipeline)
    replies = 0
    while replies < PIPELINE:
        replies += server.recv(65536).count(b"\n")


def main() -> None:
    address = urlsplit(os.environ["BENCH_REDIS_URL"])
    pipelines = [b"".join(packed(n * PIPELINE + k) for k in range(PIPELINE)) for n in range(DIFFERENT)]
    with socket.create_connection((address.hostname, address.port)) as server:
        for number in range(int(os.environ["BENCH_EVENTS"]) // PIPELINE):
            publish(server, pipelines[number % DIFFERENT])
    print(json.dumps({}))


if __name__ == "__main__":
    main()
