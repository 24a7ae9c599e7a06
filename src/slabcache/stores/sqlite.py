"""The store in an SQLite file: nothing to set up, and a table that a person can query."""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slabcache.arguments import seconds
from slabcache.errors import RowsRejected
from slabcache.stores.columns import Column, as_text
from slabcache.stores.sqlite_connections import Connections
from slabcache.stores.sqlite_log import Log
from slabcache.stores.sqlite_opened import OwnConnection
from slabcache.stores.sqlite_table import Table, TableDiffersError, folded
from slabcache.stores.table_store import TableStore

__all__ = ["SQLiteStore"]

Array = np.ndarray[Any, Any]

_BUSY_TIMEOUT_MAX = 2_000_000  # seconds; SQLite counts milliseconds in 32 bits
_LOG_PAUSE = 0.005  # seconds
_WRITE_ATTEMPTS = 10  # each fails only when the file has been replaced once more meanwhile

# A page is written whole however little of it has changed, so small rows want small pages.
_SMALL_ROW = 100  # bytes
_SMALL_ROW_PAGE = 1024  # bytes
_WRITER_CACHE = 64 << 20  # bytes of pages kept by the connection that writes, at most


class SQLiteStore(TableStore):
    """Rows in a table of an SQLite file, for `slabcache.WriteBehindCache`.

    Parameters
    ----------
    path
        The file; it is created where there is none, its directory is not. Beside it lie `-wal`, which grows
        to 160 to 200 MiB, and `-shm`, which belong to it: copy or move all three, and not while it is open.
    table
        Name of the table, created where there is none. `"main.t"` is `"t"`, as main is the schema of a file's
        tables; a name that has a dot goes in quotes of its own: `'"a.b"'`.
    key, value
        Dtypes as `SlabCache` takes them; each field is a column. One that is not structured is the column
        `key` or `value`.
    busy_timeout
        Seconds to wait for another process or thread that writes to the file, before
        `sqlite3.OperationalError`.

    Attributes
    ----------
    null_value
        What NULL in a column of the value is read as: a value of `value_dtype`, of which each column takes
        its field. Zeros at first; assign another before loading. In a column of floats NULL is NaN.

    A table may have been made by somebody else. Its columns need the names and the primary key of the dtypes,
    and declared types that leave all values as they are: BIGINT for integers, VARCHAR or TEXT for S<n>, which
    then stores text, DATETIME or BIGINT for times, as counts of units, REAL for floats, where -0.0 becomes
    0.0. Further columns are left alone; they must have a default or may be NULL. So a service that has added
    a field can be rolled back.

    Integers and booleans are columns of integers, and u8 one of signed integers: 2**63 and above appear as
    negative numbers, in two's complement. Times are their count of units. NaN is NULL. S<n> and V<n> are
    blobs, and so is a subarray: its elements, little-endian.

    What `save_many` and `delete_many` have done when they return survives a crash of the process, of the
    system, and a loss of power, as far as the disk keeps what it has confirmed (write-ahead log,
    `synchronous=FULL`): each is one transaction. Any thread and any process may use the same file at the same
    time; readers wait for nobody. While one reads in a transaction that it does not end, the log grows, and
    warnings say so; it is emptied by the first batch after that. `fork` waits for the calls under way and
    closes all connections; parent and child each open their own. A fork made in C, as by uWSGI, runs no such
    hook. If the file was open then, each call in the child raises `sqlite3.ProgrammingError`, since SQLite
    cannot use that file safely there: make the store after the fork.

    When the file is removed or replaced while it is open, that is logged as a warning, and calls go on with
    the file that is there, or a new one: a row is never acknowledged that went into a file without a name.

    Raises
    ------
    TypeError
        A dtype that no cache can have.
    ValueError
        A path, a name or a timeout that cannot be used, two columns of the same name, or a table that cannot
        hold the rows: it is left as it is, and so is its file.
    sqlite3.Error
        The file cannot be opened; the message has its path.

    >>> import tempfile, os
    >>> directory = tempfile.TemporaryDirectory()
    >>> path = os.path.join(directory.name, "states.db")
    >>> store = SQLiteStore(path, table="states", key="u8", value=[("seen", "u8"), ("mentions", "u4")])
    >>> store.save_many(np.array([7, 8], "u8"), np.array([(1001, 2), (1002, 0)], store.value_dtype))
    >>> values, found = store.load_many(np.array([8, 9, 7], "u8"))
    >>> values["seen"], found
    (array([1002,    0, 1001], dtype=uint64), array([ True, False,  True]))
    >>> store.close()
    >>> directory.cleanup()
    """

    _keeps_nan = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        table: str,
        key: npt.DTypeLike,
        value: npt.DTypeLike,
        busy_timeout: float = 5.0,
    ) -> None:
        super().__init__(key, value)
        self._table = Table(table, self._key, self._value)
        self._path = _absolute(path)
        busy_timeout = seconds("busy_timeout", busy_timeout, _BUSY_TIMEOUT_MAX)
        self._busy_timeout = busy_timeout
        self._log = Log(self._warn)
        self._connections = Connections(self._path, busy_timeout, self._configure, self._log.keep_small)
        try:
            with self._connections.writing():
                pass
        except TableDiffersError as error:
            # Later it is no ValueError, as the arguments were right.
            raise ValueError(str(error)) from None

    @property
    def identity(self) -> tuple[str, ...]:
        """What stores of the same table in the same file have in common."""
        return "sqlite", os.path.realpath(self._path), "main", folded(self._table.name)

    def load_many(self, keys: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """`(values, found)` for n keys, in their order; repeated keys are fine. Values not found are zero.

        All rows are from one moment: never one half of a batch that another thread or process saves.
        O(n log rows).

        Raises
        ------
        slabcache.RowsRejected
            Somebody else has written into a row what its dtype cannot hold; the message has the key.
        sqlite3.Error
            The file cannot be read at the moment.
        ClosedError
            The store is closed.
        """
        self._check(keys, "key")
        count = len(keys)
        values = np.zeros(count, self.value_dtype)
        found = np.zeros(count, np.bool_)
        order = _table_order(self._key, keys)
        rows = self._fetch(keys[order])
        if rows:
            positions, *columns = zip(*rows, strict=True)
            places = order[np.array(positions)]
            values[places] = self._decoded(keys[places].tolist(), columns)
            found[places] = True
        return values, found

    def save_many(self, keys: Array, values: Array) -> None:
        """Create or overwrite n rows, all or none; of a repeated key the last row stays. O(n log rows).

        Raises
        ------
        slabcache.RowsRejected
            The table has a constraint or trigger, added by somebody, that refuses a row.
        sqlite3.Error, OSError
            Anything else: a lock held for longer than `busy_timeout`, a full disk. Nothing is saved; the
            same call may succeed later.
        RuntimeError
            This thread is in the middle of saving, and a finalizer or signal handler saves as well.
        ClosedError
            The store is closed.
        """
        self._check(keys, "key")
        self._check(values, "value")
        if len(keys) != len(values):
            raise ValueError(f"{len(keys)} keys do not match {len(values)} values")
        order = _table_order(self._key, keys)
        parts = [(column, keys[order]) for column in self._key]
        parts += [(column, values[order]) for column in self._value]

        def upsert(connection: OwnConnection) -> None:
            rows = _driver_rows(parts, connection.texts)
            start = 0
            for size, statement in self._table.upserts(len(rows), _variables(connection)):
                connection.execute(statement, _joined(rows[start : start + size]))
                start += size

        self._write(upsert)

    def delete_many(self, keys: Array) -> None:
        """Delete those of n rows that there are, all or none. O(n log rows); raises as `save_many`."""
        self._check(keys, "key")
        order = _table_order(self._key, keys)
        parts = [(column, keys[order]) for column in self._key]

        def delete(connection: OwnConnection) -> None:
            connection.executemany(self._table.delete, _driver_rows(parts, connection.texts))

        self._write(delete)

    def close(self) -> None:
        """Close the file, when the calls under way have ended. Further calls raise `ClosedError`, but for
        this one."""
        self._connections.close()

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._connections.closed

    def _table_name(self) -> str:
        return f"table {self._table.name!r}"

    def _warn(self, text: str) -> None:
        self._connections.notices.append(text)

    def _configure(self, connection: OwnConnection, is_writer: bool) -> None:
        """Settings of a new connection, and the table. A table that differs leaves the file as it was."""
        connection.text_factory = _text
        is_there = self._table.check(connection)
        page = _SMALL_ROW_PAGE if self._table.row_size <= _SMALL_ROW else 4096
        connection.execute(f"PRAGMA page_size = {page}")  # of a file that is still empty
        self._keep_log(connection)
        connection.execute("PRAGMA synchronous = FULL")
        if is_writer:
            self._log.configure(connection)
            connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE // 1024}")
            # Pages as they were before a statement of many rows, lest it fails: not by way of a file.
            connection.execute("PRAGMA temp_store = MEMORY")
        if not is_there:
            self._table.create(connection)
        connection.texts = self._table.texts(connection)

    def _keep_log(self, connection: sqlite3.Connection) -> None:
        """Turn on the write-ahead log. Where two processes do so in a new file, SQLite lets neither wait, but
        raises at once."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(_LOG_PAUSE)
        if mode != "wal":
            raise sqlite3.OperationalError(f"SQLite cannot keep a write-ahead log here, but {mode!r}")

    def _fetch(self, keys: Array) -> list[tuple[Any, ...]]:
        """(position in `keys`, *value columns) of each row that there is."""
        found: list[tuple[Any, ...]] = []
        parts = [(column, keys) for column in self._key]
        with self._connections.reading() as opened:
            connection = opened.connection
            rows = _driver_rows(parts, connection.texts)
            connection.execute("BEGIN")
            start = 0
            for size, statement in self._table.selects(len(rows), _variables(connection)):
                piece = connection.execute(statement, _joined(rows[start : start + size])).fetchall()
                found += [(start + at, *values) for at, *values in piece] if start else piece
                start += size
            connection.execute("COMMIT")
        return found

    def _write(self, work: Callable[[OwnConnection], object]) -> None:
        """One transaction, in the file that is at the path after it."""
        for _ in range(_WRITE_ATTEMPTS):
            with self._connections.writing() as opened:
                connection = opened.connection
                connection.execute("BEGIN IMMEDIATE")
                try:
                    work(connection)
                    connection.execute("COMMIT")
                except (sqlite3.IntegrityError, sqlite3.DataError) as error:
                    # It is the rows' fault only if the table is still there, and they fit in it.
                    self._table.check(connection)
                    if not opened.is_there():
                        raise
                    raise RowsRejected(f"SQLite refuses a row: {error}") from error
                if opened.is_there():
                    self._log.keep_small(opened)
                    return
        raise sqlite3.OperationalError(
            f"the file {self._path} is replaced again and again while rows are saved"
        )


def _absolute(path: str | os.PathLike[str]) -> Path:
    """The path, whatever the working directory will be. An absolute one is no URI either."""
    text = os.fsdecode(path)
    if text in ("", ":memory:"):
        raise ValueError(
            f"path {text!r} stands for a database without a file, which nobody else can open; name a file"
        )
    if "\0" in text:
        raise ValueError(f"path {text!r} has a NUL character; name a file")
    return Path(text).absolute()


def _text(raw: bytes) -> str:
    """A value that is text. What is not even UTF-8 must not fail other rows."""
    return raw.decode(errors="surrogateescape")


def _table_order(columns: tuple[Column, ...], keys: Array) -> npt.NDArray[np.intp]:
    """Positions of the keys as the table has them, so that neighbours come from one page. Equal keys keep
    their order. V<n> is left out: numpy cannot sort it, and nothing depends on it."""
    parts = []
    for column in columns:
        part = column.field_of(keys)
        if column.kind == "unsigned64":
            parts.append(part.astype(column.dtype, copy=False).view("i8"))
        elif column.kind != "raw":
            parts.append(part)
    return np.lexsort(parts[::-1]) if parts else np.arange(len(keys))


def _variables(connection: sqlite3.Connection) -> int:
    """Parameters that a statement may have."""
    return connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)


def _joined(rows: list[tuple[Any, ...]]) -> list[Any]:
    return list(itertools.chain.from_iterable(rows))


def _driver_rows(parts: Iterable[tuple[Column, Array]], texts: frozenset[str]) -> list[tuple[Any, ...]]:
    """Rows of these columns, as the driver binds them; columns in `texts` as text."""
    lists = []
    for column, rows in parts:
        items = column.to_driver(rows)
        lists.append(list(map(as_text, items)) if column.name in texts else items)
    return list(zip(*lists, strict=True))
