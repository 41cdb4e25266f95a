"""The life of an event in rows: what is going on, and the places where it is cut."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import Error

from redis_events.exceptions import TransportError

from . import actors
from .actors import Work, doomed
from .failpoints import Cut
from .world import World

COMMIT = "django.db.backends.base.base.BaseDatabaseWrapper._commit"
EXCHANGE = "redis_events.transports.outlet.Outlet.exchange"
EFFECT = "tests.chaos.shop.receivers.have_effect"
SETTLE = "redis_events.transports.stream.StreamTransport.settle"
SHAPES = ("lone", "each", "all")

IN_A_ROW = 3
"""Kills in a row: what the first leaves is what the second finds. Below MAX_DELIVERIES, or it would be poison."""

Place = tuple[str, str]
"""A dotted name, and before or after."""


@dataclass(slots=True)
class Trial:
    """One trial being played: its world, its dice, and the cut that was drawn."""

    world: World
    dice: random.Random
    draw: Callable[[], Cut]
    kinds: list[str] = field(default_factory=lambda: ["good"] * 4)
    shape: str = "each"

    def run(self, work: Work) -> None:
        self.world.run(work)

    def cut_short(self, work: Work, who: str) -> None:
        """Run an actor that is cut, then another one, then another; look each time at what it left."""
        for _ in range(IN_A_ROW):
            self.world.run(doomed(work, self.draw(), self.world.history, who))
            self.world.note_snapshot()

    def publish(self) -> None:
        self.run(lambda: actors.publish(self.kinds, self.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row: `places` for cuts, of which one is drawn, at its first to `most`-th call."""

    row: str
    title: str
    play: Callable[[Trial], None]
    places: Sequence[Place] = ()
    hows: Sequence[str] = ("kill",)
    most: int = 4
    kinds: Sequence[str] = ("good",)
    only: str = ""
    """The vendor of the one database this can be played on."""

    def trial(self, world: World, dice: random.Random) -> Trial:
        kinds = [dice.choice(self.kinds) for _ in range(4)]
        return Trial(world, dice, lambda: self._cut(dice), kinds, dice.choice(SHAPES))

    def _cut(self, dice: random.Random) -> Cut:
        if not self.places:
            return Cut()
        name, when = dice.choice(self.places)
        how, nth = dice.choice(self.hows), dice.randint(1, self.most)
        return Cut(name, when, nth, how, dice.uniform(0.0, 0.003))


# ------------------------------------------------------------------ 1 to 8: out


def _publisher(trial: Trial) -> None:
    trial.cut_short(lambda: actors.publish(trial.kinds, trial.shape), "publisher")


def _sender(trial: Trial) -> None:
    """Whoever sends is cut: the publisher after its commit, or a relay."""
    if trial.dice.random() < 0.5:
        _publisher(trial)
        return
    trial.run(lambda: actors.leave_unsent(trial.kinds, trial.shape))
    trial.cut_short(actors.relay, "relay")


def _lost_reply_to_sender(trial: Trial) -> None:
    """The server runs the sender's n-th command and its reply never comes."""
    trial.run(lambda: actors.leave_unsent(trial.kinds, trial.shape))
    _lose_reply(trial, actors.relay, "relay", most=12)


def _lose_reply(trial: Trial, work: Work, who: str, *, most: int) -> None:
    world, nth = trial.world, trial.dice.randint(1, most)
    world.go_through(world.proxy.url)
    world.proxy.drop_reply(nth)
    world.run(lambda: _tolerantly(work))
    if world.proxy.has_dropped:
        world.history.note("cut", who=who, at=f"the reply to command {nth} is lost")
    world.go_through(world.server.url)
    world.note_snapshot()


def _tolerantly(work: Work) -> None:
    """A server or a database that is away ends this actor; another one will come."""
    try:
        work()
    except (TransportError, Error):
        os._exit(0)


