"""Who takes part: services, their listeners, their receivers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from ..announcements import is_stream
from ..conf import conf
from ..heartbeat import Announced, Card
from ..held import State
from ..pauses import Pause
from ..registry import Receiver, all_receivers
from ..retry import Retry, default_retry
from . import rows
from .facts import ListenerFacts, ReceiverFacts, ServiceFacts
from .rates import Runs, rates
from .scene import Scene, noted, scene
from .server import Server, at


def services(*, server: Server | None = None) -> list[ServiceFacts]:
    """The services that announced something or have a listener, and this one."""
    with at(server) as asked:
        here = scene(asked)
    names = {each.service for each in here.announced} | {card.service for card in here.cards} | {conf.SERVICE}
    return [_service(name, here) for name in sorted(filter(None, names))]


def _service(name: str, here: Scene) -> ServiceFacts:
    return ServiceFacts(
        name=name,
        channels=tuple(sorted({each.channel for each in here.announced if each.service == name})),
        listeners=sum(card.service == name for card in here.cards) if here.is_known else None,
    )


def listeners(*, server: Server | None = None) -> list[ListenerFacts]:
    """The listeners of every service that were heard of within the hour; those that are alive first."""
    with at(server) as asked:
        here = scene(asked)
    cards = {card.id: card for card in here.cards}
    facts = [_listener(id, beat, cards.get(id), here) for id, beat in here.beats.items()]
    return sorted(facts, key=lambda each: (not each.is_alive, each.service or "", each.id))


def _listener(id: str, beat: datetime, card: Card | None, here: Scene) -> ListenerFacts:
    if card is None:
        host, pid, *_ = [*id.split(":"), "", ""]
        return ListenerFacts(
            id=id, is_alive=False, last_beat=beat, host=host, pid=int(pid) if pid.isdecimal() else None
        )
    return ListenerFacts(
        id=id,
        is_alive=True,
        last_beat=beat,
        service=card.service,
        host=card.host,
        pid=card.pid,
        version=card.version,
        started=noted(card.started),
        channels=tuple(sorted({each.channel for each in card.receivers})),
        receivers=tuple(each.name for each in card.receivers),
        in_flight=card.in_flight,
        memory=card.memory,
        is_stopping=id in here.stopping,
    )


# ------------------------------------------------------------------ receivers


def receivers(*, server: Server | None = None) -> list[ReceiverFacts]:
    """The receivers of this code and of every listener that is alive, with the last 24 hours of their runs."""
    with at(server) as asked:
        here, known, kept = scene(asked), rates(asked), rows.kept(server=asked)
    own = {(conf.SERVICE, each.name): each for each in all_receivers()}
    theirs = {(card.service, each.name): each for card in here.cards for each in card.receivers}
    alive = _alive(here.cards)
    identities = sorted(own.keys() | theirs.keys())
    found = [
        _receiver(
            identity, own.get(identity), theirs.get(identity), alive.get(identity, 0), here, known.runs(*identity)
        )
        for identity in identities
    ]
    return [_with_kept(each, kept) if kept and each.service == conf.SERVICE else each for each in found]


def _with_kept(receiver: ReceiverFacts, kept: Mapping[str, Counter[str]]) -> ReceiverFacts:
    waiting, parked = (kept[state][receiver.name] for state in (State.WAITING, State.PARKED))
    return replace(receiver, waiting=waiting, parked=parked)


def _alive(cards: Iterable[Card]) -> dict[tuple[str, str], int]:
    """How many listeners have each receiver."""
    counts: dict[tuple[str, str], int] = {}
    for card in cards:
        for name in {each.name for each in card.receivers}:
            counts[card.service, name] = counts.get((card.service, name), 0) + 1
    return counts


def _receiver(
    identity: tuple[str, str],
    own: Receiver | None,
    announced: Announced | None,
    alive: int,
    here: Scene,
    runs: Runs,
) -> ReceiverFacts:
    service, name = identity
    known = own or announced
    assert known
    return ReceiverFacts(
        name=name,
        service=service,
        channel=known.channel,
        types=known.types,
        group=f"{service}:{known.group}" if known.group else service,
        is_here=own is not None,
        listeners=alive if here.is_known else None,
        done=runs.done,
        retried=runs.retried,
        dead=runs.dead,
        p50=runs.p50,
        p95=runs.p95,
        last_run=runs.last,
        **(_declared(own, here) if own else {}),
        **_pause(here.paused.get(identity)),
    )


def _declared(receiver: Receiver, here: Scene) -> dict[str, Any]:
    """What only the code says."""
    is_durable = is_stream(receiver.channel, here.announced)
    policy = receiver.retry or (default_retry() if is_durable else None)
    return {
        "place": receiver.place,
        "once": receiver.once,
        "is_async": receiver.is_async,
        "retry": _policy(policy) if policy else None,
    }


def _policy(retry: Retry) -> str:
    if retry.attempts == 1:
        return _("1 run, no retry")
    told = {"runs": retry.attempts, "least": f"{retry.delay:g}", "most": f"{retry.max_delay:g}"}
    return _("%(runs)s runs, at most %(least)s–%(most)s s apart") % told


def _pause(pause: Pause | None) -> dict[str, Any]:
    if pause is None:
        return {}
    return {"paused_by": pause.by, "paused_at": noted(pause.at)}
