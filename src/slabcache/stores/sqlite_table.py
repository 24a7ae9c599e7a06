"""The table of a `SQLiteStore`: its statements, and whether the table that is there can hold the rows.

    CREATE TABLE main."read_states" (
        "user_id" UNSIGNED BIGINT NOT NULL, "channel_id" UNSIGNED BIGINT NOT NULL,       -- the key
        "mention_count" INTEGER NOT NULL,                                                -- the value
        PRIMARY KEY ("user_id", "channel_id")
    ) WITHOUT ROWID

The declared types say more than SQLite itself asks for, so that a table written with one dtype is not read
with another that would make different values of the same bytes: u8 and u4, or milliseconds and seconds. A
type that is declared here means what it means here. Any other was declared by somebody else, who is taken to
know what is in the column; it must have an affinity (https://sqlite.org/datatype3.html) that leaves all
values of the field as they are:

    field                       affinity
    integers, bool, times       INTEGER, NUMERIC
    floats                      REAL, NUMERIC: both turn -0.0 into 0.0, and all else survives
    S<n>                        TEXT, BLOB: where it is TEXT, what is UTF-8 is stored as text
    V<n>, subarrays             BLOB

A column of floats that is declared here has no type and may be NULL. A declared REAL would turn -0.0 into 0.0
on its way to the disk; and NULL is how SQLite stores NaN.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from slabcache.stores.columns import Column, ColumnKind, quote

__all__ = ["Table", "TableDiffersError", "folded"]

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

# Types that are declared here, each for one kind of field, and the affinities that leave its values alone.
_DECLARED_HERE = re.compile(
    rf"(UNSIGNED BIGINT|BOOLEAN|BLOB(_[0-9X]+_OF_\w+)?|INTEGER( ({'|'.join(_UNITS.values())})"
    r"( SINCE EPOCH)?(\([0-9]+\))?)?)?"
)
_AFFINITIES: dict[ColumnKind, tuple[str, ...]] = {
    "integer": ("INTEGER", "NUMERIC"),
    "unsigned64": ("INTEGER", "NUMERIC"),
    "bool": ("INTEGER", "NUMERIC"),
    "time": ("INTEGER", "NUMERIC"),
    "float": ("REAL", "NUMERIC"),
    "text": ("TEXT", "BLOB"),
    "raw": ("BLOB",),
    "array": ("BLOB",),
}

#: (rows, statement) for one part of a call after the other.
Pieces = Iterator[tuple[int, str]]


class TableDiffersError(sqlite3.ProgrammingError):
    """There is a table of that name, and it cannot hold the rows."""


class _Found(NamedTuple):
    """A column of a table that is there."""

    name: str
    declared: str  # type
    place: int  # in the primary key, from 1; 0 for none
    is_generated: bool
    fills_itself: bool  # it may be NULL, has a default or is generated


class Table:
    """Statements for one table; for any thread."""

    def __init__(self, name: str, key: tuple[Column, ...], value: tuple[Column, ...]) -> None:
        self.name = _name_in_main(name)
        self.key = key
        self.value = value
        # The schema is named as well: a common table expression of a statement may have the table's name.
        self._place = f"main.{quote(self.name)}"
        names = [quote(column.name) for column in key + value]
        keys = names[: len(key)]
        definitions = ", ".join(map(_definition, key + value))
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[len(key) :])
        self.definition = f"({definitions}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID"
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

    def check(self, connection: sqlite3.Connection) -> bool:
        """Whether the table is there. Nothing is written.

        Raises
        ------
        TableDiffersError
            It is, and cannot hold the rows.
        """
        columns = self._columns_there(connection)
        differences = list(self._differences(columns, self._collations(connection))) if columns else []
        if differences:
            raise TableDiffersError(
                f"table {self.name!r} differs from the key and value dtypes: {'; '.join(differences)}. "
                f"Name another table, or move its rows into one created as {self.definition}"
            )
        return bool(columns)

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the table where it is not there. Raises as `check`: another process may create it at the
        same moment, from another definition."""
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self._place} {self.definition}")
        self.check(connection)

    def texts(self, connection: sqlite3.Connection) -> frozenset[str]:
        """The columns that hold text rather than bytes."""
        there = self._columns_there(connection)
        columns = (column for column in self.key + self.value if column.kind == "text")
        return frozenset(
            column.name for column in columns if _affinity(there[folded(column.name)].declared) == "TEXT"
        )

    def _columns_there(self, connection: sqlite3.Connection) -> dict[str, _Found]:
        """The columns of the table, by folded name."""
        found = connection.execute(
            "SELECT name, type, pk, hidden > 1, "
            "hidden > 1 OR NOT \"notnull\" OR upper(coalesce(dflt_value, 'NULL')) != 'NULL' "
            "FROM pragma_table_xinfo(?) WHERE schema = 'main'",
            (self.name,),
        )
        return {folded(row[0]): _Found(*row) for row in found}

    def _collations(self, connection: sqlite3.Connection) -> dict[str, str]:
        """The collation of each column of the primary key, by folded name."""
        found = connection.execute(
            "SELECT part.name, part.coll "
            "FROM pragma_index_list(?) AS list, pragma_index_xinfo(list.name) AS part "
            "WHERE list.schema = 'main' AND part.schema = 'main' AND list.origin = 'pk' AND part.key",
            (self.name,),
        )
        return {folded(name): collation for name, collation in found}

    def _differences(self, there: dict[str, _Found], collations: dict[str, str]) -> Iterator[str]:
        wanted = {folded(column.name): column for column in self.key + self.value}
        for name, column in wanted.items():
            if name not in there:
                yield f"column {column.name!r} is missing{self._how_to_add(column)}"
            elif not _is_compatible(column, there[name].declared):
                is_type, needed = there[name].declared or "none", _type_of(column) or "none"
                yield f"column {column.name!r} has the declared type {is_type}, not {needed}"
            elif there[name].is_generated:
                yield f"column {column.name!r} is generated, and cannot be written"
            elif column.kind == "text" and collations.get(name, "BINARY") != "BINARY":
                yield f"column {column.name!r} has the collation {collations[name]}, which equates keys"
        for name, found in there.items():
            if name not in wanted and not found.fills_itself:
                yield f"column {found.name!r} is not in the dtypes, may not be NULL and has no default"
        primary = [found.name for found in sorted(there.values(), key=lambda it: it.place) if found.place]
        keys = [column.name for column in self.key]
        if list(map(folded, primary)) != list(map(folded, keys)):
            yield f"the primary key is ({', '.join(primary)}), not ({', '.join(keys)})"

    def _how_to_add(self, column: Column) -> str:
        if column in self.key:
            return ""
        definition = f"{quote(column.name)} {_type_of(column)}".strip()
        return f" (ALTER TABLE {self._place} ADD COLUMN {definition} adds it)"


