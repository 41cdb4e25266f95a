"""One round: ours, then each peer in turn, each on an empty server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.event import CHANNEL
from benchmarks.measurement import Measurement, Sample
from benchmarks.peers.contestants import Contestant, Peer
from benchmarks.stage import Stage
from tests.servers import wait_for


def race(peers: Sequence[Peer]) -> Measurement:
    """The measurement of `peers` beside ours."""
    return Measurement(
        name="ours and " + ", ".join(peer.contestant.runner for peer in peers),
        rows=tuple(peer.row for peer in peers),
        run_round=partial(run_round, peers),
    )


def run_round(peers: Sequence[Peer], stage: Stage) -> dict[str, Sample]:
    ours = {contestant: per_second(stage, contestant) for contestant in dict.fromkeys(peer.ours for peer in peers)}
    return {
        peer.contestant.runner: Sample(ours=ours[peer.ours], raw=per_second(stage, peer.contestant)) for peer in peers
    }


def per_second(stage: Stage, contestant: Contestant) -> float:
    """How many events a second its consumer hands to the receiver."""
    stage.server.client().flushall()
    return heard(stage, contestant) if contestant.is_pubsub else drained(stage, contestant)


def drained(stage: Stage, contestant: Contestant) -> float:
    """From a backlog that it has published itself."""
    with begun(stage, contestant, "publish") as publisher:
        publisher.result()
    with begun(stage, contestant, "consume") as consumer:
        return consumer.result()["per_second"]


def heard(stage: Stage, contestant: Contestant) -> float:
    """While events are published faster than it can take them."""
    with begun(stage, contestant, "consume") as consumer:
        client = stage.server.client()
        wait_for(lambda: dict(client.pubsub_numsub(CHANNEL))[CHANNEL.encode()], timeout=20, what="a subscriber")
        stage.run("blast", events=contestant.warm + contestant.events)
        return consumer.result()["per_second"]


def begun(stage: Stage, contestant: Contestant, task: str):
    """Its runner, at work on `task`."""
    return stage.start(
        ("-m", f"benchmarks.peers.runners.{contestant.runner}", task),
        python=contestant.python,
        warm=contestant.warm,
        events=contestant.events,
    )
