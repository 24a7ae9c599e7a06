"""Threads of ours, for what must not be interrupted, and for what nobody else waits for.

In the main thread a signal handler may raise between any two steps, KeyboardInterrupt above all: whatever
takes several steps may be left half done. So a call of the main thread that has to wait is carried out by a
thread of ours, which gets no signals, and the main thread does nothing but wait for it. An interrupt ends
that wait; the call goes on to its end.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Task", "forget", "run", "start"]

Result = TypeVar("Result")

IDLE_MAX = 4  # threads that are kept for the next call


class Task:
    """A call, and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call: Callable[[], Any] | None = call
        self.done = _thread.allocate_lock()
        self.done.acquire()
        self.has_begun = False
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def has_ended(self) -> bool:
        return not self.done.locked()

    def carry_out(self) -> None:
        """Whatever the call raises is for the one who asked for it, and must not end the thread."""
        self.has_begun = True
        try:
            assert self.call is not None
            self.result = self.call()
        except BaseException as error:
            self.error = error
        finally:
            self.call = None  # it goes here, not in the main thread
            self.done.release()


_idle: list[SimpleQueue[Task]] = []  # of threads that have nothing to do


def run(call: Callable[[], Result]) -> Result:
    """What a call returns or raises that a thread of ours carries out; where there is none, as the
    interpreter ends, the caller does."""
    task = Task(call)
    if not _give(task):
        return call()
    task.done.acquire()
    error, task.error = task.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error
    result: Result = task.result
    return result


def start(call: Callable[[], object]) -> Task | None:
    """Have a call carried out, whose end nobody waits for; None where there is no thread."""
    task = Task(call)
    return task if _give(task) else None


def _give(task: Task) -> bool:
    # Each step is one that no signal handler can interrupt half-way. Between them it may cost a thread.
    if sys.is_finalizing():
        return False  # no other thread runs any more
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = SimpleQueue()
        try:
            _thread.start_new_thread(_work, (inbox,))
        except RuntimeError:
            return False
    try:
        inbox.put(task)
    except MemoryError:  # not an interrupt: it may come after the task has been put there
        _idle.append(inbox)
        raise
    return True


def _work(inbox: SimpleQueue[Task]) -> None:
    """Carry out tasks. A moment without memory may end the thread, but only while nobody can give it a task,
    and leaves no one waiting for the task that it has."""
    while True:
        try:
            task = inbox.get()
        except BaseException:
            continue
        try:
            task.carry_out()
        except BaseException as error:  # it has not even begun
            if not task.has_ended:
                task.error = error
                task.done.release()
        try:
            del task
            if len(_idle) >= IDLE_MAX:
                return
            _idle.append(inbox)
        except BaseException:
            return


def forget() -> None:
    """In the child of a fork: the threads are its parent's, and so may be the lock of the list."""
    global _idle
    _idle = []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
