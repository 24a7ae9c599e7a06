"""Connections to one SQLite file: taken, given back, opened again after trouble.

Three things that SQLite leaves to its caller are settled here.

1. The file is removed or replaced while it is open. SQLite would go on with the file it has opened, which
   nobody will ever find again. Each connection knows the device and inode of the three files it works on, and
   is used only while they are those that the path leads to.
2. `fork`. SQLite notes the locks of a process in its memory, which a child inherits, while the kernel gives
   a child none of them: one that opened a file its parent has open would believe in locks that nobody holds.
   So all connections are closed before the fork, when the calls under way have ended, and opened again by
   those who need them.
3. A failed call. Its transaction is rolled back; a connection that may be broken is closed.

No file of a database is ever opened here other than by SQLite: the kernel drops all of a process's locks on a
file when the process closes any descriptor of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import sysconfig
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from slabcache.errors import ClosedError

__all__ = ["Connections", "Opened"]

_log = logging.getLogger("slabcache.stores.sqlite")

_IDLE_MAX = 8  # connections kept for readers; more are opened while more threads read at the same time
_OPEN_ATTEMPTS = 10  # each fails only when the file has been replaced once more meanwhile
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# SQLite closes the files of a connection when its last statement is gone. Without the GIL an object that
# another thread has made goes when that thread gets to it, too late for a fork: so no statement outlives its
# call there.
_CACHED_STATEMENTS = 0 if sysconfig.get_config_var("Py_GIL_DISABLED") else 128

FileId = tuple[int, int]  # device, inode


class Opened(NamedTuple):
    """A connection, and the files it works on."""

    connection: sqlite3.Connection
    paths: tuple[Path, ...]  # the database, its write-ahead log, the index of that
    files: tuple[FileId | None, ...]  # of these paths

    def is_there(self) -> bool:
        """Whether the paths still lead to these files, as far as can be told."""
        try:
            return all(map(_is_file, self.paths, self.files))
        except OSError:
            return False  # and opening them again raises what there is to raise


class Connections:
    """One connection for writing, any number for reading; all calls from any thread.

    `configure(connection, is_writer)` is called with each new connection and may raise.
    """

    def __init__(
        self, path: Path, busy_timeout: float, configure: Callable[[sqlite3.Connection, bool], None]
    ) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._configure = configure
        self._known: FileId | None = None  # the database file opened last
        self._lost = False  # it was found to be gone; another may have its inode by now
        self._idle: list[Opened] = []
        self._writer: Opened | None = None
        self._closed = False
        self._notices: list[str] = []  # to be logged when no fork waits for us
        self._reset_locks()
        with _fork_lock:
            _pools.add(self)

    def _reset_locks(self) -> None:
        self._writing = threading.Lock()  # held while the writer is used
        self._changed = threading.Condition()  # guards all fields but `_writer`
        self._users: list[int] = []  # threads inside a call; a signal handler can make it one thread twice
        self._forking: int | None = None  # the thread that forks; others wait

    # ---- calls -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[Opened]:
        """A connection of the caller's own, to the file that is there."""
        with self._call():
            opened = self._take_idle() or self._open(is_writer=False)
            with self._returned(opened, self._keep_idle):
                yield opened

    @contextlib.contextmanager
    def writing(self) -> Iterator[Opened]:
        """The connection for writing, to the file that is there; for one thread at a time."""
        with self._call(), self._writing:
            if self._writer is not None and not self._writer.is_there():
                self._retire_lost()
            opened, self._writer = self._writer or self._open(is_writer=True), None
            with self._returned(opened, self._keep_writer):
                yield opened

    def close(self) -> None:
        """Close all connections, when the calls under way have ended. More calls raise `ClosedError`."""
        with self._changed:
            self._closed = True
            self._await_others()
            self._close_all()

    def __del__(self) -> None:
        if self._idle or self._writer:
            self._close_all()
            warnings.warn(f"unclosed SQLiteStore of {self._path}", ResourceWarning, source=self, stacklevel=2)

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """What `close` and a fork wait for."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._forking in (None, me))
            if self._closed:
                raise ClosedError(f"the store of {self._path} is closed")
            self._users.append(me)
        try:
            yield
        finally:
            with self._changed:
                self._users.remove(me)
                self._changed.notify_all()
                notices, self._notices = self._notices, []
            for notice in notices:
                _log.warning(notice)

    def _await_others(self) -> None:
        me = threading.get_ident()
        self._changed.wait_for(lambda: all(user == me for user in self._users))

    # ---- connections -------------------------------------------------------------------------------

    def _take_idle(self) -> Opened | None:
        with self._changed:
            opened = self._idle.pop() if self._idle else None
        if opened is None or opened.is_there():
            return opened
        self._drop(opened)
        # While others write they find out for themselves, and waiting for them could take long.
        if self._writing.acquire(blocking=False):
            try:
                self._retire_lost()
            finally:
                self._writing.release()
        return None

    def _retire_lost(self) -> None:
        """Close all that have lost their files and are not in use; with `_writing` held. All, before one is
        opened: SQLite would have the new one share what it knows of a log that is gone."""
        with self._changed:
            idle, self._idle = self._idle, []
        for opened in idle:
            if opened.is_there():
                self._keep_idle(opened)
            else:
                self._drop(opened)
        if self._writer is not None and not self._writer.is_there():
            self._drop(self._writer)
            self._writer = None

    def _keep_idle(self, opened: Opened) -> None:
        with self._changed:
            if len(self._idle) < _IDLE_MAX:
                self._idle.append(opened)
                return
        self._drop(opened)

    def _keep_writer(self, opened: Opened) -> None:
        self._writer = opened

    def _open(self, is_writer: bool) -> Opened:
        for _ in range(_OPEN_ATTEMPTS):
            # The same file before and after: then it is the one that SQLite has opened in between. Where
            # there was none, SQLite has created one, and opens it the next time.
            before = _file_at(self._path)
            connection = sqlite3.connect(
                self._path,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_CACHED_STATEMENTS,
            )
            try:
                if before is not None and _is_file(self._path, before):
                    self._configure(connection, is_writer)
                    real = self._path.resolve()  # SQLite puts its other files beside the target of a link
                    others = tuple(real.with_name(real.name + end) for end in ("-wal", "-shm"))
                    self._notice(before)
                    return Opened(connection, (self._path, *others), (before, *map(_file_at, others)))
            except BaseException:
                connection.close()
                raise
            connection.close()
        raise sqlite3.OperationalError(f"{self._path} is replaced again and again while it is opened")

    @contextlib.contextmanager
    def _returned(self, opened: Opened, keep: Callable[[Opened], None]) -> Iterator[None]:
        """`keep` the connection after the block, or close it when the block has left it in doubt."""
        try:
            yield
        except BaseException as error:
            if _is_rolled_back(opened.connection, error):
                keep(opened)
            else:
                self._drop(opened)
            raise
        keep(opened)

    def _drop(self, opened: Opened) -> None:
        with self._changed, contextlib.suppress(OSError):
            if opened.files[0] == self._known and not _is_file(opened.paths[0], self._known):
                self._lost = True
        _retire(opened)

    def _notice(self, file: FileId) -> None:
        with self._changed:
            if self._lost or self._known not in (None, file):
                self._notices.append(
                    f"{self._path} was removed or replaced while it was open: the rows saved until then are "
                    "not in the file that is there now; rows are saved into that one from here on"
                )
            self._known, self._lost = file, False

    def _close_all(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())
        if self._writer is not None:
            self._drop(self._writer)
            self._writer = None

    # ---- fork --------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close all connections and let no other thread open one."""
        with self._changed:
            self._forking = threading.get_ident()
            self._await_others()
            self._close_all()

    def after_fork_in_parent(self) -> None:
        """Let other threads go on."""
        with self._changed:
            self._forking = None
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """The threads that wait for these locks are not here."""
        self._reset_locks()


