"""The pytest fixture ``captured_events``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import CapturedEvents


@pytest.fixture
def captured_events() -> "Iterator[CapturedEvents]":
    """What the test publishes, captured instead of sent: ``redis_events.testing.CapturedEvents``."""
    from .testing import capture_events  # pytest loads plugins before Django is set up

    with capture_events() as captured:
        yield captured
