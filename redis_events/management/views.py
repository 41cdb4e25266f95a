"""What ``inspect_events`` can show: for each subject what is read, and its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from .. import inspection
from ..conf import glob
from ..inspection import Server
from ..models import HeldDelivery
from .tables import duration, milliseconds, moment, table, written

Row = Mapping[str, Any]
Asked = Mapping[str, Any]
"""The options of the command."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look found, and what there is to say about the look."""

    rows: Sequence[Row]
    note: str = ""
    is_whole: bool = True
    """Whether no rows mean that there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One subject. ``columns`` are heads with the name of a value, or with what makes one of a row."""

    read: Callable[[Asked, Server], Found]
    columns: Sequence[tuple[Any, str | Callable[[Row], object]]]
    empty: Any
    needs_server: bool = True


def shown(view: View, found: Found, *, limit: int) -> str:
    """The table, how much of it was left out, and what there is to say."""
    rows = found.rows
    if not rows:
        return "\n".join(filter(None, [str(view.empty) if found.is_whole else "", found.note]))
    lines = [[_value(row, what) for _head, what in view.columns] for row in rows[:limit]]
    rest = _("… and more (--limit)") if len(rows) > limit else ""
    return "\n".join(filter(None, [table([head for head, _what in view.columns], lines), rest, found.note]))


def _value(row: Row, what: str | Callable[[Row], object]) -> object:
    return row[what] if isinstance(what, str) else what(row)


