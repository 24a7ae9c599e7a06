"""The table of a `SQLiteStore`: its statements, and whether the table that is there is the one it needs.

    CREATE TABLE "read_states" (
        "user_id" UNSIGNED BIGINT NOT NULL, "channel_id" UNSIGNED BIGINT NOT NULL,       -- the key
        "mention_count" INTEGER NOT NULL,                                                -- the value
        PRIMARY KEY ("user_id", "channel_id")
    ) WITHOUT ROWID

The declared types say more than SQLite itself asks for, so that a table written with one dtype is not read
with another that would make different values of the same bytes: u8 and u4, or milliseconds and seconds.

A column of floats has no declared type and may be NULL. A declared REAL would turn -0.0 into 0.0 on its way
to the disk; and NULL is how SQLite stores NaN.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import numpy as np

from slabcache.stores.columns import Column, quote

__all__ = ["Table", "TableDiffersError"]

_UNITS = {
    "Y": "YEARS",
    "M": "MONTHS",
    "W": "WEEKS",
    "D": "DAYS",
    "h": "HOURS",
    "m": "MINUTES",
    "s": "SECONDS",
    "ms": "MILLISECONDS",
    "us": "MICROSECONDS",
    "ns": "NANOSECONDS",
    "ps": "PICOSECONDS",
    "fs": "FEMTOSECONDS",
    "as": "ATTOSECONDS",
}

# Rows of one statement, at most. A power of two: see `Table._pieces`.
_STATEMENT_ROWS = 256

#: (rows, statement) for one part of a call after the other.
Pieces = Iterator[tuple[int, str]]


class TableDiffersError(sqlite3.ProgrammingError):
    """There is a table of that name, and it has other columns."""


class Table:
    """Statements for one table; for any thread."""

    def __init__(self, name: str, key: tuple[Column, ...], value: tuple[Column, ...]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"table must be a name, a str, not {type(name).__name__}")
        if name.lower().startswith("sqlite_"):
            raise ValueError(f"table {name!r}: SQLite keeps names in sqlite_ for itself; use another")
        self.name = name
        self.key = key
        self.value = value
        # The schema is named as well: a common table expression of a statement may have the table's name.
        self._place = f"main.{quote(name)}"
        names = [quote(column.name) for column in key + value]
        keys = names[: len(key)]
        definitions = ", ".join(map(_definition, key + value))
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[len(key) :])
        self.create = f"({definitions}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID"
        # The alias keeps a table called "excluded" apart from the rows that SQLite calls so.
        self._insert = f"INSERT INTO {self._place} AS t ({', '.join(names)}) VALUES"
        self._on_conflict = f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
        self._texts: dict[tuple[str, int], str] = {}  # of statements, by what they do and their rows
        # Columns are named with their table: SQLite takes a quoted name it does not know for a string. One
        # row at a time: where (k0, k1) IN (VALUES ...) is asked for, it reads the whole table.
        matches = " AND ".join(f"t.{name} = ?" for name in keys)
        self.delete = f"DELETE FROM {self._place} AS t WHERE {matches}"

    @property
    def row_size(self) -> int:
        """Bytes of a row, roughly."""
        return sum(column.dtype.itemsize for column in self.key + self.value)

    def selects(self, count: int, variables: int) -> Pieces:
        """Statements that give (number of the row, *value columns) of those of `count` rows that there are.

        They take at most `variables` parameters each: here the key columns, row by row.
        """
        return self._pieces("select", self._select, len(self.key), count, variables)

    def upserts(self, count: int, variables: int) -> Pieces:
        """Statements that create or overwrite `count` rows, from the columns of key and value, row by row."""
        return self._pieces("upsert", self._upsert, len(self.key + self.value), count, variables)

    def _pieces(
        self, what: str, make: Callable[[int], str], columns: int, count: int, variables: int
    ) -> Pieces:
        """Pieces are powers of two: few statements, which a connection keeps compiled. Many rows in each: the
        driver lets the GIL go at each step of a statement, and beside a busy thread waits 5 ms to get it
        back."""
        size = _STATEMENT_ROWS
        while size > 1 and size * columns > variables:
            size //= 2
        while count:
            while size > count:
                size //= 2
            if (what, size) not in self._texts:
                self._texts[what, size] = make(size)
            yield size, self._texts[what, size]
            count -= size

    def _upsert(self, size: int) -> str:
        return f"{self._insert} {_marks(size, len(self.key + self.value))} {self._on_conflict}"

    def _select(self, size: int) -> str:
        marks = ", ?" * len(self.key)
        asked = ", ".join(f"({row}{marks})" for row in range(size))
        numbers = range(len(self.key))
        values = ", ".join(f"t.{quote(column.name)}" for column in self.value)
        matches = " AND ".join(f"t.{quote(self.key[at].name)} = asked.k{at}" for at in numbers)
        # CROSS JOIN keeps SQLite to this order: each row asked for is then looked up by the primary key.
        return (
            f"WITH asked(at, {', '.join(f'k{at}' for at in numbers)}) AS (VALUES {asked}) "
            f"SELECT asked.at, {values} FROM asked CROSS JOIN {self._place} AS t ON {matches}"
        )

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Create the table where there is none of that name.

        Raises
        ------
        TableDiffersError
            There is one, and its columns, their types or its primary key are others.
        """
        columns = self._columns_there(connection)
        if not columns:
            # Another process may create it at the same moment, from another definition.
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._place} {self.create}")
            columns = self._columns_there(connection)
        differences = list(self._differences(columns))
        if differences:
            raise TableDiffersError(
                f"table {self.name!r} differs from the key and value dtypes: {'; '.join(differences)}. "
                f"Name another table, or move its rows into one created as {self.create}"
            )

    def _columns_there(self, connection: sqlite3.Connection) -> dict[str, tuple[str, str, int]]:
        """Name, declared type and place in the primary key (0 for none) of each column, by folded name."""
        found = connection.execute(
            "SELECT name, type, pk FROM pragma_table_xinfo(?) WHERE schema = 'main'", (self.name,)
        )
        return {name.lower(): (name, declared, place) for name, declared, place in found}

    def _differences(self, there: dict[str, tuple[str, str, int]]) -> Iterator[str]:
        wanted = {column.name.lower(): column for column in self.key + self.value}
        for folded, column in wanted.items():
            if folded not in there:
                yield f"column {column.name!r} is missing"
            elif there[folded][1].upper() != _type_of(column):
                is_type, needed = there[folded][1] or "none", _type_of(column) or "none"
                yield f"column {column.name!r} has the declared type {is_type}, not {needed}"
        for folded, (name, _, _) in there.items():
            if folded not in wanted:
                yield f"column {name!r} is not in the dtypes"
        places = sorted((place, folded) for folded, (_, _, place) in there.items() if place)
        primary = [there[folded][0] for _, folded in places]
        keys = [column.name for column in self.key]
        if [name.lower() for name in primary] != [name.lower() for name in keys]:
            yield f"the primary key is ({', '.join(primary)}), not ({', '.join(keys)})"


