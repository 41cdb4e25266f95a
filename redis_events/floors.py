"""The floor of each channel and group: the entry id up to which all is settled, in the service's own database.

With it a group that was destroyed is made again where it was, instead of at 0 (everything twice) or ``$`` (a gap).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from django.db import Error, close_old_connections, connections, router

from .events import now
from .models import ChannelState

Id = tuple[int, int]
ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def is_entry_id(text: str) -> bool:
    """Whether a server takes this for an entry id: two numbers of 64 bits."""
    return bool(ENTRY_ID.fullmatch(text)) and max(parse(text)) < 2**64


def parse(entry_id: str) -> Id:
    """``"1700000000000-5"`` as (milliseconds, sequence)."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def before(entry_id: str) -> str:
    """The greatest id below another one."""
    milliseconds, sequence = parse(entry_id)
    return f"{milliseconds}-{sequence - 1}" if sequence else f"{max(0, milliseconds - 1)}-{2**64 - 1}"


def after(entry_id: str) -> str:
    """The least id above another one."""
    milliseconds, sequence = parse(entry_id)
    return f"{milliseconds}-{sequence + 1}" if sequence < 2**64 - 1 else f"{milliseconds + 1}-0"


def save(floors: Mapping[tuple[str, str], str], *, using: str | None = None) -> bool:
    """Write floors down; whether it was done. A database that is away loses nothing but precision."""
    rows = [
        ChannelState(channel=channel, group=group, floor=floor, updated_at=now())
        for (channel, group), floor in floors.items()
    ]
    alias = using or router.db_for_write(ChannelState)
    names_target = connections[alias].features.supports_update_conflicts_with_target  # not so on MySQL
    try:
        ChannelState.objects.using(alias).bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["channel", "group"] if names_target else None,
            update_fields=["floor", "updated_at"],
        )
    except Error:
        close_old_connections()
        return False
    return True


def start(channel: str, group: str, *, last_id: str | None) -> str:
    """Where a missing group begins: at its floor when the stream is still the one it was, else at 0.

    Raises django.db.Error while the database is away.
    """
    if last_id is None:
        return "0"
    alias = router.db_for_read(ChannelState)
    state = ChannelState.objects.using(alias).filter(channel=channel, group=group).first()
    if state is None or parse(state.floor) > parse(last_id):
        return "0"
    return state.floor
