"""Children of scripts that fork, which import this: `scripts.py` sees to that.

Each child is watched by an alarm of its own: one that hangs is killed by it, and so fails the test. That is a
guard against waiting for ever, not a limit on how long the work may take.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

PATIENCE = 300  # seconds


def child(
    work: Callable[[], object],
    fork: Callable[[], int] = os.fork,
    leave: Callable[[int], object] = os._exit,
) -> int:
    """Do the work in a child, whose exit status tells whether it could; its process id."""
    pid = fork()
    if pid:
        return pid
    signal.alarm(PATIENCE)
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    leave(status)
    raise AssertionError("it has not left")


def wait(pid: int) -> None:
    """For a child, and end as it has if it has failed."""
    _, status = os.waitpid(pid, 0)
    if status:
        print("a child ended with", status, flush=True)
        os._exit(1)  # whatever the threads are doing
