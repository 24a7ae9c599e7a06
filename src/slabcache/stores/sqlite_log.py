"""The write-ahead log of an SQLite file: how large it may become, and what is done when it does.

A transaction is appended to the log, which `save_many` copies into the database whenever it has reached
`LOG_SIZE`; then it is written from the start again. SQLite can do neither past a transaction that somebody
still reads in: as long as another process keeps one open, the log grows, and nothing but the end of that
transaction helps. So that is said in a warning, each time that the size has doubled; and when the reader has
gone, the log is cut off as a whole, since SQLite itself would keep a file of that size.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable

from slabcache.stores.sqlite_opened import Opened

__all__ = ["Log"]

# Each time the log is copied into the table, every page that it has is written there once more, however
# often the log has it: the longer the log, the fewer writes. Reads have to search it.
LOG_SIZE = 160 << 20  # bytes
_TOO_LARGE = LOG_SIZE * 5 // 4  # bytes; the last transaction before it is copied makes it that large


class Log:
    """The log of one file, for the connection that writes; `warn` is given what there is to say of it."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._next_warning = 2 * LOG_SIZE  # bytes

    @staticmethod
    def configure(connection: sqlite3.Connection) -> None:
        """Have SQLite copy the log into the database when it is long enough."""
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_SIZE // page}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")  # of a log that is begun again

    def keep_small(self, opened: Opened) -> None:
        """Empty the log if it has become too large, without a wait; called between transactions."""
        # What has been saved stays saved, whatever happens here.
        with contextlib.suppress(OSError, sqlite3.Error):
            size = opened.log.stat().st_size
            if size <= _TOO_LARGE or _emptied(opened.connection):
                self._next_warning = 2 * LOG_SIZE
            elif size >= self._next_warning:
                self._next_warning = 2 * size
                self._warn(
                    f"{opened.log} has grown to {size >> 20} MiB, and grows on: another process reads in a "
                    "transaction that it does not end, such as a shell, a backup or a notebook (lsof names "
                    "all that have the file open). When it has ended, the next batch empties the log"
                )


def _emptied(connection: sqlite3.Connection) -> bool:
    """Copy the log into the database and cut it off; False where a reader is in the way."""
    (timeout,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout}")
    return not is_busy
