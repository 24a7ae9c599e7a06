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

FileId = tuple[int, int]  # device, inode


class Opened(NamedTuple):
    """A connection, and the files it works on."""

    connection: sqlite3.Connection
    paths: tuple[Path, ...]  # the database, its write-ahead log, the index of that
    files: tuple[FileId | None, ...]  # of these paths

    def is_there(self) -> bool:
        """Whether the paths still lead to these files."""
        return all(map(_is_file, self.paths, self.files))


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
            with _returned(opened, self._keep_idle):
                yield opened

    @contextlib.contextmanager
    def writing(self) -> Iterator[Opened]:
        """The connection for writing, to the file that is there; for one thread at a time."""
        with self._call(), self._writing:
            opened, self._writer = self._writer, None
            if opened is not None and not opened.is_there():
                _retire(opened)
                opened = None
            opened = opened or self._open(is_writer=True)
            with _returned(opened, self._keep_writer):
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
        while True:
            with self._changed:
                if not self._idle:
                    return None
                opened = self._idle.pop()
            if opened.is_there():
                return opened
            _retire(opened)

    def _keep_idle(self, opened: Opened) -> None:
        with self._changed:
            if len(self._idle) < _IDLE_MAX:
                self._idle.append(opened)
                return
        _retire(opened)

    def _keep_writer(self, opened: Opened) -> None:
        self._writer = opened

    def _open(self, is_writer: bool) -> Opened:
        for _ in range(_OPEN_ATTEMPTS):
            # The same file before and after: then it is the one that SQLite has opened in between. A file
            # that SQLite has just created is opened once more.
            before = _file_at(self._path)
            connection = sqlite3.connect(
                self._path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
            )
            try:
                self._configure(connection, is_writer)
                real = self._path.resolve()  # SQLite puts its other files beside the target of a link
                paths = (self._path, *(real.with_name(real.name + end) for end in ("-wal", "-shm")))
                files = tuple(map(_file_at, paths))
                if before is not None and files[0] == before:
                    self._notice(before)
                    return Opened(connection, paths, files)
            except BaseException:
                connection.close()
                raise
            connection.close()
        raise sqlite3.OperationalError(f"{self._path} is replaced again and again while it is opened")

    def _notice(self, file: FileId) -> None:
        with self._changed:
            if self._known not in (None, file):
                self._notices.append(
                    f"{self._path} was removed or replaced while it was open: the rows saved until then are "
                    "not in the file that is there now; rows are saved into that one from here on"
                )
            self._known = file

    def _close_all(self) -> None:
        while self._idle:
            _retire(self._idle.pop())
        if self._writer is not None:
            _retire(self._writer)
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


@contextlib.contextmanager
def _returned(opened: Opened, keep: Callable[[Opened], None]) -> Iterator[None]:
    """`keep` the connection after the block, or close it when the block has left it in doubt."""
    try:
        yield
    except BaseException as error:
        if _is_rolled_back(opened.connection, error):
            keep(opened)
        else:
            _retire(opened)
        raise
    keep(opened)


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
        if not _is_file(opened.paths[0], opened.files[0]):
            _leave_lost_file(opened)
    with contextlib.suppress(sqlite3.Error):
        opened.connection.close()


def _leave_lost_file(opened: Opened) -> None:
    """Remove the log and the index of a database that is no longer at its path.

    SQLite leaves them there, and would take them for those of the file that has come instead, which they
    would damage. The log is first copied into its database, which may live on under another name.
    """
    with contextlib.suppress(sqlite3.Error):
        if opened.connection.in_transaction:
            opened.connection.execute("ROLLBACK")
        opened.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    directory = os.open(opened.paths[1].parent, os.O_RDONLY)
    try:
        # Other processes do the same, and one may have opened the new file in the meantime. While it is
        # open here, the inode of a removed file is not given to another.
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
