"""What of CassandraStore needs neither a server nor the driver."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from slabcache.stores.cassandra_table import ColumnFound, Table, check_name, keyspace_cql, type_of
from slabcache.stores.columns import columns_of
from slabcache.stores.timestamps import Timestamps
from support.scripts import run
from support.strategies import VALUE_DTYPES

STATES = Table(
    "app", "states", *columns_of([("user", "u8"), ("channel", "u8")], [("seen", "u8"), ("n", "u4")])
)


def test_statements() -> None:
    assert STATES.create == (
        'CREATE TABLE IF NOT EXISTS "app"."states" '
        '("user" bigint, "channel" bigint, "seen" bigint, "n" bigint, PRIMARY KEY ("user", "channel")) '
        """WITH comment = '{"slabcache": {"user": "u8", "channel": "u8", "seen": "u8", "n": "integer"}}'"""
    )
    assert STATES.insert == (
        'INSERT INTO "app"."states" ("user", "channel", "seen", "n") VALUES (?, ?, ?, ?) USING TIMESTAMP ?'
    )
    assert STATES.delete == 'DELETE FROM "app"."states" USING TIMESTAMP ? WHERE "user" = ? AND "channel" = ?'
    selected = 'SELECT "user", "channel", "seen", "n" FROM "app"."states" WHERE "user" = ? AND '
    assert STATES.select_one == selected + '"channel" = ?'
    assert STATES.select_some == selected + '"channel" IN ?'
    three = Table("app", "t", *columns_of([("a", "u1"), ("b", "u1"), ("c", "u1")], "u1"))
    assert three.select_some.endswith('WHERE "a" = ? AND ("b", "c") IN ?')


# The limits of CQL's integer types: each holds every value of the fields that are stored in it.
CQL_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}


@pytest.mark.parametrize("code", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", ">u4", ">i2"])
def test_integers_fit_their_type(code: str) -> None:
    key, _ = columns_of(code, "u1")
    bits = CQL_BITS[type_of(key[0])]
    limits = np.iinfo(code)
    assert -(2 ** (bits - 1)) <= limits.min
    assert limits.max < 2 ** (bits - 1)


def test_each_dtype_has_a_type() -> None:
    for dtype in VALUE_DTYPES.values():
        for column in columns_of("u1", [("x", dtype)] if np.dtype(dtype).names is None else dtype)[1]:
            assert type_of(column) in {*CQL_BITS, "float", "double", "boolean", "blob"}


def found(table: Table) -> list[ColumnFound]:
    kinds = [("partition_key", 0), *(("clustering", at) for at in range(len(table.keys) - 1))]
    kinds += [("regular", -1)] * len(table.values)
    columns = zip(table.keys + table.values, kinds, strict=True)
    return [ColumnFound(column.name, type_of(column), *kind) for column, kind in columns]


def test_differences() -> None:
    there = found(STATES)
    assert STATES.differences(there) == []
    assert STATES.differences(there[::-1]) == []
    assert STATES.differences([*there, ColumnFound("note", "text", "regular", -1)]) == []
    for at, column in enumerate(there):
        rest = there[:at] + there[at + 1 :]
        for other in (
            column._replace(type="text"),
            column._replace(kind="static", position=-1),
            column._replace(kind="clustering", position=5),
            column._replace(name="else"),
        ):
            (first, *_) = STATES.differences([*rest, other])
            assert repr(column.name) in first


NOTED = [("u8", "i8"), ("M8[s]", "M8[ms]"), ("M8[s]", "m8[s]"), ("m8[s]", "m8[25s]"), ("M8[s]", "u8")]
ARRAYS = [(("u4", 4), ("i4", 4)), (("u4", 4), ("u4", (2, 2))), (("u4", 4), "V16")]


@pytest.mark.parametrize(("one", "other"), [*NOTED, *ARRAYS])
def test_a_comment_tells_apart_what_types_do_not(one: Any, other: Any) -> None:
    """Either was taken for the other without one, as in a table that somebody has made by hand."""
    for first, second in ((one, other), (other, one)):
        there, wanted = (Table("app", "t", *columns_of("u8", [("x", dtype)])) for dtype in (first, second))
        comment = there.create.rpartition("comment = ")[2][1:-1]
        assert there.differences(found(there), comment) == []
        (told,) = wanted.differences(found(there), comment)
        assert told.startswith("column 'x' holds ")
        for by_hand in ("", "ours", "[]", "{}", '{"slabcache": 7}', '{"slabcache": {"key": "u8"}}'):
            assert wanted.differences(found(there), by_hand) == []


def test_batches_stay_small() -> None:
    assert STATES.batch_rows > 20
    for size in (1, 100, 2000, 5000, 60_000):
        rows = Table("app", "t", *columns_of("u8", f"V{size}")).batch_rows
        assert rows == 1 or 1 < rows * size < 5 * 1024


def test_keyspace() -> None:
    assert "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}" in keyspace_cql("app", 3)
    assert "'it''s': 2" in keyspace_cql("app", {"it's": 2})


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a.b", "ä", "x" * 49, "a\n"])
def test_names_of_keyspaces_and_tables(name: str) -> None:
    with pytest.raises(ValueError, match="keyspace"):
        check_name(name, "keyspace")


def test_time_stamps_rise_whatever_the_clock_does() -> None:
    clock = iter([5_000_000, 5_000_000, 5_000_999, 1_000, 2_000, 9_000_000])
    stamps = Timestamps(lambda: next(clock))
    told = [stamps.next() for _ in range(6)]
    assert told == [5000, 5001, 5002, 5003, 5004, 9000]
    assert all(later > earlier for earlier, later in itertools.pairwise(told))


def test_without_the_driver() -> None:
    """Nothing else needs it; and who asks for the store is told what to install."""
    script = """
        import sys

        sys.modules["cassandra.cluster"] = None  # importing it is an ImportError
        import slabcache, slabcache.stores

        assert "slabcache.stores.cassandra" not in sys.modules
        for _ in range(2):
            try:
                from slabcache.stores import CassandraStore
            except ImportError as error:
                print(error)
        print(hasattr(slabcache.stores, "Cassandra"))
    """
    told = "CassandraStore needs the driver for Cassandra: pip install 'slabcache[cassandra]'\n"
    assert run(script) == 2 * told + "False\n"
