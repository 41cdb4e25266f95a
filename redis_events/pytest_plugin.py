"""The pytest fixture ``captured_events``, and what was run of the contract of transports, in sight after each run."""

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import CapturedEvents

SUITES = pytest.StashKey[dict[str, str]]()


@pytest.fixture
def captured_events() -> "Iterator[CapturedEvents]":
    """What the test publishes, captured instead of sent: ``redis_events.testing.CapturedEvents``."""
    from .testing import capture_events  # pytest loads plugins before Django is set up

    with capture_events() as captured:
        yield captured


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which tests are the contract's, and of which suite."""
    contract = _contract()
    session.config.stash[SUITES] = {
        item.nodeid: item.cls.__name__
        for item in session.items
        if isinstance(item, pytest.Function) and item.cls and issubclass(item.cls, contract)
        if item.originalname in vars(contract)
    }


def _contract() -> type:
    testing = sys.modules.get("redis_events.testing")  # who subclasses the contract has imported it
    return testing.TransportContract if testing else type("Nobody", (), {})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line for each transport: how many tests of the contract were executed, and how many skipped."""
    suites = config.stash.get(SUITES, {})
    reports = [each for each in chain(*terminalreporter.stats.values()) if isinstance(each, pytest.TestReport)]
    reports = [each for each in reports if each.nodeid in suites]
    executed = Counter(suites[each.nodeid] for each in reports if each.when == "call" and not each.skipped)
    skipped = Counter(suites[each.nodeid] for each in reports if each.skipped)
    whole = sum(name.startswith("test_") for name in vars(_contract()))
    for suite in sorted(set(suites.values())):
        line = f"{suite}: {executed[suite]} of {whole} executed, {skipped[suite]} skipped"
        terminalreporter.write_line(f"Transport contract, {line}")