def _marks(rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)


def _definition(column: Column) -> str:
    nullable = "" if column.kind == "float" else "NOT NULL"
    return " ".join(filter(None, (quote(column.name), _type_of(column), nullable)))


def _type_of(column: Column) -> str:
    """The declared type. SQLite makes an affinity of the words in it: INT, BLOB or, for BOOLEAN, numeric."""
    match column.kind:
        case "integer":
            return "INTEGER"
        case "unsigned64":
            return "UNSIGNED BIGINT"
        case "float":
            return ""
        case "bool":
            return "BOOLEAN"
        case "text" | "raw":
            return "BLOB"
        case "time":
            since = " SINCE EPOCH" if column.dtype.kind == "M" else ""
            unit, step = np.datetime_data(column.dtype)
            return f"INTEGER {_UNITS[unit]}{since}" + (f"({step})" if step > 1 else "")
        case "array":
            base, shape = column.dtype.base, "X".join(map(str, column.dtype.shape))
            element = f"{base.kind}{base.itemsize}"
            if base.kind in "Mm":
                unit, step = np.datetime_data(base)
                # By words, as the case of a declared type says nothing.
                element = f"{'TIME' if base.kind == 'M' else 'DURATION'}_{step}_{_UNITS[unit]}"
            return f"BLOB_{shape}_OF_{element}".upper()