# ---- one connection --------------------------------------------------------------------------------


def _is_rolled_back(connection: sqlite3.Connection, error: BaseException) -> bool:
    """Whether the connection is as good as before, after rolling back. One that met anything but a row it
    refuses or a lock of others is not trusted: it may hold on to a broken file."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if not isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)) and code not in _LOCKED:
        return False
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True


def _retire(opened: Opened) -> None:
    """Close a connection; a failure to do so changes nothing."""
    with contextlib.suppress(OSError, sqlite3.Error):
        if not opened.is_there():
            _save_log(opened.connection)
            if not _is_file(opened.paths[0], opened.files[0]):
                _remove_log(opened)
    with contextlib.suppress(sqlite3.Error):
        opened.connection.close()


def _save_log(connection: sqlite3.Connection) -> None:
    """Copy the log into its database: it may have been the log alone that was removed, or the database may
    live on under another name."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _remove_log(opened: Opened) -> None:
    """Remove the log and its index that a lost database has left behind. SQLite would take them for those of
    the file that has come instead, and damage that."""
    directory = os.open(opened.paths[1].parent, os.O_RDONLY)
    try:
        # Other processes do the same, and one may have opened the new file in the meantime. While a removed
        # file is open here, its inode is not given to another.
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_EX)
        for path, file in zip(opened.paths[1:], opened.files[1:], strict=True):
            if file is not None and _is_file(path, file):
                path.unlink()
    finally:
        os.close(directory)


def _file_at(path: Path) -> FileId | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _is_file(path: Path, file: FileId | None) -> bool:
    return _file_at(path) == file


# ---- hooks around fork, for all pools --------------------------------------------------------------

_pools: weakref.WeakSet[Connections] = weakref.WeakSet()
_fork_lock = threading.RLock()  # held from before a fork until after it: one fork at a time, no new pool


def _before_fork() -> None:
    _fork_lock.acquire()
    for pool in list(_pools):
        pool.before_fork()


def _after_fork_in_parent() -> None:
    for pool in list(_pools):
        pool.after_fork_in_parent()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    global _fork_lock
    _fork_lock = threading.RLock()
    for pool in list(_pools):
        pool.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
