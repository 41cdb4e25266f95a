"""Running one receiver for one event, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic

from . import deadlines, held
from .codec import Document
from .conf import conf
from .deadlines import Timed
from .events import current_event, new_id
from .exceptions import NotHere, ProcessDied, ReceiverPaused, RedisEventsError, TransactionLeftOpen
from .registry import Receiver
from .retry import DEAD, DONE, Outcome, Verdict, default_retry, judge
from .transports.base import Delivery
from .wording import counted, one_line, where

logger = logging.getLogger("redis_events.listen")


class _Here(threading.local):
    connections: Sequence[BaseDatabaseWrapper] = ()


_here = _Here()


class Surrounding(Atomic):
    """The transaction around the runs of a `once` receiver: while they run, it is open on purpose."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """One receiver to be called for one event."""

    receiver: Receiver
    document: Document
    delivery: Delivery
    attempt: int = 1
    replayed: bool = False


class Result(msgspec.Struct, frozen=True, gc=False):
    """What became of a run. ``seconds`` is how long the receiver took; ``error`` what it raised, None when done.

    ``is_stranded`` says that the database of a `once` receiver was away: it has not run, or nothing of it stands.
    """

    run: Run
    verdict: Verdict
    error: BaseException | None
    seconds: float
    is_stranded: bool = False


def group_name(receiver: Receiver) -> str:
    """The consumer group of a receiver: the service's, or one of its own."""
    return f"{conf.SERVICE}:{receiver.group}" if receiver.group else conf.SERVICE


# ------------------------------------------------------------------ one run


def call_all(runs: Iterable[Run], *, durable: bool) -> list[Result]:
    """Run plain receivers, one after the other."""
    with event_restored():
        return [call(run, durable=durable) for run in runs]


@contextmanager
def event_restored() -> Iterator[None]:
    """Outside of its receiver an event is not the current one. Around many: after each run it would cost 0.13 µs."""
    before = current_event.get()
    try:
        yield
    finally:
        current_event.set(before)


def call(run: Run, *, durable: bool) -> Result:
    """Run one receiver and judge it, in ``event_restored``. The only place where a receiver's exceptions are caught."""
    began = time.perf_counter()
    receiver = run.receiver
    timed = _timed(run) if receiver.timeout else None
    try:
        event = run.document.read(receiver.data_type, run.attempt, run.replayed)
        current_event.set(event)
        returned = receiver.function(event)
        if returned is not None:
            _refuse_coroutine(returned)
        for connection in _here.connections or _connections():  # spelt out: after every run, nearly always in vain
            if connection.connection and (connection.in_atomic_block or not connection.autocommit):
                _refuse_open_transactions()
    except (Exception, SystemExit) as error:  # sys.exit() in a receiver, or in a command it calls, fails one run
        _roll_back_open_transactions()
        return judged(run, error, began, durable)
    finally:
        if timed:
            timed.end()
    return Result(run, DONE, None, time.perf_counter() - began)


def _refuse_coroutine(returned: object) -> None:
    """Raise TypeError for what a plain wrapper around an async function returns: nothing has run."""
    if asyncio.iscoroutine(returned):
        returned.close()
        raise TypeError("it returned a coroutine nobody awaits: decorate the async function itself with @receives")


def _refuse_open_transactions() -> None:
    """Raise TransactionLeftOpen: what comes after would be in that transaction too, and never be committed."""
    aliases = _roll_back_open_transactions()
    if aliases:
        raise TransactionLeftOpen(f"a transaction was left open on {', '.join(aliases)}; it was rolled back")


def _roll_back_open_transactions() -> list[str]:
    """Close this thread's connections on which the next statement would not be committed; their aliases."""
    left = [each for each in _connections() if each.connection and _is_left_open(each)]
    for connection in left:
        connection.in_atomic_block = False  # else Django waits for the block to be left, which will not happen
        connection.close()
    return [connection.alias for connection in left]


def _connections() -> Sequence[BaseDatabaseWrapper]:
    """This thread's, connected or not; kept, since asking Django costs 6 µs and this happens after every run."""
    if not _here.connections:
        _here.connections = connections.all()
    return _here.connections


def _is_left_open(connection: BaseDatabaseWrapper) -> bool:
    if connection.in_atomic_block:
        return not all(map(_is_meant, connection.atomic_blocks))
    return bool(connection.autocommit != connection.settings_dict["AUTOCOMMIT"])


