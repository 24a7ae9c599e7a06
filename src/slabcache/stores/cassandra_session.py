"""The driver's session with a Cassandra cluster: opened when it is needed, once in each process; and requests
that run on it side by side.

The driver does the rest: it keeps connections to the nodes, finds out who is up, connects again to those that
come back, and prepares statements again where a node has forgotten them. Nothing here imports it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from slabcache.errors import ClosedError

if TYPE_CHECKING:
    from cassandra.cluster import Cluster, Session

__all__ = ["Opened", "SharedSession", "run_all"]


class Opened(NamedTuple):
    """A session that is connected, and what has been made ready with it."""

    cluster: Cluster
    session: Session
    ready: Any


class SharedSession:
    """A session for all threads of a process, opened by the first call that needs it.

    `make_cluster` gives the driver's `Cluster`, `make_ready` is called with each new session, for example to
    prepare statements. What either raises reaches the caller, and the next call tries again. The child of a
    fork opens a session of its own: the driver's threads stay with the parent.

        with shared.call():
            session = shared.open().session
    """

    def __init__(self, make_cluster: Callable[[], Cluster], make_ready: Callable[[Session], Any]) -> None:
        self._make_cluster = make_cluster
        self._make_ready = make_ready
        self._lock = threading.Lock()  # held while a session is opened or closed
        self._opened: Opened | None = None
        self._of_parent: Opened | None = None
        self._attempts = 0
        self._error: Exception | None = None  # of the last attempt
        self._ended = threading.Condition()  # notified when a call ends; owns what follows
        self._calls = 0  # under way
        self._closed = False
        _sessions.add(self)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call that uses the session: `close` waits for its end. ClosedError after `close`."""
        with self._ended:
            if self._closed:
                raise ClosedError("this store is closed")
            self._calls += 1
        try:
            yield
        finally:
            with self._ended:
                self._calls -= 1
                self._ended.notify_all()

    def open(self) -> Opened:
        """The session, which one thread opens while the others wait; if it cannot, they all fail with it."""
        opened = self._opened
        if opened is not None:
            return opened
        attempts = self._attempts
        with self._lock:
            if self._opened is None:
                if self._attempts != attempts and self._error is not None:
                    raise self._error
                self._attempts += 1
                try:
                    self._opened = self._connected()
                    self._error = None
                except Exception as error:
                    self._error = error
                    raise
            return self._opened

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
        with self._ended:
            self._closed = True
            self._ended.wait_for(lambda: self._calls == 0)
        with self._lock:
            opened, self._opened = self._opened, None
            self._error = None
            if opened is not None:
                opened.cluster.shutdown()

    def _forget(self) -> None:
        """In the child of a fork. The parent's session is kept, unused: to dispose of it takes locks that
        other threads of the parent may have held."""
        self._lock = threading.Lock()
        self._ended = threading.Condition()
        self._calls = 0  # they are the parent's
        self._error = None
        if self._opened is not None:
            self._of_parent, self._opened = self._opened, None
            self._of_parent.cluster.is_shutdown = self._of_parent.session.is_shutdown = True


_sessions: weakref.WeakSet[SharedSession] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for session in list(_sessions):
        session._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


def run_all(
    session: Session, requests: Iterable[tuple[Any, Any]], *, concurrency: int, timeout: float
) -> tuple[list[list[tuple[Any, ...]]], list[Exception]]:
    """Run statements with their parameters, at most `concurrency` at a time, and wait until all have settled.

    Returns the rows of each that succeeded, in no particular order, and the errors. After the first error no
    more are sent: where one times out, thousands would, one after the other.
    """
    answers: list[list[tuple[Any, ...]]] = []
    errors: list[Exception] = []
    settlements = threading.Semaphore(0)

    def succeeded(rows: list[tuple[Any, ...]] | None) -> None:
        answers.append(rows or [])
        settlements.release()

    def failed(error: Exception) -> None:
        errors.append(error)
        settlements.release()

    under_way = 0
    for statement, parameters in requests:
        if under_way == concurrency:
            settlements.acquire()
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
    for _ in range(under_way):
        settlements.acquire()
    return answers, errors
