"""Writes that wait for room, in the order in which they have come.

The first of them has the room that it lacks kept for it, as others would take each slot that the store frees
before there are as many as it needs. Writes that find room besides need not wait. Where the first can never
get what it needs, as rows fail by themselves, nothing is kept (`behind_reserve` in _unsaved.pxd).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from slabcache._write_behind import Request, WriteBehindCore

__all__ = ["Line"]

_PAUSE = 0.001  # seconds, where memory is short


class Line:
    """Each step is one that nothing can interrupt half-way (see waiting.py)."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()

    def first(self) -> Request | None:
        try:
            return self._requests[0]
        except IndexError:
            return None

    def join(self, core: WriteBehindCore, request: Request) -> None:
        """At the end, unless the request is there; it has found out how much room it needs."""
        if request not in self._requests:
            self._requests.append(request)
        self._keep_room(core)

    def leave(self, core: WriteBehindCore, request: Request, tell: Callable[[Request], object]) -> None:
        """If the request is there. Who is the first then is told. Nothing of this needs memory."""
        try:
            self._requests.remove(request)
        except ValueError:
            return
        first = self._keep_room(core)
        if first is not None:
            tell(first)

    def _keep_room(self, core: WriteBehindCore) -> Request | None:
        """For the first, who is returned: looked up again, as others may come and go meanwhile."""
        while True:
            try:
                first = self.first()
                core._reserve(first)
                if self.first() is first:
                    return first
            except MemoryError:
                time.sleep(_PAUSE)