def _is_meant(block: Atomic) -> bool:
    return isinstance(block, Surrounding) or getattr(block, "_from_testcase", False)


async def acall(run: Run, *, durable: bool) -> Result:
    """``call`` for an async receiver."""
    began = time.perf_counter()
    timed = _timed(run) if run.receiver.timeout else None
    try:
        event = run.document.read(run.receiver.data_type, run.attempt, run.replayed)
        current_event.set(event)  # its task has a context of its own
        await run.receiver.function(event)
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # nobody cancels a run but its own code
        return judged(run, error, began, durable)
    finally:
        if timed:
            timed.end()
    return Result(run, DONE, None, time.perf_counter() - began)


def _timed(run: Run) -> Timed:
    envelope = run.document.envelope
    what = one_line(f"{run.receiver.name} over {envelope.type or run.delivery.channel} {envelope.id}", limit=600)
    return deadlines.begin(what, run.receiver.timeout or 0.0)


def judged(run: Run, error: BaseException | None, began: float, durable: bool) -> Result:
    """The result of a run that began at ``began`` (``time.perf_counter``) and ended with ``error``."""
    verdict = judge(error, attempt=run.attempt, retry=run.receiver.retry, durable=durable)
    return Result(run, verdict, error, time.perf_counter() - began)


def stranded(run: Run, error: BaseException | None, durable: bool) -> Result:
    """The result of a run that its database, which is away, keeps from being one. Pub/sub goes by its verdict."""
    verdict = judge(error, attempt=run.attempt, retry=run.receiver.retry, durable=durable)
    return Result(run, verdict, error, 0.0, is_stranded=True)


class AsyncRunner:
    """Async receivers, on one event loop of their own: each in order, different ones side by side."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def call_all(self, runs: Sequence[Run], *, durable: bool) -> list[Result]:
        """Run a batch and wait for all of it."""
        by_receiver: dict[str, list[Run]] = {}
        for run in runs:
            by_receiver.setdefault(run.receiver.name, []).append(run)
        batches = asyncio.run_coroutine_threadsafe(_side_by_side(by_receiver.values(), durable), self._running_loop())
        return [result for results in batches.result() for result in results]

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(self._loop,), name="redis_events-async", daemon=True).start()
        return self._loop

    def close(self) -> None:
        """Stop the loop, if one was started."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _side_by_side(batches: Iterable[Sequence[Run]], durable: bool) -> list[list[Result]]:
    await sync_to_async(close_old_connections)()
    return await asyncio.gather(*(_in_order(batch, durable) for batch in batches))


async def _in_order(runs: Sequence[Run], durable: bool) -> list[Result]:
    return [await acall(run, durable=durable) for run in runs]


# ------------------------------------------------------------------ what is under way


def unfinished() -> list[Run]:
    """The runs that have begun and not ended, in any thread, read from the stacks.

    To note each where it begins would cost every run 0.1 µs, for what is asked once, by a process that ends.
    """
    frames = [frame for innermost in sys._current_frames().values() for frame in _outwards(innermost)]
    loops = [frame.f_locals["loop"] for frame in frames if frame.f_code is _serve.__code__]
    tasks = [task for loop in loops for task in asyncio.all_tasks(loop)]
    frames += [frame for task in tasks for frame in deadlines.awaited(task)]
    codes = (call.__code__, acall.__code__)
    runs = [frame.f_locals["run"] for frame in frames if frame.f_code in codes]
    return list({id(run): run for run in runs}.values())  # one that blocks its loop is seen from both sides


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame:
        yield frame
        frame = frame.f_back


def log_abandoned(runs: Iterable[Run]) -> None:
    """One line for each run that its process does not wait for."""
    for run in runs:
        envelope, channel = run.document.envelope, run.delivery.channel
        about = one_line(f"{envelope.type or channel} {envelope.id} → {run.receiver.name}", limit=600)
        facts: dict[str, Any] = {"outcome": "abandoned", "type": envelope.type, "id": envelope.id, "channel": channel}
        facts |= {"receiver": run.receiver.name, "attempt": run.attempt}
        text = "abandoned  %s  on %s, in run %s"
        logger.error(text, about, one_line(channel, limit=64), run.attempt, extra={"facts": facts})


# ------------------------------------------------------------------ what is kept and said of it


