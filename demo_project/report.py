"""What became of every event, counted by its id in the databases the services leave behind."""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Where a service writes down the events it got, and which it has to get."""

    tables: tuple[str, ...]
    types: tuple[str, ...]
    tells: dict[str, str]
    """Rows of which each must have been published: type to the rows, as SQL."""


SERVICES = {
    "shop": Books(
        tables=("shop_reaction",),
        types=("billing.invoice.created", "notifications.toast.shown"),
        tells={
            "shop.order.created": "shop_order",
            "shop.order.updated": "shop_order WHERE status = 'invoiced'",
        },
    ),
    "billing": Books(
        tables=("billing_invoice",),
        types=("shop.order.created",),
        tells={"billing.invoice.created": "billing_invoice"},
    ),
    "notifications": Books(
        tables=("notifications_toast", "notifications_push"),
        types=("shop.order.*", "billing.invoice.created", "notifications.toast.shown"),
        tells={"notifications.toast.shown": "notifications_toast"},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One service's line. ``lost`` are events it had to get and did not, and rows of its own that no event told of."""

    published: int
    received: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    orders: int
    doubled: int
    """Orders with more than one invoice."""
    services: dict[str, Tally]

    @property
    def lost(self) -> int:
        return sum(tally.lost for tally in self.services.values())

    def as_dict(self) -> dict[str, object]:
        services = {
            name: {"published": tally.published, "received": tally.received, "lost": tally.lost}
            for name, tally in self.services.items()
        }
        return {"orders": self.orders, "lost": self.lost, "doubled": self.doubled, "services": services}

    def as_table(self) -> str:
        lines = [f"{'SERVICE':<15}{'PUBLISHED':>9}{'RECEIVED':>10}{'LOST':>6}"]
        lines += [
            f"{name:<15}{tally.published:>9,}{tally.received:>10,}{tally.lost:>6,}"
            for name, tally in self.services.items()
        ]
        lines.append(f"Orders invoiced more than once: {self.doubled}")
        return "\n".join(lines)


def make_report(folder: Path) -> Report:
    """Read the services' files in ``folder``, changing nothing. Raises sqlite3.Error for a file that is none."""
    published = {name: _published(folder, name) for name in SERVICES}
    everything = {event: type for events in published.values() for event, type in events.items()}
    tallies = {}
    for name, books in SERVICES.items():
        received = _received(folder, name)
        wanted = {event for event, type in everything.items() if _is_one_of(type, books.types)}
        lost = len(wanted - received) + _untold(folder, name, published[name].values())
        tallies[name] = Tally(published=len(published[name]), received=len(received), lost=lost)
    return Report(orders=count_orders(folder), doubled=_doubled(folder), services=tallies)


def count_orders(folder: Path) -> int:
    """Orders placed so far."""
    count: int = _rows(folder, "shop", "SELECT count(*) FROM shop_order")[0][0]
    return count


def _doubled(folder: Path) -> int:
    """Orders that were invoiced more than once."""
    return len(_rows(folder, "billing", "SELECT order_id FROM billing_invoice GROUP BY order_id HAVING count(*) > 1"))


def _published(folder: Path, service: str) -> dict[str, str]:
    written = "SELECT event_id, type FROM redis_events_outboxevent UNION "
    return dict(_rows(folder, service, f"{written} SELECT event_id, type FROM demo_project_publishedevent"))


def _received(folder: Path, service: str) -> set[str]:
    tables = SERVICES[service].tables
    return {row[0] for table in tables for row in _rows(folder, service, f"SELECT event_id FROM {table}")}


def _untold(folder: Path, service: str, published: Iterable[str]) -> int:
    told = Counter(published)
    made = {
        type: _rows(folder, service, f"SELECT count(*) FROM {rows}")[0][0]
        for type, rows in SERVICES[service].tells.items()
    }
    return sum(max(0, count - told[type]) for type, count in made.items())


def _is_one_of(type: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(type, pattern) for pattern in patterns)


def _rows(folder: Path, service: str, query: str) -> list[tuple]:
    place = (folder / f"{service}.sqlite3").as_uri()
    with closing(sqlite3.connect(f"{place}?mode=ro", uri=True, timeout=20)) as connection:
        return connection.execute(query).fetchall()
