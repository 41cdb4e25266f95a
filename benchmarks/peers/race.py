"""Ours and a peer in turn, each on an empty server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

from benchmarks.event import CHANNEL
from benchmarks.measurement import Measurement, Sample
from benchmarks.peers.contestants import Contestant, Peer
from benchmarks.stage import Side, Stage
from tests.servers import wait_for

# A busy machine takes minutes where an idle one takes seconds.
DEADLINE = 300.0


def beside(peer: Peer) -> Measurement:
    """The measurement of one peer: ours, then theirs."""
    return Measurement(name=peer.contestant.runner, rows=peer.rows, run_round=partial(run_round, peer))


def run_round(peer: Peer, stage: Stage) -> dict[str, Sample]:
    ours, theirs = measured(stage, peer.ours), measured(stage, peer.contestant)
    name = peer.contestant.runner
    return {
        name: Sample(ours=ours["per_second"], raw=theirs["per_second"]),
        f"{name}-cpu": Sample(ours=ours["cpu_us"], raw=theirs["cpu_us"]),
    }


def measured(stage: Stage, contestant: Contestant) -> dict[str, float]:
    """What the meter says of its consumer."""
    stage.clear()
    return heard(stage, contestant) if contestant.is_pubsub else drained(stage, contestant)


def drained(stage: Stage, contestant: Contestant) -> dict[str, float]:
    """From a backlog that it has published itself."""
    with begun(stage, contestant, "publish") as publisher:
        publisher.result()
    with begun(stage, contestant, "consume") as consumer:
        return consumer.result()


def heard(stage: Stage, contestant: Contestant) -> dict[str, float]:
    """While events are published faster than it can take them."""
    with begun(stage, contestant, "consume") as consumer:
        client = stage.server.client()
        wait_for(lambda: dict(client.pubsub_numsub(CHANNEL))[CHANNEL.encode()], timeout=20, what="a subscriber")
        stage.run("blast", events=contestant.warm + contestant.events)
        return consumer.result()


def begun(stage: Stage, contestant: Contestant, task: str) -> AbstractContextManager[Side]:
    """Its runner, at work on `task`."""
    return stage.start(
        ("-m", f"benchmarks.peers.runners.{contestant.runner}", task),
        python=contestant.python,
        warm=contestant.warm,
        events=contestant.events,
        deadline=DEADLINE,
    )