def _slow_transaction(trial: Trial) -> None:
    """An older transaction commits after a younger one was sent, both by one relay: no publisher gets to send."""
    world = trial.world
    arming = Cut(COMMIT, "before", 1, "freeze")
    slow = world.fork(doomed(lambda: actors.leave_unsent(["good"], "all"), arming, world.history, "publisher"))
    is_frozen = world.wait_until_stopped(slow)
    trial.run(lambda: actors.leave_unsent(trial.kinds, "each"))

    def relay_twice() -> None:
        actors.relay()
        os.kill(os.getpid(), signal.SIGSTOP)
        actors.relay()

    relay = world.fork(relay_twice)
    world.wait_until_stopped(relay)
    if is_frozen:
        os.kill(slow, signal.SIGCONT)
        world.wait(slow)
    os.kill(relay, signal.SIGCONT)
    world.wait(relay)
    world.note_unsent()


def _lost_by_redis(trial: Trial) -> None:
    """What was acknowledged is gone: all of it, the stream, or the end of the append-only file."""
    world = trial.world
    trial.publish()
    trial.run(actors.relay)
    if trial.dice.random() < 0.5:
        trial.run(actors.listen)
    trial.publish()
    if trial.dice.random() < 0.5:
        trial.run(actors.relay)
    ways = {"FLUSHALL": world.flush, "DEL": world.delete_stream, "the file's end": lambda: world.cut_file(trial.dice)}
    way = trial.dice.choice(sorted(ways))
    world.history.note("cut", who="redis", at=way)
    ways[way]()
    trial.publish()


# ------------------------------------------------------------------ 9 to 16: in


def _listener(trial: Trial) -> None:
    trial.publish()
    trial.run(actors.relay)
    trial.cut_short(actors.listen, "listener")


def _lost_reply_to_listener(trial: Trial) -> None:
    trial.publish()
    trial.run(actors.relay)
    _lose_reply(trial, actors.listen, "listener", most=25)


def _twins(trial: Trial) -> None:
    """Another service's events with the very ids of ours: a CloudEvents id is unique within its source only."""
    trial.publish()
    trial.run(actors.relay)
    trial.world.add_twins()
    trial.publish()
    trial.cut_short(actors.listen, "listener")


def _poison(trial: Trial) -> None:
    """One event kills every process that runs it, in the middle of a batch."""
    trial.kinds = ["good", "good", "poison", "good"]
    trial.publish()
    trial.run(actors.relay)
    for _ in range(1 + trial.dice.randrange(8)):
        trial.run(actors.listen)
    trial.world.note_snapshot()


def _stop(trial: Trial) -> None:
    trial.publish()
    trial.run(actors.relay)
    trial.cut_short(actors.listen_and_stop, "listener")


def _stop_in_outage(trial: Trial) -> None:
    """Asked to stop while what failed cannot be written down."""
    trial.kinds = ["good", "bad", "again", "good"]
    trial.publish()
    trial.run(actors.relay)
    trial.world.history.note("cut", who="listener", at="held deliveries cannot be written")
    trial.run(actors.listen_and_give_up)
    trial.world.note_snapshot()


# ------------------------------------------------------------------ 17 to 20


def _clean_up(trial: Trial) -> None:
    """Half of it is settled, RETENTION is over for all of it, and everything that removes is at work."""
    trial.publish()
    trial.run(actors.listen)
    trial.publish()
    trial.run(lambda: actors.leave_unsent(["good"], "each"))
    trial.world.shorten_retention()
    trial.cut_short(actors.clean_up, "cleaner")
    trial.run(actors.clean_up)


def _replay(trial: Trial) -> None:
    trial.publish()
    trial.run(actors.relay)
    trial.run(actors.listen)
    until = datetime.now(UTC)
    trial.world.history.note("replay")
    trial.cut_short(lambda: actors.replay(until), "replay")
    trial.run(lambda: actors.replay(until))


