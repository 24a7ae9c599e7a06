"""Waiting: deadlines, bells, and those who are to be woken.

No lock is held while Python code runs: the collector may run a finalizer at any step, in any thread, and that
may use the cache. So whoever waits has a bell of its own, and first puts it where it is rung, then looks
whether there is anything to wait for; whoever changes something does so first, and then rings.
"""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from typing import Any

from slabcache.arguments import seconds

__all__ = ["Bell", "deadline_after", "look_again", "persist", "seconds_until", "wake_all"]

_PAUSE = 0.001  # seconds, where memory is short
_LOOK_AGAIN = 5.0  # seconds


class Bell:
    """What one thread waits for, and any other rings, once or more."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it has been rung
            return

    def wait(self, deadline: float | None) -> bool:
        """Whether it was rung since the last time, before a deadline of `time.monotonic()`."""
        left = seconds_until(deadline)
        return self._lock.acquire(timeout=-1 if left is None else left)


def deadline_after(timeout: float | None) -> float | None:
    """When a timeout that starts now ends, of `time.monotonic()`."""
    return None if timeout is None else time.monotonic() + seconds("timeout", timeout)


def look_again(deadline: float | None) -> float:
    """When to look whether somebody has found no memory to ring; no later than a deadline."""
    soon = time.monotonic() + _LOOK_AGAIN
    return soon if deadline is None else min(soon, deadline)


def seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def wake_all(waiters: dict[Any, Callable[[], object]]) -> None:
    """Call all that wait, each at least once, and remove them; others may come and go meanwhile.

    Nobody may be left waiting for want of memory, so that is tried again.
    """
    while waiters:
        try:
            now = waiters.copy()
        except MemoryError:
            time.sleep(_PAUSE)
            continue
        for waiter, wake in now.items():
            persist(wake)
            waiters.pop(waiter, None)


def persist(call: Callable[[], object]) -> None:
    """Do what others wait for, however often that finds no memory."""
    while True:
        try:
            call()
            return
        except MemoryError:
            time.sleep(_PAUSE)
