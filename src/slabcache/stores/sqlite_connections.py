"""Connections to one SQLite file: taken, given back, opened again after trouble.

Three things that SQLite leaves to its caller are settled here.

1. The file is removed or replaced while it is open. SQLite would go on with the file it has opened, which
   nobody will ever find again. Each connection knows the device and inode of the three files it works on, and
   is used only while they are those that the path leads to.
2. `fork`. A child must neither use nor close a connection of its parent, see `sqlite_opened`. So all
   connections are closed before the fork, when the calls under way have ended, and opened again by those who
   need them.
3. A failed call. Its transaction is rolled back; a connection that may be broken is closed.

No lock is held while Python runs, for the reason that `calls` gives. No file of a database is ever opened
here other than by SQLite: the kernel drops all of a process's locks on a file when the process closes any
descriptor of it.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import logging
import os
import sqlite3
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from slabcache.stores.calls import Call, Calls
from slabcache.stores.sqlite_opened import FileId, Opened, OwnConnection, connect, file_at, is_file, named

__all__ = ["Connections"]

_log = logging.getLogger("slabcache.stores.sqlite")

_IDLE_MAX = 8  # connections kept for readers; more are opened while more threads read at the same time
_OPEN_ATTEMPTS = 10  # each fails only when the file has been replaced once more meanwhile
_PATIENCE = 10.0  # seconds that a close or a fork waits for calls, besides what these may wait for SQLite
_PAUSE = 0.001  # seconds between looks whether another thread has forked
_WRITING = "a save or a deletion"

_GONE: FileId = (-1, -1)  # what no file is

Item = TypeVar("Item")


class _Process(Calls):
    """The connections of one process that nobody uses at the moment, and its calls."""

    def __init__(self, parent: _Process | None = None) -> None:
        super().__init__(parent)
        self.idle: list[Opened] = []
        self.writer: list[Opened] = []  # at most one


class Connections:
    """One connection for writing, any number for reading; all calls from any thread.

    `configure(connection, is_writer)` is called with each new connection and may raise; `finish(writer)` is
    called before the connection for writing is closed. What is put into `notices` is logged as a warning when
    the call has ended.
    """

    def __init__(
        self,
        path: Path,
        busy_timeout: float,
        configure: Callable[[OwnConnection, bool], None],
        finish: Callable[[Opened], None],
    ) -> None:
        self._path = path
        self._name = f"the store of {path}"
        self._busy_timeout = busy_timeout
        self._patience = busy_timeout + _PATIENCE
        self._configure = configure
        self._finish = finish
        self._known: dict[str, FileId] = {}  # under "file": the database opened last, or _GONE
        self.notices: list[str] = []
        self._process = _Process()
        _pools[id(self)] = weakref.ref(self)

    # ---- calls -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[Opened]:
        """A connection of the caller's own, to the file that is there."""
        with self._call() as (process, call):
            opened = self._take_idle(process, call) or self._open(is_writer=False)
            with self._used(process, opened, process.idle):
                yield opened

    @contextlib.contextmanager
    def writing(self) -> Iterator[Opened]:
        """The connection for writing, to the file that is there; for one thread at a time."""
        with self._call() as (process, call):
            try:
                if not process.take_turn(_WRITING, call, self._busy_timeout):
                    raise _busy(f"another thread has been saving for {self._busy_timeout:g} seconds")
                opened = _popped(process.writer)
                if opened is not None and not opened.is_there():
                    self._drop(opened)
                    self._drop_lost(process)
                    opened = None
                opened = opened or self._open(is_writer=True)
                with self._used(process, opened, process.writer):
                    yield opened
            finally:
                process.end_turn(_WRITING, call)

    @property
    def closed(self) -> bool:
        return self._here().is_closed()

    def close(self) -> None:
        """Close all connections, when the calls under way have ended. More calls raise `ClosedError`."""
        process = self._here()
        process.close()
        ended = process.others_end(self._patience)
        with self._closing(process):
            self._close_unused(process)
        if not ended:
            self.notices.append(
                f"{self._name} is closed, and calls are still under way: they close the file when they end"
            )
        self._log_notices()

    def __del__(self) -> None:
        _pools.pop(id(self), None)
        process = self._process
        if process.pid == os.getpid() and (process.idle or process.writer):
            with self._closing(process):
                self._close_unused(process)
            warnings.warn(f"unclosed SQLiteStore of {self._path}", ResourceWarning, source=self, stacklevel=2)

    def _here(self) -> _Process:
        self._process = process = self._process.here()
        return process

    @contextlib.contextmanager
    def _call(self) -> Iterator[tuple[_Process, Call]]:
        """What `close` and a fork wait for."""
        process, call = self._here(), Call()
        try:
            process.enter(call, self._name)
            while _is_forking(call):
                process.leave(call)
                if not process.wait_for(lambda: not _is_forking(call), self._patience):
                    raise _busy(f"another thread has been forking for {self._patience:g} seconds")
                process.enter(call, self._name)
            yield process, call
        finally:
            process.leave(call)
            self._log_notices()

    @contextlib.contextmanager
    def _closing(self, process: _Process) -> Iterator[None]:
        """What a fork waits for as well: a child that finds a file half closed could never use it.

        This waits for no fork that takes too long, nor in the middle of a call, of whichever store, where a
        finalizer may close one: the fork waits for that call."""
        call = Call()
        waits = not any(pool.has_call_of(call.thread) for pool in _all_pools())
        try:
            process.begin(call)
            while waits and _is_forking(call):
                process.leave(call)
                is_over = process.wait_for(lambda: not _is_forking(call), self._patience)
                process.begin(call)
                if not is_over:
                    break
            yield
        finally:
            process.leave(call)

    def _log_notices(self) -> None:
        while (notice := _popped(self.notices)) is not None:
            _log.warning(notice)

    # ---- connections -------------------------------------------------------------------------------

    def _take_idle(self, process: _Process, call: Call) -> Opened | None:
        opened = _popped(process.idle)
        if opened is None or opened.is_there():
            return opened
        self._drop(opened)
        # While others write they find out for themselves, and waiting for them could take long.
        try:
            if process.try_turn(_WRITING, call):
                self._drop_lost(process)
        finally:
            process.end_turn(_WRITING, call)
        return None

    def _drop_lost(self, process: _Process) -> None:
        """Close all that have lost their files and are not in use; for who has the turn to write. All, before
        one is opened: SQLite would have the new one share what it knows of a log that is gone."""
        for place in (process.idle, process.writer):
            found = []
            while (opened := _popped(place)) is not None:
                found.append(opened)
            for opened in found:
                if opened.is_there():
                    self._keep(process, opened, place)
                else:
                    self._drop(opened)

    def _open(self, is_writer: bool) -> Opened:
        for _ in range(_OPEN_ATTEMPTS):
            # The same file before and after: then it is the one that SQLite has opened in between. Where
            # there was none, SQLite has created one, and opens it the next time.
            before = file_at(self._path)
            connection = connect(self._path, self._busy_timeout)
            try:
                if before is not None and is_file(self._path, before):
                    self._configure(connection, is_writer)
                    opened = Opened(connection, self._path, before)
                    self._notice(before)
                    return opened
            except sqlite3.Error as error:
                connection.close()
                raise named(error, self._path) from error.__cause__
            except BaseException:
                connection.close()
                raise
            connection.close()
        raise sqlite3.OperationalError(f"{self._path} is replaced again and again while it is opened")

    @contextlib.contextmanager
    def _used(self, process: _Process, opened: Opened, place: list[Opened]) -> Iterator[None]:
        """Put the connection in its place after the block, or close it when that has left it in doubt."""
        opened.connection.set_working()
        try:
            yield
        except BaseException as error:
            if opened.is_rolled_back(error):
                self._keep(process, opened, place)
            else:
                self._drop(opened)
            raise
        self._keep(process, opened, place)

    def _keep(self, process: _Process, opened: Opened, place: list[Opened]) -> None:
        if len(place) >= _IDLE_MAX:
            self._drop(opened)
            return
        opened.connection.set_idle(opened.file)
        place.append(opened)
        if process.is_closed() or _forks_here():
            self._close_unused(process)

    def _drop(self, opened: Opened) -> None:
        with contextlib.suppress(OSError):
            if opened.file == self._known.get("file") and not is_file(self._path, opened.file):
                self._known["file"] = _GONE  # another file may have its inode by the time it is looked at
        opened.close()

    def _notice(self, file: FileId) -> None:
        if self._known.pop("file", file) != file:
            self.notices.append(
                f"{self._path} was removed or replaced while it was open: the rows saved until then are "
                "not in the file that is there now; rows are saved into that one from here on"
            )
        self._known["file"] = file

    def _close_unused(self, process: _Process) -> None:
        while (opened := _popped(process.idle)) is not None:
            self._drop(opened)
        while (opened := _popped(process.writer)) is not None:
            if opened.is_there():
                self._finish(opened)
            self._drop(opened)

    # ---- fork --------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close all connections; calls of other threads have been told to wait. Where one does not end, its
        connection goes to the child, which then cannot use the file."""
        process = self._here()
        process.others_end(self._patience)
        self._close_unused(process)

    def has_call_of(self, thread: int) -> bool:
        return self._here().has_call_of(thread)

    def after_fork(self) -> None:
        """Let other threads go on."""
        self._here().ring()


def _popped(items: list[Item]) -> Item | None:
    """The last one, taken off; None where there is none."""
    try:
        return items.pop()
    except IndexError:
        return None


def _busy(text: str) -> sqlite3.OperationalError:
    """As SQLite raises where another process has the file for too long."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
    return error


