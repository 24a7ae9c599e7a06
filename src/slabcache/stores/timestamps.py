"""Time stamps of writes, strictly rising whatever the clock does."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Timestamps"]

# Stamps. So many calls may be made while one is under way, without its having to start again.
_REMEMBERED = 64


class Timestamps:
    """Microseconds since 1970, each later than the one before.

    Where the clock stands still or is set back, they go on from the last one, a microsecond at a time.
    `clock` gives nanoseconds since 1970. May be used by any thread.

    >>> stamps = Timestamps()
    >>> stamps.next() < stamps.next()
    True
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self.clock = clock
        self._given: dict[int, object] = {0: None}  # the latest ones

    def next(self) -> int:
        """The next one. There is no lock, for the reason that `calls` gives: a stamp belongs to who is first
        to enter it."""
        mine = object()
        while True:
            stamp = max(self.clock() // 1000, max(self._given.copy()) + 1)
            while self._given.setdefault(stamp, mine) is not mine:
                stamp += 1
            given = sorted(self._given.copy())
            if stamp > given[0]:
                break  # otherwise its neighbours have been forgotten meanwhile, and it may have been given
        for forgotten in given[:-_REMEMBERED]:
            self._given.pop(forgotten, None)
        return stamp
