"""Time stamps of writes, strictly rising whatever the clock does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Timestamps"]


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
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        """The next one."""
        with self._lock:
            self._last = max(self.clock() // 1000, self._last + 1)
            return self._last
