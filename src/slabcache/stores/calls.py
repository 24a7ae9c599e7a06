"""The calls of a store that are under way, and the threads that wait for them. No lock is held anywhere.

The collector, and with it any finalizer, may run wherever Python takes a step, and so may a signal handler in
the main thread. Either may call the store again, or wait for a thread that does. With a lock held, that would
be a deadlock. So each change here is one operation that C carries out as a whole, with the GIL or without it:
an item of a dict that is set, popped or claimed with `setdefault`; the copy of a dict; an item appended to a
list or popped. Lists are never copied: on Python 3.11 a collection may change one in the middle of that.

Where two must not miss each other, such as a call and the thread that closes the store, both first make their
entry and then look for that of the other. Whatever the order of these steps, one of them sees the other.

All waits end: what a finalizer waits for may need the thread that it runs in.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import time
from collections.abc import Callable
from typing import Self

from slabcache.errors import ClosedError

__all__ = ["Call", "Calls"]

_LOOK_AGAIN = 1.0  # seconds; a signal handler that raises may keep somebody from being woken


class Call:
    """One call of a store; equal to itself alone."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = _thread.get_ident()


class Calls:
    """The calls of one store in one process.

    The child of a fork has an object of its own, as no call of the parent's goes on there: `here` gives it.
    """

    def __init__(self, parent: Self | None = None) -> None:
        self.pid = os.getpid()
        self.parent = parent  # kept as it is, for what it refers to
        # Nothing of the parent's that takes the lock of a dict: it may have been handed to a thread there.
        self._closed: dict[str, None] = {"closed": None} if parent is not None and parent.is_closed() else {}
        self._under_way: dict[Call, None] = {}
        self._turns: dict[str, Call] = {}
        self._bells: list[_thread.LockType] = []  # one for each thread that waits, held until it is rung
        self._children: dict[int, Self] = {}  # by process

    def here(self) -> Self:
        """This object, or in the child of a fork, however that was made, the child's."""
        pid = os.getpid()
        if self.pid == pid:
            return self
        return self._children.setdefault(pid, type(self)(self))

    # ---- calls --------------------------------------------------------------------------------------

    def enter(self, call: Call, store: str) -> None:
        """Let others see that the call is under way; `leave` must follow, whatever comes of this. ClosedError
        after `close`."""
        self.begin(call)
        if self.is_closed():
            raise ClosedError(f"{store} is closed")

    def begin(self, call: Call) -> None:
        """`enter`, also after `close`."""
        self._under_way[call] = None

    def leave(self, call: Call) -> None:
        """The call is no longer under way; may be called again."""
        self._under_way.pop(call, None)
        self.ring()

    def close(self) -> None:
        """From here on `enter` raises."""
        self._closed["closed"] = None

    def is_closed(self) -> bool:
        return len(self._closed) > 0

    def has_call_of(self, thread: int) -> bool:
        """Whether a call of this thread is under way."""
        return any(call.thread == thread for call in self._under_way.copy())

    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._under_way.copy()

    def others_end(self, timeout: float) -> bool:
        """Wait until no other thread has a call under way; False if one still has after `timeout` seconds."""
        return self.wait_for(self._is_alone, timeout)

    def _is_alone(self) -> bool:
        me = _thread.get_ident()
        return all(call.thread == me for call in self._under_way.copy())

    # ---- turns: what one call at a time does --------------------------------------------------------

    def take_turn(self, turn: str, call: Call, timeout: float) -> bool:
        """Wait until no other call does what `turn` names; False if one still does after `timeout` seconds.

        RuntimeError where this thread is in the middle of it, as it would wait for itself. `end_turn` must
        follow, whatever comes of this.
        """

        def is_mine() -> bool:
            holder = self._turns.setdefault(turn, call)
            if holder is not call and holder.thread == call.thread:
                raise RuntimeError(
                    f"this thread is in the middle of {turn}, and is asked for another one, as by a "
                    "finalizer or a signal handler: have another thread do that, and do not wait for it"
                )
            return holder is call

        return self.wait_for(is_mine, timeout)

    def try_turn(self, turn: str, call: Call) -> bool:
        """Take the turn if that takes no wait."""
        return self._turns.setdefault(turn, call) is call

    def end_turn(self, turn: str, call: Call) -> None:
        """Let others have it, if it is this call's."""
        if self._turns.get(turn) is call:
            self._turns.pop(turn, None)
            self.ring()

    # ---- waiting ------------------------------------------------------------------------------------

    def wait_for(self, is_so: Callable[[], bool], timeout: float) -> bool:
        """Wait until a condition holds, looking whenever somebody rings; False if it takes too long."""
        if is_so():
            return True
        deadline = time.monotonic() + timeout
        bell = _thread.allocate_lock()
        bell.acquire()
        self._bells.append(bell)
        while not is_so():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if bell.acquire(timeout=min(left, _LOOK_AGAIN)):
                self._bells.append(bell)
        return True

    def ring(self) -> None:
        """Wake all who wait at this moment."""
        for _ in range(len(self._bells)):
            with contextlib.suppress(IndexError):  # somebody else rings, too
                self._bells.pop(0).release()