def folded(name: str) -> str:
    """The name as SQLite compares names: it ignores the case of ASCII alone.

    >>> folded("Größe") == folded("GRößE"), folded("GRÖßE") == folded("größe")
    (True, False)
    """
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def _name_in_main(table: str) -> str:
    """The name of a table in the schema `main`, the only one there is in a file, of how it was named."""
    if not isinstance(table, str):
        raise TypeError(f"table must be a name, a str, not {type(table).__name__}")
    name = table[5:] if folded(table[:5]) == "main." else table
    if re.fullmatch(r'"([^"]|"")+"', name, re.DOTALL):
        name = name[1:-1].replace('""', '"')
    elif "." in name:
        raise ValueError(
            f"table {table!r}: a dot ends the name of a schema, and the only one here is main; where a dot "
            f"is part of the table's name, put it in quotes: table={quote(name)!r}"
        )
    if folded(name).startswith("sqlite_"):
        raise ValueError(f"table {table!r}: SQLite keeps names in sqlite_ for itself; use another")
    return name


def _marks(rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)


def _definition(column: Column) -> str:
    nullable = "" if column.kind == "float" else "NOT NULL"
    return " ".join(filter(None, (quote(column.name), _type_of(column), nullable)))


def _is_compatible(column: Column, declared: str) -> bool:
    """Whether a column of this declared type gives back all values of the field as they were."""
    declared = " ".join(declared.upper().split())
    if _DECLARED_HERE.fullmatch(declared):
        return declared == _type_of(column)
    return _affinity(declared) in _AFFINITIES[column.kind]


def _affinity(declared: str) -> str:
    """What SQLite makes of a declared type, by its own rules."""
    declared = declared.upper()
    if "INT" in declared:
        return "INTEGER"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in declared or not declared:
        return "BLOB"
    return "REAL" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


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