def failure(result: Result) -> held.Failure:
    """What there is to hold of a run that did not end well."""
    run, envelope = result.run, result.run.document.envelope
    assert result.error
    return held.Failure(
        verdict=result.verdict,
        error=result.error,
        source=envelope.source,
        event_id=envelope.id,
        group=group_name(run.receiver),
        receiver=run.receiver.name,
        channel=run.delivery.channel,
        type=envelope.type,
        key=envelope.subject or "",
        entry_id=run.delivery.id,
        attempt=run.attempt,
        raw=run.delivery.body,
        using=_alias(run),
    )


def identity(run: Run) -> tuple[str, str, str, str, str]:
    """What makes a receiver's part of a delivery this one: database alias, source, event id, group, receiver."""
    envelope, receiver = run.document.envelope, run.receiver
    return _alias(run), envelope.source, envelope.id, group_name(receiver), receiver.name


def without_stranded(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Results that count, and those of runs that their database cut short, which says nothing about the receiver.

    Each database is asked once, and none that was away while a `once` receiver needed it: it may be back by now.
    """
    suspects = [result for result in results if result.is_stranded or _is_suspect(result)]
    if not suspects:
        return list(results), []
    away = {_alias(result.run) for result in suspects if result.is_stranded}
    away |= {alias for alias in {_alias(result.run) for result in suspects} - away if held.is_away(alias)}
    stranded = {id(result): result for result in suspects if _alias(result.run) in away}
    return [result for result in results if id(result) not in stranded], list(stranded.values())


def _is_suspect(result: Result) -> bool:
    """Whether nobody has asked yet if its database is there: whoever runs `once` receivers has."""
    return isinstance(result.error, OperationalError | InterfaceError) and not result.run.receiver.has_inbox


def _alias(run: Run) -> str:
    return run.receiver.using or held.default_alias()


def postponed(run: Run) -> held.Failure:
    """A waiting row, due now, for a receiver that another release of this service has."""
    return failure(Result(run, Verdict(Outcome.RETRY), NotHere(), 0.0))


def parked(run: Run) -> held.Failure:
    """A row that is due when its receiver is resumed."""
    paused = failure(Result(run, Verdict(Outcome.RETRY), ReceiverPaused(), 0.0))
    return replace(paused, attempt=0, is_parked=True)


def poisonous(run: Run) -> held.Failure:
    """A dead row, and its line, for a receiver whose process ended each time it was alone with this event.

    That may have been another receiver's timeout: all that match are run, and nobody knows which it was.
    """
    timeout, starts = run.receiver.timeout, run.delivery.starts
    own = f" (timeout={timeout:g} s)" if timeout else ""
    what = f"its process died or was recycled{own} {counted(starts, 'time')} over it"
    result = Result(run, DEAD, ProcessDied(what), 0.0)
    log_failure(msgspec.structs.replace(result, run=msgspec.structs.replace(run, attempt=starts)))
    return failure(result)


def quarantine(delivery: Delivery, error: RedisEventsError) -> held.Failure:
    """A dead letter for bytes that are no event, or that are nobody's here."""
    return held.Failure(
        verdict=DEAD,
        error=error,
        source="",
        event_id=f"{delivery.channel}/{delivery.id}"[:255] if delivery.id else new_id(),
        group=delivery.group or conf.SERVICE,
        receiver="",
        channel=delivery.channel,
        type="",
        key="",
        entry_id=delivery.id,
        attempt=0,
        raw=delivery.body,
        using=held.default_alias(),
    )


def log_failure(result: Result) -> None:
    """One line for a run that did not end well: what, where, why, and what comes next."""
    run, envelope, error = result.run, result.run.document.envelope, result.error
    assert error
    about = one_line(f"{envelope.type or run.delivery.channel} {envelope.id} → {run.receiver.name}", limit=600)
    why = f"{type(error).__name__}: {one_line(error)}"
    place = where(error.__traceback__)
    why = f"{why} ({place})" if place else why
    policy = run.receiver.retry or default_retry()
    facts: dict[str, Any] = {"outcome": str(result.verdict.outcome), "type": envelope.type, "id": envelope.id}
    facts |= {"receiver": run.receiver.name, "attempt": run.attempt, "ms": round(result.seconds * 1e3, 1), "error": why}
    if result.verdict.outcome is Outcome.RETRY:
        after = result.verdict.after
        logger.warning(
            "retry  %s  %s/%s in %.1f s  %s", about, run.attempt, policy.attempts, after, why, extra={"facts": facts}
        )
        return
    logger.error("dead   %s  after %s  %s", about, counted(run.attempt, "run"), why, extra={"facts": facts})