def _frozen(trial: Trial) -> None:
    """A listener stands still, another takes its work over, then it goes on."""
    world = trial.world
    trial.publish()
    trial.run(actors.relay)
    frozen = world.fork(doomed(actors.listen, trial.draw(), world.history, "listener"))
    is_frozen = world.wait_until_stopped(frozen)
    other = world.fork(actors.listen)
    if is_frozen:
        world.wait_a_moment(other)  # it may have to wait for the frozen one's lock
        os.kill(frozen, signal.SIGCONT)
        world.wait(frozen)
    world.wait(other)


# ------------------------------------------------------------------ random instants

CALLS = {"publisher": 13_000, "relay": 38_000, "listener": 25_000}
"""About so many calls and returns an undisturbed one makes."""


def _at_random(trial: Trial) -> None:
    """Any call or return of anything in the publisher, the relay or the listener, each as likely as the other."""
    trial.kinds = [trial.dice.choice(["good", "good", "bad", "again"]) for _ in range(4)]
    who = trial.dice.choice(["publisher", "relay", "listener"])
    works: dict[str, Work] = {"relay": actors.relay, "listener": actors.listen}
    work = works.get(who, lambda: actors.publish(trial.kinds, "each"))
    if who == "relay":
        trial.run(lambda: actors.leave_unsent(trial.kinds, trial.shape))
    elif who == "listener":
        trial.publish()
    trial.draw = lambda: Cut(nth=trial.dice.randint(1, CALLS[who]))
    trial.cut_short(work, who)


def _server_killed(trial: Trial) -> None:
    """The server is killed and started again while everybody is at work."""
    world = trial.world
    _with_all_at_work(trial, "redis", lambda: (world.server.kill(), world.server.start()))


def _database_killed(trial: Trial) -> None:
    _with_all_at_work(trial, "database", trial.world.restart_database)


def _with_all_at_work(trial: Trial, who: str, harm: Callable[[], object]) -> None:
    world = trial.world
    trial.publish()
    works: list[Work] = [lambda: actors.publish(trial.kinds * 3, "each"), actors.relay, actors.finish]
    pids = [world.fork(lambda work=work: _tolerantly(work)) for work in works]
    time.sleep(trial.dice.uniform(0.0, 0.1))
    world.history.note("cut", who=who, at="kill -9")
    harm()
    world.wait(*pids)
    world.note_snapshot()


