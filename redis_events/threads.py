"""The threads of a process: which were started, which have ended, and why."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

logger = logging.getLogger("redis_events.listen")


@dataclass(slots=True)
class Threads:
    """Some loops, each in a thread, and what brought one down."""

    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """Noted before the bell rings: a thread is still alive for a moment after that."""
    crashed: list[BaseException] = field(default_factory=list)

    def start(self, name: str, run: Callable[[], None], ring: Callable[[], None]) -> None:
        def work() -> None:
            try:
                run()
            except BaseException as error:
                logger.exception("%s stopped unexpectedly", name)
                self.crashed.append(error)
            finally:
                self.ended.append(name)
                ring()

        self.started.append(name)
        threading.Thread(target=work, name=f"redis_events-{name}", daemon=True).start()

    @property
    def alive(self) -> int:
        return len(self.started) - len(self.ended)

    @property
    def are_alive(self) -> bool:
        return self.alive > 0