# ---- hooks around fork, for all pools --------------------------------------------------------------

_pools: dict[int, weakref.ref[Connections]] = {}
_forks: dict[object, tuple[int, int]] = {}  # processes and threads that are between the two hooks


def _forks_here() -> bool:
    forks = _forks.copy()
    return bool(forks) and any(process == os.getpid() for process, _ in forks.values())


def _is_forking(call: Call) -> bool:
    """Whether another thread than that of this call does."""
    forks = _forks.copy()
    return bool(forks) and any(
        process == os.getpid() and thread != call.thread for process, thread in forks.values()
    )


def _is_first(fork: object, me: tuple[int, int]) -> bool:
    """Whether no other thread of this process has begun to fork before."""
    for other, forking in _forks.copy().items():
        if other is fork:
            return True
        if forking != me and forking[0] == me[0]:
            return False
    return True


def _all_pools() -> Iterator[Connections]:
    for reference in _pools.copy().values():
        pool = reference()
        if pool is not None:
            yield pool


def _before_fork() -> None:
    """Threads that fork do so one after the other, as they come: one of them closes files here."""
    me, fork = (os.getpid(), _thread.get_ident()), object()
    _forks[fork] = me
    deadline = time.monotonic() + _PATIENCE
    while not _is_first(fork, me) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    for pool in _all_pools():
        pool.before_fork()


def _after_fork_in_parent() -> None:
    me = os.getpid(), _thread.get_ident()
    for fork, forking in _forks.copy().items():
        if forking == me:
            _forks.pop(fork, None)  # all: an interrupt may have kept one from being taken off before
    for pool in _all_pools():
        pool.after_fork()


def _after_fork_in_child() -> None:
    """Everything else is found out by the number of the process: a fork made in C runs no hook, or this one.

    A dict of its own: without a GIL, the lock of the parent's may have been handed to one of its threads.
    """
    global _forks
    _forks = {}


# A fork takes locks of `logging` and of thread pools, and calls that it waits for here may need these. Hooks
# run in reverse order: those that take the locks have to be there before ours.
importlib.import_module("concurrent.futures.thread")
os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
