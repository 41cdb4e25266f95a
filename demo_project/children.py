"""Programs the demo starts: each reported line by line, none outlives the demo."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

TETHER = Path(__file__).with_name("tether.py")
NEVER = r"(?!)"
"""A pattern nothing matches: for programs that are not waited for, or only until they end."""
KEPT = 200
"""Lines of output kept, to be shown when a program fails."""


class ChildFailed(Exception):
    """Raised when a program ended, or was not ready in time. Its text says which, with its last output."""


class Child:
    """A running program. ``ready`` is what it prints once it can be used; after that, lines go to ``on_line``.

    ``on_line`` and ``on_end`` are called from a thread of the child's own.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        ready: str = NEVER,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.output: deque[str] = deque(maxlen=KEPT)
        self.ready: re.Match[str] | None = None
        self._pattern = re.compile(ready, re.MULTILINE)
        self._on_line, self._on_end = on_line, on_end
        self._is_decided = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo alone; it stops its programs in their order
            env=env,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in filter(None, map(str.rstrip, lines)):
                self._take(line)
        self.process.wait()
        self._is_decided.set()
        self._on_end()

    def _take(self, line: str) -> None:
        self.output.append(line)
        if self.ready:
            self._on_line(line)
            return
        self.ready = self._pattern.search("\n".join(self.output))
        if self.ready:
            self._is_decided.set()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def wait_ready(self, timeout: float) -> re.Match[str]:
        """What matched ``ready``. Raises ChildFailed when it ends before; after ``timeout`` seconds it is made to."""
        self._is_decided.wait(timeout)
        if self.ready is None:
            words = self._last_words()
            self.kill()
            raise ChildFailed(words)
        return self.ready

    def wait_done(self, timeout: float) -> None:
        """Return when it has ended well. Raises ChildFailed when it has not, after ``timeout`` seconds too."""
        self._is_decided.wait(timeout)
        if self.process.poll() != 0:
            raise ChildFailed(self._last_words())

    def check_alive(self) -> None:
        """Raises ChildFailed when it has ended."""
        if self.has_ended:
            raise ChildFailed(self._last_words())

    def _last_words(self) -> str:
        state = f"ended with exit code {self.process.poll()}" if self.has_ended else "is not ready"
        return "\n  ".join([f"{self.name} {state}. Its last output:", *(self.output or ["(none)"])])

    def ask_to_stop(self) -> None:
        if not self.has_ended:
            self.process.send_signal(signal.SIGTERM)

    def join(self, timeout: float) -> None:
        """Return once it has ended and all it said was reported; it is killed after ``timeout`` seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join(timeout)

    def kill(self) -> None:
        """End it now, if it still runs, and wait for that."""
        self.process.kill()
        self._reader.join()
