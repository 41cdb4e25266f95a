"""The event: immutable, easy to make in a test, with an id nobody else has."""

from __future__ import annotations

import os
import random
import re
import threading
import time
import uuid
from datetime import UTC, datetime

import pytest

import redis_events
from redis_events import Event
from redis_events.events import new_id


def test_ids_are_uuid7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_id()) for _ in range(2000)]
    after = time.time_ns() // 1_000_000
    assert {each.version for each in ids} == {7}
    assert {each.variant for each in ids} == {uuid.RFC_4122}
    assert all(before <= each.int >> 80 <= after for each in ids)
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", new_id()) for _ in range(2000))


def test_every_random_bit_of_an_id_changes() -> None:
    ones, zeros = 0, (1 << 128) - 1
    for _ in range(500):
        ones |= (value := uuid.UUID(new_id()).int)
        zeros &= value
    noise = ((1 << 12) - 1) << 64 | ((1 << 62) - 1)
    assert ones & noise == noise
    assert zeros & noise == 0


def test_a_projects_seed_does_not_repeat_ids() -> None:
    random.seed(1)
    first = new_id()[14:]
    random.seed(1)
    assert new_id()[14:] != first


def test_threads_never_share_an_id() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(new_id() for _ in range(5000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 on forking beside threads
def test_a_forked_process_makes_ids_of_its_own() -> None:
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(into, new_id()[14:].encode())
        os._exit(0)
    ours = new_id()[14:]
    os.waitpid(pid, 0)
    assert os.read(out, 100).decode() != ours
    os.close(out)
    os.close(into)


def test_only_the_data_must_be_given() -> None:
    event = Event(data=7)
    assert (event.data, event.attempt, event.type, event.key, event.replayed, event.raw) == (7, 1, "", "", False, b"")
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 5
    with pytest.raises(TypeError):
        Event()  # type: ignore[call-arg]


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Event(data=7).data = 8  # type: ignore[misc]


def test_everything_public_is_there_and_nothing_else() -> None:
    for name in redis_events.__all__:
        assert getattr(redis_events, name) is not None
        assert name in dir(redis_events)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = redis_events.nonsense
