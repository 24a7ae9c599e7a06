"""One connection to an SQLite file, and the three files that it works on.

SQLite must neither use nor close a connection in a process that has not opened it. It notes the locks of a
process in its memory, which the child of a fork inherits, while the kernel gives the child none of them: it
would believe in locks that nobody holds. There is one such note for each file, not for each connection. So as
long as the parent's connections are there, the child must not open their files either:
https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_file_across_a_fork_

`Connections` closes all before a fork. But a fork made in C, as by uWSGI, runs no hook of Python's. So each
connection knows its process, and each opening of a file looks whether there is an inherited one.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import sqlite3
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slabcache.errors import RowsRejected

__all__ = ["FileId", "Opened", "OwnConnection", "connect", "file_at", "is_file", "named"]

_FOLDER_PATIENCE = 5.0  # seconds that one waits for another to remove a log
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# SQLite closes the files of a connection when its last statement is gone. Without the GIL an object that
# another thread has made goes when that thread gets to it, too late for a fork: so no statement outlives its
# call there.
_CACHED_STATEMENTS = 0 if sysconfig.get_config_var("Py_GIL_DISABLED") else 128

FileId = tuple[int, int]  # device, inode

# Of each open connection its process and its file, or None for the file while SQLite is at work: a fork at
# that moment may leave locks of SQLite's own taken in the child, those of all files among them.
_places: dict[object, tuple[int, FileId | None]] = {}


class OwnConnection(sqlite3.Connection):
    """A connection that only the process that opened it uses and closes."""

    texts: frozenset[str] = frozenset()  # columns of the table that hold text: see `Table.texts`

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._pid = os.getpid()
        self._file: FileId | None = None
        self._entry = object()
        self.set_working()
        super().__init__(*arguments, **options)

    def set_working(self) -> None:
        """SQLite is about to be at work on this connection."""
        _places[self._entry] = self._pid, None

    def set_idle(self, file: FileId) -> None:
        """Nobody uses this connection now; `file` is what it has opened."""
        _places[self._entry] = self._pid, file

    def is_inherited(self) -> bool:
        return self._pid != os.getpid()

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        if self._pid != os.getpid():
            raise _forked()
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        if self._pid != os.getpid():
            raise _forked()
        return super().executemany(*arguments)

    def close(self) -> None:
        if not self.is_inherited():
            super().close()
            _places.pop(self._entry, None)

    def __del__(
        self,
        # At the end of the interpreter the names of this module may be gone.
        getpid: Callable[[], int] = os.getpid,
        keep: Callable[[Any], object] = ctypes.pythonapi.Py_IncRef,
        as_argument: Callable[[Any], object] = ctypes.py_object,
        places: dict[object, Any] = _places,
    ) -> None:
        if self._pid == getpid():
            places.pop(self._entry, None)
        else:
            keep(as_argument(self))  # for ever: SQLite closes what goes


def connect(path: Path, busy_timeout: float) -> OwnConnection:
    """Open a file. ProgrammingError in the child of a fork that has inherited a connection to it."""
    me, file = os.getpid(), file_at(path)
    for pid, other in _places.copy().values():
        if pid != me and other in (None, file):
            raise _forked()
    try:
        return sqlite3.connect(
            path,
            timeout=busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
            factory=OwnConnection,
        )
    except sqlite3.Error as error:
        raise named(error, path) from None


def _forked() -> sqlite3.ProgrammingError:
    return sqlite3.ProgrammingError(
        "this process was forked while its parent had the SQLite file open, by C code that runs no hooks of "
        "Python's, as uWSGI does, or in the middle of a call. SQLite can use that file safely in no such "
        "process. Make the store after the fork (uWSGI: lazy-apps = true, or a function with @postfork), or "
        "close it before"
    )


def named(error: sqlite3.Error, path: Path) -> sqlite3.Error:
    """An error met in opening a file, with the name of that and, where it is known, what to do."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    hint = _hint(path) if code & 0xFF == sqlite3.SQLITE_CANTOPEN else ""
    told = type(error)(f"{path}: {error}{hint}")
    told.sqlite_errorcode = code
    told.sqlite_errorname = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    return told


def _hint(path: Path) -> str:
    folder = path.resolve().parent
    if not folder.is_dir():
        return f": there is no directory {folder}; create it"
    if path.is_dir():
        return ": it is a directory; name a file"
    return f": give this user the right to read and write the file, and to create files in {folder}"


class Opened:
    """A connection, and the files it works on."""

    def __init__(self, connection: OwnConnection, path: Path, file: FileId) -> None:
        self.connection = connection
        real = path.resolve()  # SQLite puts its other files beside the target of a link
        others = [real.with_name(real.name + end) for end in ("-wal", "-shm")]
        self.paths = (path, *others)  # the database, its write-ahead log, the index of that
        self.file = file  # at the first path
        self._files = (file, *map(file_at, others))

    @property
    def log(self) -> Path:
        """The write-ahead log."""
        return self.paths[1]

    def is_there(self) -> bool:
        """Whether the paths still lead to these files, as far as can be told."""
        try:
            return all(map(is_file, self.paths, self._files))
        except OSError:
            return False  # and opening them again raises what there is to raise

    def is_rolled_back(self, error: BaseException) -> bool:
        """Whether the connection is as good as before, after rolling back. One that met anything but a row it
        refuses or a lock of others is not trusted: it may hold on to a broken file."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if (
            not isinstance(error, (RowsRejected, sqlite3.IntegrityError, sqlite3.DataError))
            and code not in _LOCKED
        ):
            return False
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def close(self) -> None:
        """Close the connection; a failure to do so changes nothing."""
        if self.connection.is_inherited():
            return
        with contextlib.suppress(OSError, sqlite3.Error):
            if not self.is_there():
                self._save_log()
                if not is_file(self.paths[0], self.file):
                    self._remove_log()
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()

    def _save_log(self) -> None:
        """Copy the log into its database: it may have been the log alone that was removed, or the database
        may live on under another name."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _remove_log(self) -> None:
        """Remove the log and its index that a lost database has left behind. SQLite would take them for those
        of the file that has come instead, and damage that."""
        directory = os.open(self.log.parent, os.O_RDONLY)
        try:
            # Other processes do the same, and one may have opened the new file in the meantime. While a
            # removed file is open here, its inode is not given to another.
            _lock_folder(directory)
            for path, file in zip(self.paths[1:], self._files[1:], strict=True):
                if file is not None and is_file(path, file):
                    path.unlink()
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(directory, fcntl.LOCK_UN)  # a child of a fork may have the descriptor, too
            os.close(directory)


def _lock_folder(directory: int) -> None:
    """Not for ever: who has the lock may be a step of this thread's that a finalizer has interrupted, or a
    process that is stopped. Without the lock the log of a new file is at risk for the moment in which another
    process removes that of the old one, too."""
    deadline = time.monotonic() + _FOLDER_PATIENCE
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.01)
        except OSError:  # a file system without such locks
            return


def file_at(path: Path) -> FileId | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def is_file(path: Path, file: FileId | None) -> bool:
    return file_at(path) == file
