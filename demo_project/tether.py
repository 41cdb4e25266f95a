"""Run a program that must not outlive the process that wanted it, even when that is killed with SIGKILL.

    python tether.py PARENT PROGRAM ARGUMENT …

becomes PROGRAM, so its process id is the one that was started. On Linux the kernel is told to kill it with its parent;
elsewhere a small process beside it watches. Run as a file, by its path: it needs nothing but the standard library.
"""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
LOOK_EVERY = 0.5
"""Seconds between two looks of the watching process."""


def main(parent: int, program: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        start_watching(parent)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    os.execvp(program[0], program)


def start_watching(parent: int) -> None:
    """Fork; the new process watches, this one goes on."""
    if os.fork() == 0:
        watch(os.getppid(), parent)


def watch(program: int, parent: int) -> None:
    """End `program` once `parent` is gone; end with `program`, whose child this process is."""
    os.closerange(0, 3)  # whoever reads the program's output waits for every holder of it
    while os.getppid() == program:
        if not is_alive(parent):
            os.kill(program, signal.SIGKILL)
        time.sleep(LOOK_EVERY)
    os._exit(0)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
