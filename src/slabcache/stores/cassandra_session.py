"""The driver's session with a Cassandra cluster: opened when it is needed, once in each process; and requests
that run on it side by side.

The driver does the rest: it keeps connections to the nodes, finds out who is up, connects again to those that
come back, and prepares statements again where a node has forgotten them. Nothing here imports it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from slabcache.stores.calls import Call, Calls

if TYPE_CHECKING:
    from cassandra.cluster import Cluster, Session

__all__ = ["Opened", "SharedSession", "run_all"]

_log = logging.getLogger("slabcache.stores.cassandra")

_OPENING = "connecting"
_LATE = 30.0  # seconds after its time-out that a request is given up, which the driver should have settled


class Opened(NamedTuple):
    """A session that is connected, and what has been made ready with it."""

    cluster: Cluster
    session: Session
    ready: Any


class _Process(Calls):
    """The session of one process."""

    def __init__(self, parent: _Process | None = None) -> None:
        super().__init__(parent)
        self.opened: Opened | None = None
        self.failures = 0  # attempts to open it
        self.failure = ""  # of the last of them
        if parent is not None and parent.opened is not None:
            # It is kept, unused: to dispose of it takes locks that other threads of the parent may have held.
            # So told, the driver leaves it alone when the interpreter ends.
            parent.opened.cluster.is_shutdown = parent.opened.session.is_shutdown = True


class SharedSession:
    """A session for all threads of a process, opened by the first call that needs it.

    `make_cluster` gives the driver's `Cluster`, `make_ready` is called with each new session, for example to
    prepare statements. What either raises reaches the caller, and the next call tries again. `patience` is
    how many seconds a call waits for another thread that opens the session, and `close` for calls. The child
    of a fork opens a session of its own: the driver's threads stay with the parent.

        with shared.call() as call:
            session = shared.open(call).session
    """

    def __init__(
        self,
        make_cluster: Callable[[], Cluster],
        make_ready: Callable[[Session], Any],
        name: str = "this store",
        patience: float = 60.0,
    ) -> None:
        self._make_cluster = make_cluster
        self._make_ready = make_ready
        self._name = name
        self._patience = patience
        self._process = _Process()
        _sessions[id(self)] = weakref.ref(self)

    @contextlib.contextmanager
    def call(self) -> Iterator[Call]:
        """A call that uses the session: `close` waits for its end. ClosedError after `close`."""
        process, call = self.here(), Call()
        try:
            process.enter(call, self._name)
            yield call
        finally:
            process.leave(call)
            self._end(process)

    def open(self, call: Call | None = None) -> Opened:
        """The session, which one call opens while the others wait; if it cannot, they all fail.

        RuntimeError where this thread is opening it already, TimeoutError where another one is, for too long,
        and ConnectionError where another one could not.
        """
        process = self.here()
        if process.opened is not None:
            return process.opened
        failures = process.failures
        call = call or Call()
        try:
            if not process.take_turn(_OPENING, call, self._patience):
                raise TimeoutError(
                    f"another thread has been opening the session for {self._patience:g} seconds"
                )
            if process.opened is None:
                if process.failures > failures:  # while this call waited
                    raise ConnectionError(f"another thread could not open the session: {process.failure}")
                try:
                    process.opened = self._connected()
                except Exception as error:
                    process.failures += 1
                    process.failure = f"{type(error).__name__}: {error}"
                    raise
            return process.opened
        finally:
            process.end_turn(_OPENING, call)

    def _connected(self) -> Opened:
        cluster = self._make_cluster()
        try:
            session = cluster.connect()
            return Opened(cluster, session, self._make_ready(session))
        except BaseException:
            cluster.shutdown()  # its threads would live on
            raise

    def close(self) -> None:
        """Give connections back and end the driver's threads, when the calls under way have ended. May be
        called again."""
        process = self.here()
        process.close()
        if not process.others_end(self._patience):
            _log.warning("%s is closed, and calls are still under way: the last of them ends it", self._name)
        self._end(process)

    @staticmethod
    def _end(process: _Process) -> None:
        """Shut the session down, if it is closed and this was the last call."""
        if process.is_closed() and process.is_idle():
            opened, process.opened = process.opened, None
            if opened is not None:
                opened.cluster.shutdown()

    def here(self) -> _Process:
        """What belongs to this process."""
        self._process = process = self._process.here()
        return process

    def __del__(self) -> None:
        _sessions.pop(id(self), None)


_sessions: dict[int, weakref.ref[SharedSession]] = {}


def _look_for_fork() -> None:
    """In the child of a fork: tell the driver that the sessions of the parent are none of its business."""
    for reference in _sessions.copy().values():
        session = reference()
        if session is not None:
            session.here()


os.register_at_fork(after_in_child=_look_for_fork)
atexit.register(_look_for_fork)  # before the driver's own handler; a fork made in C runs no hook


def run_all(
    session: Session, requests: Iterable[tuple[Any, Any]], *, concurrency: int, timeout: float
) -> tuple[list[list[tuple[Any, ...]]], list[Exception]]:
    """Run statements with their parameters, at most `concurrency` at a time, and wait until all have settled.

    Returns the rows of each that succeeded, in no particular order, and the errors. After the first error no
    more are sent: where one times out, thousands would, one after the other.
    """
    answers: list[list[tuple[Any, ...]]] = []
    errors: list[Exception] = []
    # Not a lock or what has one: a thread of the driver that waits for it would answer nobody.
    settled: SimpleQueue[tuple[list[tuple[Any, ...]] | None, Exception | None]] = SimpleQueue()

    def succeeded(rows: list[tuple[Any, ...]] | None) -> None:
        settled.put((rows or [], None))

    def failed(error: Exception) -> None:
        settled.put((None, error))

    def take() -> bool:
        try:
            rows, error = settled.get(timeout=timeout + _LATE)
        except Empty:  # as in a finalizer that keeps the driver's own thread
            errors.append(
                TimeoutError(f"the driver has not settled a request in {timeout + _LATE:g} seconds")
            )
            return False
        if error is None:
            answers.append(rows or [])
        else:
            errors.append(error)
        return True

    under_way = 0
    for statement, parameters in requests:
        while under_way == concurrency or not settled.empty():
            if not take():
                return answers, errors
            under_way -= 1
        if errors:
            break
        try:
            future = session.execute_async(statement, parameters, timeout=timeout)
        except Exception as error:
            errors.append(error)
            break
        future.add_callbacks(succeeded, failed)
        under_way += 1
    while under_way and take():
        under_way -= 1
    return answers, errors
