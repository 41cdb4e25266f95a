"""How much is going on: what listeners counted, by minute and by receiver."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .facts import Minute
from .server import Server, at


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    done: int | None = None
    retried: int | None = None
    dead: int | None = None
    p50: float | None = None
    p95: float | None = None
    last: datetime | None = None


class Rates:
    def published(self, channel: str) -> float | None:
        return None

    def settled(self, channel: str, group: str) -> float | None:
        return None

    def runs(self, service: str, receiver: str) -> Runs:
        return Runs()


def rates(server: Server) -> Rates:
    return Rates()


def throughput(minutes: int = 60, *, server: Server | None = None) -> list[Minute]:
    with at(server):
        return []
