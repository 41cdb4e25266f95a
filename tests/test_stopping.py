"""Who may ask a process to stop, and who hurries it."""

from __future__ import annotations

import signal

import pytest

from redis_events.stopping import StopRequests


@pytest.fixture
def rings() -> list[str]:
    return []


@pytest.fixture
def requests(rings: list[str]) -> StopRequests:
    return StopRequests(lambda: rings.append("ring"))


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        signal.raise_signal(number)


def test_a_signal_and_somebody_through_redis_ask_and_ring(requests: StopRequests, rings: list[str]) -> None:
    assert not requests.are_there
    requests.ask()
    assert (requests.are_there, rings) == (True, ["ring"])
    other = StopRequests(lambda: rings.append("ring"))
    with other.signals_caught():
        send(signal.SIGTERM)
    assert (other.are_there, rings) == (True, ["ring", "ring"])


def test_a_second_signal_hurries(requests: StopRequests) -> None:
    with requests.signals_caught():
        send(signal.SIGTERM)
        requests.take_up()
        assert not requests.are_urgent
        send(signal.SIGINT)
    assert requests.are_urgent


def test_signals_that_come_together_are_one(requests: StopRequests) -> None:
    """A service manager may send SIGHUP right after SIGTERM."""
    with requests.signals_caught():
        send(signal.SIGTERM, signal.SIGHUP)
        requests.take_up()
        assert not requests.are_urgent
        send(signal.SIGTERM)
    assert requests.are_urgent


@pytest.mark.parametrize("is_asked_first", [True, False])
def test_somebody_who_asks_hurries_nobody_before_or_after_a_signal(
    requests: StopRequests, is_asked_first: bool
) -> None:
    with requests.signals_caught():
        steps = [requests.ask, requests.take_up, lambda: send(signal.SIGTERM)]
        for step in steps if is_asked_first else (steps[2], steps[1], steps[0], steps[0]):
            step()
        assert not requests.are_urgent
        send(signal.SIGTERM)
    assert requests.are_urgent


def test_whoever_has_sent_no_signal_yet_needs_two(requests: StopRequests) -> None:
    requests.ask()
    with requests.signals_caught():
        requests.take_up()
        for left in (2, 1, 0):
            assert (requests.signals_left, requests.are_urgent) == (left, left == 0)
            send(signal.SIGTERM)


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGHUP)], ids=["one", "together"])
def test_after_signals_one_more_is_enough(requests: StopRequests, signals: tuple[signal.Signals, ...]) -> None:
    with requests.signals_caught():
        send(*signals)
        requests.take_up()
    assert requests.signals_left == 1


def test_handlers_are_put_back(requests: StopRequests) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with requests.signals_caught():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