def facts(value: Any) -> Row:
    """A dataclass by the names of its fields."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def matches(asked: Asked, channel: str) -> bool:
    """Whether ``--channel`` means this one."""
    return not asked["channel"] or asked["channel"] == channel or glob(asked["channel"], channel)


# ------------------------------------------------------------------ reading


def _channels(asked: Asked, server: Server) -> Found:
    return Found([facts(each) for each in inspection.channels(server=server) if matches(asked, each.name)])


def _groups(asked: Asked, server: Server) -> Found:
    rows = [facts(each) for each in chosen_groups(asked, server)]
    unseen = unseen_channels(asked, server)
    return Found(rows, note="\n".join(unseen), is_whole=not unseen)


def chosen_groups(asked: Asked, server: Server) -> list[inspection.GroupFacts]:
    """The consumer groups that ``--channel`` and ``--group`` mean."""
    found = inspection.groups(server=server)
    return [each for each in found if matches(asked, each.channel) and asked["group"] in (None, each.name)]


def unseen_channels(asked: Asked, server: Server) -> list[str]:
    """The channels ``--channel`` means whose groups nobody can see, each with what the server answered.

    What a missing right keeps from us is told of once, not of every channel.
    """
    told, found = set(server.refusals.values()), inspection.unreadable(server)
    return [f"{name}: {why}" for name, why in found.items() if matches(asked, name) and why not in told]


def _consumers(asked: Asked, server: Server) -> Found:
    rows = (
        {"channel": group.channel, "group": group.name, **facts(each)}
        for group in chosen_groups(asked, server)
        for each in inspection.consumers(group.channel, group.name, server=server)
    )
    return Found(list(rows))


def _receivers(asked: Asked, server: Server) -> Found:
    found = inspection.receivers(server=server)
    wanted = (each for each in found if matches(asked, each.channel) and asked["group"] in (None, each.group))
    return Found([facts(each) for each in wanted])


def _listeners(asked: Asked, server: Server) -> Found:
    return Found([facts(each) for each in inspection.listeners(server=server)])


def _services(asked: Asked, server: Server) -> Found:
    return Found([facts(each) for each in inspection.services(server=server)])


def _pending(asked: Asked, server: Server) -> Found:
    rows = (
        {"channel": group.channel, "group": group.name, **facts(each)}
        for group in chosen_groups(asked, server)
        if group.pending != 0
        for each in inspection.pending(group.channel, group.name, limit=asked["limit"] + 1, server=server)
    )
    return Found(list(rows))


def _events(asked: Asked, server: Server) -> Found:
    names = {"find": "text", **{name: name for name in ("type", "key", "id", "since", "until")}}
    wanted = {name: asked[option] for option, name in names.items() if asked[option]}
    page = inspection.events(asked["channel"] or "*", limit=asked["limit"], server=server, **wanted)
    return Found([event_row(each) for each in page.events], note=_how_far(page))


def _how_far(page: inspection.EventPage) -> str:
    """A search is bounded: whoever finds nothing has to know how far it went."""
    if not (page.next and page.back_to):
        return ""
    numbers = {"count": f"{page.scanned:,}", "time": moment(page.back_to), "until": page.back_to.isoformat()}
    return _("%(count)s entries looked at, back to %(time)s; --until %(until)s goes on") % numbers


def event_row(event: inspection.EventFacts) -> Row:
    """Without its bytes, unless they are all that can be said."""
    return {name: value for name, value in facts(event).items() if name != "raw" or event.problem}


def _dead(asked: Asked, server: Server) -> Found:
    """By what went wrong."""
    found = inspection.errors(receiver=asked["receiver"] or "", limit=asked["limit"] + 1)
    return Found([facts(each) for each in found])


def _letters(asked: Asked, server: Server) -> Found:
    """Each dead letter of one error."""
    wanted = {name: asked[name] or "" for name in ("fingerprint", "receiver")}
    return Found(list(map(_letter, inspection.held_deliveries(state="dead", limit=asked["limit"] + 1, **wanted))))


def _letter(row: HeldDelivery) -> Row:
    names = ("event_id", "channel", "type", "key", "source", "group", "receiver", "attempt", "exception", "reason")
    letter = {name: getattr(row, name) for name in names}
    return {"id": row.pk, **letter, "created_at": row.created_at, "updated_at": row.updated_at}


def _outbox(asked: Asked, server: Server) -> Found:
    return Found([facts(each) for each in inspection.outboxes()])


# ------------------------------------------------------------------ showing


def _alive(row: Row) -> str | None:
    return None if row["consumers"] is None else f"{row['consumers_alive']}/{row['consumers']}"


def _lasting(name: str) -> Callable[[Row], object]:
    return lambda row: duration(row[name])


def _in_ms(name: str) -> Callable[[Row], object]:
    return lambda row: milliseconds(row[name])


def _paused(row: Row) -> object:
    return row["paused_by"] if row["paused_at"] else False


def _unsent(row: Row) -> object:
    return f"{row['unsent']:,}+" if row["is_more"] else row["unsent"]


def _mebibytes(row: Row) -> object:
    return None if row["memory"] is None else f"{row['memory'] / 2**20:,.1f} MiB"


def _said(row: Row) -> object:
    return row["problem"] or written(row["data"])


def _count(row: Row) -> int:
    return len(row["receivers"])


VIEWS = {
    "channels": View(
        read=_channels,
        columns=(
            (lazy("channel"), "name"),
            (lazy("transport"), "transport"),
            (lazy("length"), "length"),
            (lazy("a minute"), "rate"),
            (lazy("groups"), "groups"),
            (lazy("lag"), "lag"),
            (lazy("last event"), "last_event"),
            (lazy("kept for"), _lasting("retention")),
            (lazy("announced by"), "announced_by"),
            (lazy("problem"), lambda row: row["problem"] or ""),
        ),
        empty=lazy("No channel: nobody has announced, declared or received one."),
    ),
    "groups": View(
        read=_groups,
        columns=(
            (lazy("channel"), "channel"),
            (lazy("group"), "name"),
            (lazy("lag"), "lag"),
            (lazy("pending"), "pending"),
            (lazy("behind since"), lambda row: row["behind_since"] if row["is_behind"] is not False else ""),
            (lazy("longest idle"), lambda row: duration(row["oldest_idle"]) if row["pending"] != 0 else ""),
            (lazy("alive"), _alive),
            (lazy("a minute"), "rate"),
            (lazy("caught up in"), _lasting("eta")),
            (lazy("served"), "is_served"),
        ),
        empty=lazy("No consumer group: `manage.py listen_events` makes one for each stream it receives."),
    ),
    "consumers": View(
        read=_consumers,
        columns=(
            (lazy("channel"), "channel"),
            (lazy("group"), "group"),
            (lazy("consumer"), "name"),
            (lazy("pending"), "pending"),
            (lazy("idle"), _lasting("idle")),
            (lazy("alive"), "is_alive"),
        ),
        empty=lazy("No consumer."),
    ),
    "receivers": View(
        read=_receivers,
        columns=(
            (lazy("receiver"), "name"),
            (lazy("service"), "service"),
            (lazy("channel"), "channel"),
            (lazy("types"), lambda row: "*" if row["types"] is None else row["types"]),
            (lazy("here"), "is_here"),
            (lazy("listeners"), "listeners"),
            (lazy("done"), "done"),
            (lazy("retried"), "retried"),
            (lazy("dead"), "dead"),
            (lazy("waiting"), "waiting"),
            (lazy("parked"), "parked"),
            (lazy("half within"), _in_ms("p50")),
            (lazy("95 % within"), _in_ms("p95")),
            (lazy("last run"), "last_run"),
            (lazy("paused by"), _paused),
        ),
        empty=lazy("No receiver: a function with @receives in an installed app's receivers.py is one."),
    ),
    "listeners": View(
        read=_listeners,
        columns=(
            (lazy("listener"), "id"),
            (lazy("service"), "service"),
            (lazy("alive"), "is_alive"),
            (lazy("version"), "version"),
            (lazy("started"), "started"),
            (lazy("last beat"), "last_beat"),
            (lazy("receivers"), _count),
            (lazy("in flight"), "in_flight"),
            (lazy("memory"), _mebibytes),
            (lazy("stopping"), "is_stopping"),
        ),
        empty=lazy("No listener within the hour: `manage.py listen_events` starts one."),
    ),
    "pending": View(
        read=_pending,
        columns=(
            (lazy("channel"), "channel"),
            (lazy("group"), "group"),
            (lazy("entry"), "entry_id"),
            (lazy("consumer"), "consumer"),
            (lazy("alive"), "is_alive"),
            (lazy("idle"), _lasting("idle")),
            (lazy("deliveries"), "deliveries"),
            (lazy("published"), "published"),
        ),
        empty=lazy("Nothing is pending."),
    ),
    "events": View(
        read=_events,
        columns=(
            (lazy("time"), "moment"),
            (lazy("channel"), "channel"),
            (lazy("entry"), "entry_id"),
            (lazy("type"), "type"),
            (lazy("key"), "key"),
            (lazy("id"), "id"),
            (lazy("data"), _said),
        ),
        empty=lazy("No event found in a stream; pub/sub keeps none."),
    ),
    "dead": View(
        read=_dead,
        columns=(
            (lazy("fingerprint"), "fingerprint"),
            (lazy("count"), "count"),
            (lazy("receiver"), "receiver"),
            (lazy("exception"), "exception"),
            (lazy("first"), "first"),
            (lazy("last"), "last"),
            (lazy("latest reason"), "reason"),
        ),
        empty=lazy("No dead letter."),
        needs_server=False,
    ),
    "letters": View(
        read=_letters,
        columns=(
            (lazy("id"), "id"),
            (lazy("event"), "event_id"),
            (lazy("type"), "type"),
            (lazy("key"), "key"),
            (lazy("receiver"), "receiver"),
            (lazy("attempts"), "attempt"),
            (lazy("last run"), "updated_at"),
            (lazy("reason"), "reason"),
        ),
        empty=lazy("No dead letter."),
        needs_server=False,
    ),
    "outbox": View(
        read=_outbox,
        columns=(
            (lazy("database"), "using"),
            (lazy("unsent"), _unsent),
            (lazy("oldest"), lambda row: row["oldest"] if row["oldest"] or row["unsent"] is None else ""),
            (lazy("problem"), "problem"),
        ),
        empty=lazy("No database has an outbox."),
        needs_server=False,
    ),
    "services": View(
        read=_services,
        columns=(
            (lazy("service"), "name"),
            (lazy("listeners"), "listeners"),
            (lazy("channels"), "channels"),
        ),
        empty=lazy("No service has announced anything."),
    ),
}
