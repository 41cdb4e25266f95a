"""What our Redis user may do: asked of the server before anything fails for want of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .. import announcements, heartbeat, pauses, tally
from ..announcements import Announcement
from ..conf import conf
from ..registry import all_receivers
from ..routing import transport_name
from ..transports.client import Command, ErrorReply
from .server import Server

GROUP = "check"
SCRIPT = "return 0"
HARMLESS = ("XINFO", "XPENDING", "XRANGE", "XLEN", "HGETALL", "GET", "EXISTS", "ZRANGE", "INFO", "TIME")
MOST_CHANNELS = 50
"""Channels asked about: the rules of a project that has more will treat them alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What may not be done. ``is_whole`` is False where the server was only asked what is harmless to ask."""

    user: str
    denied: tuple[str, ...]
    """Commands this project needs."""
    blind: tuple[str, ...]
    """Commands that only looking needs."""
    is_whole: bool


def rights(server: Server, announced: Sequence[Announcement]) -> Rights | None:
    """Every command this project uses, on its own names; None where the server could not be asked."""
    who = server.try_all(("ACL", "WHOAMI"))[0]
    if server.trouble:
        return None
    user = who.decode(errors="replace") if isinstance(who, bytes) else urlsplit(conf.LOCATION).username or "default"
    needed, looks = list(dict.fromkeys(needed_by_us(announced))), list(needed_to_look())
    answers = server.try_all(*(("ACL", "DRYRUN", user, *command) for command in [*needed, *looks]))
    if any(isinstance(answer, bytes) for answer in answers):
        return _rights(user, needed, looks, answers, is_whole=True)
    return _by_trying(server, user, needed, looks)


def _rights(
    user: str, needed: Sequence[Command], looks: Sequence[Command], answers: Sequence[Any], *, is_whole: bool
) -> Rights:
    said = zip([*needed, *looks], answers, strict=True)
    denied = [shown(command) for command, answer in said if _is_denial(answer)]
    blind = {shown(command) for command in looks}
    return Rights(
        user=user,
        denied=tuple(each for each in dict.fromkeys(denied) if each not in blind),
        blind=tuple(each for each in dict.fromkeys(denied) if each in blind),
        is_whole=is_whole,
    )


def _is_denial(answer: Any) -> bool:
    """ACL DRYRUN says it in a plain answer, a command that is tried in an error."""
    if isinstance(answer, ErrorReply):
        return answer.code == "NOPERM"
    return isinstance(answer, bytes) and b"no permissions" in answer


def _by_trying(server: Server, user: str, needed: list[Command], looks: list[Command]) -> Rights | None:
    """Before Redis 7, or without the right to ask: the reads among them change nothing."""
    needed, looks = _harmless(needed), _harmless(looks)
    answers = server.try_all(*needed, *looks)
    return None if server.trouble else _rights(user, needed, looks, answers, is_whole=False)


def _harmless(commands: list[Command]) -> list[Command]:
    return [command for command in commands if command[0] in HARMLESS]


def shown(command: Command) -> str:
    """``XINFO GROUPS shop.orders``: the command and what it is about, as a person can grant it."""
    name, *arguments = command
    if name in ("XINFO", "XGROUP"):
        return " ".join(map(str, (name, *arguments[:2])))
    if name == "EVAL":
        return f"EVAL {arguments[2]}"
    if name == "XREADGROUP" or name == "XREAD":
        return f"{name} {arguments[arguments.index('STREAMS') + 1]}"
    return " ".join(map(str, (name, *arguments[:1])))


# ------------------------------------------------------------------ what is used


def needed_by_us(announced: Sequence[Announcement]) -> Iterator[Command]:
    """What publishing to its own channels and running its own receivers takes."""
    yield from _published()
    receivers = all_receivers()
    for channel in sorted({each.channel for each in receivers})[:MOST_CHANNELS]:
        yield from _received(channel, announced)
    if receivers:
        yield from _heartbeat()


def _published() -> Iterator[Command]:
    own = conf.CHANNELS
    if own:
        yield from _announcements()
    for entry in list(own.values())[:MOST_CHANNELS]:
        name = conf.redis_name(entry.name.replace("*", "check"))
        yield ("XADD", name, "*", "event", "{}") if entry.TRANSPORT == announcements.STREAM else ("PUBLISH", name, "")
        if entry.OUTBOX:
            yield from _relayed(name)


def _announcements() -> Iterator[Command]:
    key = announcements.key()
    yield from (("HGETALL", key), ("HSET", key, "field", ""), ("HDEL", key, "field"))


def _relayed(name: str) -> Iterator[Command]:
    yield from _looked_at(name)
    yield from _kept(name)
    yield ("XSETID", name, "1-1")
    yield from (("PUBLISH", conf.wake_channel, ""), ("SUBSCRIBE", conf.wake_channel))


def _received(channel: str, announced: Sequence[Announcement]) -> Iterator[Command]:
    name = conf.redis_name(channel)
    if transport_name(channel, announced) == announcements.STREAM:
        yield from _read(name.replace("*", "check"))
        return
    yield ("PSUBSCRIBE", name) if "*" in channel else ("SUBSCRIBE", name)


def _read(name: str) -> Iterator[Command]:
    yield ("XREADGROUP", "GROUP", GROUP, GROUP, "STREAMS", name, ">")
    yield from (("XACK", name, GROUP, "1-1"), ("XCLAIM", name, GROUP, GROUP, 0, "1-1"))
    yield from _looked_at(name)
    yield from _kept(name)


def _looked_at(name: str) -> Iterator[Command]:
    yield from (("XINFO", "STREAM", name), ("XINFO", "GROUPS", name), ("XINFO", "CONSUMERS", name, GROUP))
    yield from (("XPENDING", name, GROUP), ("XRANGE", name, "-", "+", "COUNT", 1), ("XLEN", name))


def _kept(name: str) -> Iterator[Command]:
    """Scripts run their commands with our rights, so those are named too."""
    yield from (("XGROUP", "CREATE", name, GROUP, "0"), ("XGROUP", "SETID", name, GROUP, "0"))
    yield from (("XGROUP", "DELCONSUMER", name, GROUP, GROUP), ("XTRIM", name, "MINID", "0"))
    yield ("EVAL", SCRIPT, 1, name)


def _heartbeat() -> Iterator[Command]:
    yield from _announcements()
    key, index = heartbeat.key(GROUP), heartbeat.index()
    yield from (("SET", key, "", "EX", 1), ("GET", key), ("EXISTS", key), ("EXPIRE", key, 1), ("DEL", key))
    yield from (("ZADD", index, 1, GROUP), ("ZRANGE", index, 0, -1), ("ZREM", index, GROUP))
    yield ("ZREMRANGEBYSCORE", index, "-inf", 0)
    yield pauses.asked()  # whoever may not know runs what an operator has stopped


def needed_to_look() -> Iterator[Command]:
    """What only says how it is, and what people ask of listeners: events travel without."""
    yield from (("INFO",), ("TIME",))
    if all_receivers():
        statistics = conf.redis_name(f"{tally.HOURS}0")
        yield from (("HINCRBY", statistics, "field", 1), ("EXPIRE", statistics, 1))
        yield heartbeat.asked_to_stop(GROUP)
        yield pauses.say_again(GROUP, pauses.Pause(), service=GROUP)
