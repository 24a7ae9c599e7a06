"""The end: caches that are open are saved when the interpreter is left, and the child of a fork starts anew.

Python ends in this order:

1. What `threading` has been given, last first. Threads still work. Here all caches are flushed; then comes
   `concurrent.futures`, which takes no more work from there on, and stores may need it to.
2. The handlers of `atexit`, last first. Here all caches are closed, before what their stores are made of.
3. Threads that are daemons, as the flushers are, stand still for good.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import sys
import threading
import time
from typing import Any, Protocol, cast

from slabcache.behind import workers
from slabcache.behind.flusher import Saved, forget_owners, open_flushers
from slabcache.behind.waiting import seconds_until
from slabcache.errors import ClosedError
from slabcache.machine.lock import forks

__all__ = ["flush_before_others_end", "forget_parent"]

log = logging.getLogger("slabcache")


class Savable(Protocol):
    """What is saved at the end: a `WriteBehindCache`."""

    store: Any
    _exit_timeout: float
    _forked: bool

    def flush(self, timeout: float | None = None) -> None: ...
    def close(self, timeout: float | None = None) -> None: ...


_ends_at: float | None = None  # when the interpreter began to end
_finalized = 0  # the process whose end has been provided for
_forks = forks()  # when threads and loads were last renewed


def _deadline(cache: Savable) -> float:
    """Of all steps by which the interpreter is left."""
    global _ends_at
    _ends_at = _ends_at or time.monotonic()
    return _ends_at + cache._exit_timeout


def _start_flushes() -> list[Savable]:
    """Have all open caches flush at the same time: one whose store fails must not take the time of others."""
    caches = []
    for flusher in open_flushers():
        cache = cast(Savable | None, flusher.cache())
        if cache is not None and not cache._forked:
            caches.append(cache)
            with contextlib.suppress(Exception):
                flusher.enlist(Saved(time.monotonic_ns(), _deadline(cache)), bool)
    return caches


def _flush_while_threads_work() -> None:
    """Threads go on and may write, so nothing is closed yet."""
    for cache in _start_flushes():
        with contextlib.suppress(Exception):  # told when it is closed
            cache.flush(seconds_until(_deadline(cache)))


def _flush_at_exit() -> None:
    """Close what is open, also where another thread is about to. An interrupt ends the wait for one cache."""
    for cache in _start_flushes():
        try:
            cache.close(seconds_until(_deadline(cache)))
        except (TimeoutError, ClosedError) as error:
            log.error("leaving the interpreter, %s: %s", type(cache.store).__name__, error)
        except BaseException:
            log.exception("leaving the interpreter, %s: not closed", type(cache.store).__name__)


def flush_before_others_end() -> None:
    """Put our handler last, whenever there is a new cache: those of what its store is made of, as of the
    driver for Cassandra, run after it.

    Before Python 3.13 a process that `multiprocessing` has forked ends without `atexit`.
    """
    global _finalized
    atexit.unregister(_flush_at_exit)
    atexit.register(_flush_at_exit)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None and _finalized != os.getpid():
        _finalized = os.getpid()
        sys.modules["multiprocessing.util"].Finalize(None, _flush_at_exit, exitpriority=0)


def forget_parent() -> None:
    """In the child of a fork, once: the parent's threads, and who writes to which store there."""
    global _ends_at, _forks
    if _forks == forks():
        return
    _ends_at = None
    workers.forget()
    forget_owners()
    _forks = forks()


# No public call of Python's has a function run before concurrent.futures gives up. Handlers run in reverse
# order: its own has to be there before ours.
importlib.import_module("concurrent.futures.thread")
_register = getattr(threading, "_register_atexit", None)
if _register is not None:
    _register(_flush_while_threads_work)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_parent)
