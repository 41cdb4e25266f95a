"""What asks a process to stop: signals, and people through Redis."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGINT", "SIGHUP")


class StopRequests:
    """Remembers who has asked, and ``ring``s each time. Whoever sends a second signal does not want to wait.

    Somebody who asks through Redis never is that second: a supervisor that ends the process anyway knows nothing of it.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._signals = 0
        self._patient = 1
        """So many signals are one request to stop."""
        self._is_asked = False

    @contextmanager
    def signals_caught(self) -> Iterator[None]:
        """SIGTERM, SIGINT and SIGHUP are noted; nothing else happens in the handler."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        caught = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        before = {number: signal.signal(number, self._on_signal) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._ring()

    def ask(self) -> None:
        """Ask without a signal, from any thread."""
        self._is_asked = True
        self._ring()

    def take_up(self) -> None:
        """The stop begins, and nobody has read so yet: signals so far are one request, as SIGTERM with SIGHUP is."""
        self._patient = max(1, self._signals)

    @property
    def are_there(self) -> bool:
        return self._is_asked or self._signals > 0

    @property
    def are_urgent(self) -> bool:
        return self._signals > self._patient

    @property
    def signals_left(self) -> int:
        """How many more make it urgent: 2 where the stop did not begin with a signal."""
        return max(0, self._patient + 1 - self._signals)