OUTBOX_WRITE = "redis_events.outbox.write"
FAILING = ("good", "bad", "again")
SCENARIOS = (
    Scenario(row="1", title="row written, before the outbox row", play=_publisher,
             places=[(OUTBOX_WRITE, "before")]),
    Scenario(row="2", title="both rows written, before COMMIT", play=_publisher,
             places=[(OUTBOX_WRITE, "after"), (COMMIT, "before")]),
    Scenario(row="3", title="COMMIT in flight", play=_publisher, hows=["soon"], places=[(COMMIT, "before")]),
    Scenario(row="4", title="committed, nobody woken", play=_publisher,
             places=[(COMMIT, "after"), ("redis_events.posting.Poster.send", "before")]),
    Scenario(row="4", title="committed after a younger one was sent", play=_slow_transaction, only="postgresql"),
    Scenario(row="5", title="claimed, before XADD", play=_sender,
             places=[("redis_events.outbox._claim", "after"), (EXCHANGE, "before")]),
    Scenario(row="6", title="XADD done, reply lost", play=_sender, hows=["soon", "kill"],
             places=[(EXCHANGE, "after"), ("redis_events.transports.client.Wire.write", "after")]),
    Scenario(row="6", title="XADD done, connection lost", play=_lost_reply_to_sender),
    Scenario(row="7", title="reply seen, mark lost", play=_sender,
             places=[("redis_events.outbox._mark", "before"), ("redis_events.outbox._mark", "after")]),
    Scenario(row="8", title="Redis loses what it acknowledged", play=_lost_by_redis),
    Scenario(row="9", title="XREADGROUP done, reply lost with its reader", play=_listener,
             places=[("redis_events.transports.roads.Road.ask", "after"),
                     ("redis_events.transports.roads.Road.collect", "before")], most=2, hows=["kill", "soon"]),
    Scenario(row="9", title="XREADGROUP done, connection lost", play=_lost_reply_to_listener),
    Scenario(row="10", title="decoded", play=_listener, most=1,
             places=[("redis_events.listening.Listener._match", "after"), ("redis_events.inbox.insert", "before")]),
    Scenario(row="11", title="receiver half-way", play=_listener, kinds=FAILING, most=12,
             places=[(EFFECT, "before"), (EFFECT, "after"), ("redis_events.inbox.insert", "after")]),
    Scenario(row="12", title="committed, not settled", play=_listener, most=1,
             places=[("redis_events.listening.Listener._run", "after"), (SETTLE, "before"), (SETTLE, "after")]),
    Scenario(row="12", title="the same with another source's ids", play=_twins, most=1,
             places=[("redis_events.listening.Listener._run", "after"), (SETTLE, "before")]),
    Scenario(row="13", title="held row being written", play=_listener, kinds=FAILING[1:], most=1,
             places=[("redis_events.held.hold", "before"), ("redis_events.held._insert", "after")]),
    Scenario(row="14", title="held row written, not settled; its retry", play=_listener, kinds=FAILING[1:], most=2,
             places=[("redis_events.held.hold", "after"), ("redis_events.held.claim", "after"),
                     ("redis_events.held.finish", "before"), ("redis_events.held.finish", "after")]),
    Scenario(row="15", title="receiver 2 of 3 crashed", play=_listener, kinds=["good", "again"], most=12,
             places=[("tests.chaos.shop.receivers.act", "before"), ("tests.chaos.shop.receivers.act", "after")]),
    Scenario(row="15", title="poison", play=_poison),
    Scenario(row="16", title="SIGTERM, then SIGKILL", play=_stop, most=2, hows=["kill", "soon"],
             places=[("redis_events.process.Process._stop", "before"), (COMMIT, "before"), (SETTLE, "before"),
                     ("redis_events.transports.stream.StreamTransport._leave", "before")]),
    Scenario(row="16", title="stopped in an outage of the database", play=_stop_in_outage),
    Scenario(row="17", title="while trimming or cleaning up", play=_clean_up, most=2, hows=["kill", "soon"],
             places=[("redis_events.transports.client.Wire.call", "before"),
                     ("redis_events.transports.client.Wire.call", "after"),
                     ("redis_events.outbox.delete_some", "before"), ("redis_events.outbox.delete_some", "after")]),
    Scenario(row="18", title="replay stopped", play=_replay, most=2,
             places=[("redis_events.replaying.Replay._write", "before"),
                     ("redis_events.replaying.Replay._write", "after"),
                     ("redis_events.replaying.Replay._note", "after")]),
    Scenario(row="19", title="database gone during the receiver's COMMIT", play=_listener, hows=["raise"],
             places=[(COMMIT, "before"), (COMMIT, "after")]),
    Scenario(row="19", title="session ended during the receiver's COMMIT", play=_listener, hows=["terminate"],
             places=[(COMMIT, "before"), (EFFECT, "before")], only="postgresql"),
    Scenario(row="20", title="listener frozen, its work taken over, thawed", play=_frozen, hows=["freeze"], most=6,
             places=[("redis_events.inbox._statement", "before"), (EFFECT, "before"), (EFFECT, "after"),
                     (COMMIT, "after"), (SETTLE, "before"), (SETTLE, "after")]),
    Scenario(row="random", title="any call or return in any process", play=_at_random),
    Scenario(row="servers", title="Valkey killed while all are at work", play=_server_killed),
    Scenario(row="servers", title="PostgreSQL killed while all are at work", play=_database_killed, only="postgresql"),
)  # fmt: skip
