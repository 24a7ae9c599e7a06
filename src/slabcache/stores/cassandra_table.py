"""The CQL of a table that holds rows of fixed types: its columns, its statements, and whether it fits.

The first field of the key is the partition key, its other fields are clustering columns, and each field of
the value is a column. The types are those that hold every value of a field:

    field                        type
    i1, i2, i4, i8               tinyint, smallint, int, bigint
    u1, u2, u4                   smallint, int, bigint
    u8                           bigint, in two's complement
    f2 and f4, f8                float, double
    bool                         boolean
    datetime64, timedelta64      bigint, the count of units
    S<n>, V<n>, subarrays        blob

What a type does not tell, a number in two's complement, the unit of a time and the elements of a subarray, is
noted in the comment of a table that is created: {"slabcache": {"user": "u8", "n": "integer", "at": "M8[s]"}}.

Nothing here needs the driver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from slabcache.arguments import whole
from slabcache.stores.columns import Column, quote

__all__ = ["ColumnFound", "Table", "check_name", "check_replication", "keyspace_cql"]

_INTEGERS = {
    "i1": "tinyint",
    "i2": "smallint",
    "i4": "int",
    "i8": "bigint",
    "u1": "smallint",
    "u2": "int",
    "u4": "bigint",
}
_OTHERS = {
    "unsigned64": "bigint",
    "bool": "boolean",
    "time": "bigint",
    "text": "blob",
    "raw": "blob",
    "array": "blob",
}
# Servers count the data, and time stamps and flags of each cell. Cassandra takes large batches where all is
# of one partition; older ones and its relatives warn above 5 KiB, and refuse above 50.
_BATCH_BYTES_MAX = 4096
_CELL_BYTES = 24
_BATCH_ROWS_MAX = 100


class ColumnFound(NamedTuple):
    """A column of a table that is there, as `system_schema.columns` tells it."""

    name: str
    type: str
    kind: str  # partition_key, clustering, regular or static
    position: int  # within the partition key or the clustering columns; -1 for others


class Table(NamedTuple):
    """A table by its names and columns; each property is the text of one statement.

    Parameters of `insert`: key, value, time stamp; of `delete`: time stamp, key; of `select_one`: the key; of
    `select_some`: the partition key, and a list of tuples, or of single items where there is but one
    clustering column. The rows selected have the columns of the key, then those of the value.
    """

    keyspace: str
    name: str
    keys: tuple[Column, ...]
    values: tuple[Column, ...]

    @property
    def full_name(self) -> str:
        return f"{quote(self.keyspace)}.{quote(self.name)}"

    @property
    def create(self) -> str:
        columns = [f"{quote(column.name)} {type_of(column)}" for column in self.keys + self.values]
        columns.append(f"PRIMARY KEY ({_names(self.keys)})")
        notes = {column.name: _note_of(column) for column in self.keys + self.values}
        comment = json.dumps({"slabcache": notes}, ensure_ascii=False)
        return (
            f"CREATE TABLE IF NOT EXISTS {self.full_name} ({', '.join(columns)}) "
            f"WITH comment = {_literal(comment)}"
        )

    @property
    def insert(self) -> str:
        columns = self.keys + self.values
        marks = ", ".join("?" * len(columns))
        return f"INSERT INTO {self.full_name} ({_names(columns)}) VALUES ({marks}) USING TIMESTAMP ?"

    @property
    def delete(self) -> str:
        return f"DELETE FROM {self.full_name} USING TIMESTAMP ? WHERE {_equal(self.keys)}"

    @property
    def select_one(self) -> str:
        return f"SELECT {_names(self.keys + self.values)} FROM {self.full_name} WHERE {_equal(self.keys)}"

    @property
    def select_some(self) -> str:
        """Several rows of one partition; only for tables with clustering columns."""
        partition, *clustering = self.keys
        names = _names(clustering) if len(clustering) == 1 else f"({_names(clustering)})"
        return (
            f"SELECT {_names(self.keys + self.values)} FROM {self.full_name} "
            f"WHERE {_equal([partition])} AND {names} IN ?"
        )

    @property
    def batch_rows(self) -> int:
        """So many rows of a partition are one batch, which no server finds too large."""
        columns = self.keys + self.values
        row = sum(column.dtype.itemsize + _CELL_BYTES for column in columns)
        return max(1, min(_BATCH_ROWS_MAX, _BATCH_BYTES_MAX // row))

    def differences(self, found: Iterable[ColumnFound], comment: str = "") -> list[str]:
        """What is wrong with a table of these columns and this comment, a phrase for each column; empty if it
        fits. Columns that the store does not know are left alone, unless they are part of the key. A column
        without a note was added by somebody, who is taken to know what is in it."""
        there = {column.name: column for column in found}
        notes = _notes_in(comment)
        wrong = []
        places = [("partition_key", 0), *(("clustering", at) for at in range(len(self.keys) - 1))]
        places += [("regular", -1)] * len(self.values)
        for column, (kind, position) in zip(self.keys + self.values, places, strict=True):
            other = there.pop(column.name, None)
            if other is None:
                wrong.append(f"there is no column {column.name!r}")
            elif other.type != type_of(column):
                wrong.append(f"column {column.name!r} is {other.type}, not {type_of(column)}")
            elif (other.kind, other.position) != (kind, position):
                wrong.append(f"column {column.name!r} is {_place(other)}, not {_place_of(kind, position)}")
            elif (note := notes.get(column.name, _note_of(column))) != _note_of(column):
                wrong.append(f"column {column.name!r} holds {note}, not {_note_of(column)}")
        for other in there.values():
            if other.kind in ("partition_key", "clustering"):
                wrong.append(f"column {other.name!r} is {_place(other)}, and no field of the key")
        return wrong


def type_of(column: Column) -> str:
    """The CQL type that holds every value of a column."""
    if column.kind == "integer":
        return _INTEGERS[column.dtype.str[1:]]
    if column.kind == "float":
        return "double" if column.dtype.itemsize == 8 else "float"
    return _OTHERS[column.kind]


def keyspace_cql(keyspace: str, replication: int | Mapping[str, int]) -> str:
    """Creates a keyspace: so many replicas in each datacenter, or in those named.

    >>> print(keyspace_cql("app", {"east": 3, "west": 2}))
    CREATE KEYSPACE IF NOT EXISTS "app" WITH replication = \
{'class': 'NetworkTopologyStrategy', 'east': 3, 'west': 2}
    """
    replicas = {"replication_factor": replication} if isinstance(replication, int) else replication
    options = [f", {_literal(name)}: {int(count)}" for name, count in replicas.items()]
    return (
        f"CREATE KEYSPACE IF NOT EXISTS {quote(keyspace)} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy'{''.join(options)}}}"
    )


def check_name(name: str, what: str) -> str:
    """The name of a keyspace or a table, which Cassandra makes folders of; else ValueError."""
    if not re.fullmatch("[A-Za-z0-9_]{1,48}", name):
        raise ValueError(f"{what} {name!r}: use 1 to 48 letters, digits and underscores")
    return name


def check_replication(
    replication: int | Mapping[str, int] | None, create: bool
) -> int | dict[str, int] | None:
    """Replicas of a keyspace that is created: in each datacenter, or in those named."""
    if replication is None:
        return None
    if isinstance(replication, Mapping):
        checked: int | dict[str, int] = {
            name: whole(f"replication[{name!r}]", count, 1) for name, count in replication.items()
        }
    else:
        checked = whole("replication", replication, 1)
    if not create:
        raise ValueError("replication is for a keyspace that is created; give create=True as well")
    return checked


def _note_of(column: Column) -> str:
    """What the values of a column mean, as far as its type does not tell."""
    if column.kind == "array":
        return f"{column.dtype.base.str[1:]}{list(column.dtype.shape)}"
    return column.dtype.str[1:] if column.kind in ("unsigned64", "time") else column.kind


def _notes_in(comment: str) -> dict[str, object]:
    try:
        return dict(json.loads(comment)["slabcache"])
    except (ValueError, KeyError, TypeError):  # another comment
        return {}


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _names(columns: Iterable[Column]) -> str:
    return ", ".join(quote(column.name) for column in columns)


def _equal(columns: Iterable[Column]) -> str:
    return " AND ".join(f"{quote(column.name)} = ?" for column in columns)


def _place(column: ColumnFound) -> str:
    return _place_of(column.kind, column.position)


def _place_of(kind: str, position: int) -> str:
    names = {"partition_key": "partition key", "clustering": "clustering column"}
    return f"{names[kind]} {position + 1}" if kind in names else f"a {kind} column"
