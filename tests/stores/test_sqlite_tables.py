"""SQLiteStore on tables that somebody else has made: what is taken, what is refused, and that a refused file
stays as it was."""

from __future__ import annotations

import copy
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slabcache import RowsRejected
from slabcache.stores import SQLiteStore
from slabcache.stores.sqlite_table import Table, TableDiffersError
from support.model import canon_rows
from support.sqlite_file import execute
from support.strategies import VALUE_DTYPES


def open_store(path: Path, key: Any = "u8", value: Any = "u4", table: str = "t") -> SQLiteStore:
    return SQLiteStore(path, table=table, key=key, value=value)


# ---- types -------------------------------------------------------------------------------------------

EDGES: dict[str, list[Any]] = {
    "u8": [0, 1, 2**63 - 1, 2**63, 2**64 - 1],
    "i8": [0, -1, 2**63 - 1, -(2**63)],
    "u4": [0, 2**32 - 1],
    "?": [False, True],
    "M8[s]": ["NaT", "1969-12-31T23:59:59", "2024-02-29"],
    "m8[ms]": ["NaT", -1, 2**62],
    "f8": [0.0, np.nan, np.inf, -np.inf, 5e-324, 1e300, 2.0**53, -7.0, 0.1],
    "f4": [0.0, np.nan, -np.inf, np.finfo("f4").smallest_subnormal, 16777216.0],
    "S8": [b"", b"ann", b"a\0b", b"gr\xc3\xb6\xc3\x9fe", b"\xff\xfe", b"12345678", b"007", b"1e3"],
    "V4": [b"\0\0\0\0", b"1234", b"\xff\0\0\0"],
}
TYPES = {
    "u8": ["BIGINT", "INT", "bigint(20)", "UNSIGNED BIG INT", "NUMERIC", "DECIMAL(20,0)"],
    "i8": ["BIGINT", "INT8", "Integer", "NUMERIC", "DATETIME"],
    "u4": ["INTEGER", "INT UNSIGNED", "MEDIUMINT", "BIGINT"],
    "?": ["TINYINT(1)", "BOOL", "BIT"],
    "M8[s]": ["DATETIME", "TIMESTAMP", "BIGINT", "DATE"],
    "m8[ms]": ["BIGINT", "NUMERIC"],
    "f8": ["REAL", "DOUBLE", "DOUBLE PRECISION", "FLOAT", "NUMERIC", "DECIMAL(10,5)"],
    "f4": ["REAL", "FLOAT"],
    "S8": ["VARCHAR", "VARCHAR(8)", "TEXT", "CHARACTER(20)", "CLOB", "LONGBLOB"],
    "V4": ["TINYBLOB"],
}
COMPATIBLE = [(dtype, declared) for dtype, types in TYPES.items() for declared in types]


@pytest.mark.parametrize(("dtype", "declared"), COMPATIBLE)
def test_types_of_the_same_affinity(path: Path, dtype: str, declared: str) -> None:
    """All values come back as they were, and the declaration stays."""
    sql = f"CREATE TABLE t (key INTEGER PRIMARY KEY, value {declared})"
    execute(path, sql)
    values = np.array(EDGES[dtype], dtype)
    keys = np.arange(len(values), dtype="u4")
    with closing(open_store(path, "u4", dtype)) as store:
        for _ in range(2):  # created, then overwritten
            store.save_many(keys, values)
            assert canon_rows(store.load_many(keys)[0]) == canon_rows(values)
    assert execute(path, "SELECT sql FROM sqlite_master WHERE name = 't'") == [(sql,)]


KEY_TYPES = [(dtype, declared) for dtype, declared in COMPATIBLE if dtype in ("u8", "i8", "S8", "V4")]


@pytest.mark.parametrize(("dtype", "declared"), KEY_TYPES)
def test_keys_of_the_same_affinity(path: Path, dtype: str, declared: str) -> None:
    execute(path, f"CREATE TABLE t (key {declared} PRIMARY KEY, value INTEGER)")
    keys = np.array(EDGES[dtype], dtype)
    values = np.arange(len(keys), dtype="u4")
    with closing(open_store(path, dtype, "u4")) as store:
        for _ in range(2):
            store.save_many(keys, values)
            loaded, found = store.load_many(keys[::-1])
            assert found.all()
            assert loaded.tolist() == values[::-1].tolist()
        assert execute(path, "SELECT count(*) FROM t") == [(len(keys),)]
        store.delete_many(keys[1:])
        assert store.load_many(keys)[1].tolist() == [True] + [False] * (len(keys) - 1)


@pytest.mark.parametrize("strict", ["", " STRICT"])
def test_text_is_theirs_and_ours(path: Path, strict: str) -> None:
    """Rows of another program are found, and it finds ours."""
    execute(
        path,
        f"CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT){strict}",
        "INSERT INTO t VALUES ('ann', 'größe'), ('bob', '')",
    )
    with closing(open_store(path, "S8", "S8")) as store:
        values, found = store.load_many(np.array([b"bob", b"ann", b"eve"], "S8"))
        assert (values.tolist(), found.tolist()) == ([b"", "größe".encode(), b""], [True, True, False])
        store.save_many(np.array([b"ann", b"eve"], "S8"), np.array([b"1", b"x"], "S8"))
    assert execute(path, "SELECT key, value FROM t ORDER BY key") == [("ann", "1"), ("bob", ""), ("eve", "x")]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16"])
def test_text_in_any_encoding(path: Path, encoding: str) -> None:
    execute(
        path, f"PRAGMA encoding = '{encoding}'", "CREATE TABLE t (key VARCHAR(9) PRIMARY KEY, value TEXT)"
    )
    keys = np.array(EDGES["S8"], "S8")
    with closing(open_store(path, "S8", "S8")) as store:
        store.save_many(keys, keys[::-1])
        assert store.load_many(keys)[0].tolist() == keys[::-1].tolist()


@pytest.mark.parametrize(
    ("dtype", "declared"),
    [
        ("u8", "INTEGER"),  # as this store declares i8: negative numbers would become large ones
        ("u8", "BOOLEAN"),
        ("i8", "UNSIGNED BIGINT"),
        ("i8", "INTEGER SECONDS SINCE EPOCH"),
        ("M8[s]", "INTEGER"),
        ("u4", "TEXT"),
        ("u4", "REAL"),
        ("u4", "BLOB"),
        ("f8", "BIGINT"),
        ("f8", "TEXT"),
        ("S8", "INTEGER"),
        ("S8", "NUMERIC"),
        ("V4", "TEXT"),
        (("u2", 2), "TEXT"),
    ],
)
def test_types_that_would_change_values(path: Path, dtype: Any, declared: str) -> None:
    execute(path, f"CREATE TABLE t (key INTEGER PRIMARY KEY, value {declared})")
    with pytest.raises(ValueError, match=f"column 'value' has the declared type {declared}, not "):
        open_store(path, "u4", dtype)


def test_keys_that_another_collation_takes_for_one(path: Path) -> None:
    execute(path, "CREATE TABLE t (key TEXT COLLATE NOCASE PRIMARY KEY, value INTEGER)")
    with pytest.raises(ValueError, match="column 'key' has the collation NOCASE"):
        open_store(path, "S8")


# ---- columns -----------------------------------------------------------------------------------------

MORE = (
    "note TEXT, n INT NOT NULL DEFAULT 5, twice INT AS (value * 2), stored INT NOT NULL AS (value + 1) STORED"
)


@pytest.mark.parametrize("rows", ["", " WITHOUT ROWID"])
def test_additional_columns_are_left_alone(path: Path, rows: str) -> None:
    execute(
        path,
        f"CREATE TABLE t (value INTEGER, {MORE}, key BIGINT PRIMARY KEY NOT NULL){rows}",
        "INSERT INTO t (key, value, note, n) VALUES (1, 10, 'mine', 7)",
    )
    with closing(open_store(path)) as store:
        assert store.load_many(np.array([1], "u8"))[0].tolist() == [10]
        store.save_many(np.array([1, 2], "u8"), np.array([11, 22], "u4"))
        assert store.load_many(np.array([1, 2], "u8"))[0].tolist() == [11, 22]
    assert execute(path, "SELECT * FROM t ORDER BY key") == [
        (11, "mine", 7, 22, 12, 1),
        (22, None, 5, 44, 23, 2),
    ]


def test_a_field_that_is_added_and_rolled_back(path: Path) -> None:
    """The new version adds its column; the old one goes on beside it, and the new one reads its rows."""
    old, new = [("a", "u4")], [("a", "u4"), ("b", "u8"), ("c", "S4"), ("d", "f8"), ("e", "M8[s]"), ("f", "?")]
    keys = np.array([1, 2], "u8")
    with closing(open_store(path, value=old)) as store:
        store.save_many(keys, np.array([(10,), (20,)], old))
    with pytest.raises(ValueError, match="column 'b' is missing") as caught:
        open_store(path, value=new)
    for told in str(caught.value).split("(ALTER")[1:]:
        execute(path, "ALTER" + told.partition(" adds it)")[0])
    with closing(open_store(path, value=new)) as store:
        values, found = store.load_many(keys)
        assert found.all()
        assert repr(values.tolist()) == repr(
            [(n, 0, b"", float("nan"), np.datetime64(0, "s").item(), False) for n in (10, 20)]
        )
        store.null_value = (9, 8, b"x", 7.0, np.datetime64("1970-01-02"), True)
        assert store.load_many(keys)[0][["a", "b", "c", "e", "f"]].tolist()[0] == (
            10,
            8,
            b"x",
            np.datetime64("1970-01-02", "s").item(),
            True,
        )
        store.save_many(keys[:1], np.array([(11, 2**64 - 1, b"new", 0.5, "NaT", True)], new))
    with closing(open_store(path, value=old)) as store:  # rolled back
        assert store.load_many(keys)[0].tolist() == [(11,), (20,)]
        store.save_many(keys, np.array([(12,), (22,)], old))
    with closing(open_store(path, value=new)) as store:
        assert store.load_many(keys)[0]["b"].tolist() == [2**64 - 1, 0]


@pytest.mark.parametrize("spec", sorted(VALUE_DTYPES))
def test_null_is_zero_in_all_types(path: Path, spec: str) -> None:
    """And fails no other row."""
    dtype = np.dtype(VALUE_DTYPES[spec])
    definition = Table("t", *_columns("u8", dtype)).definition.replace(" NOT NULL", "")
    execute(path, f"CREATE TABLE t {definition}", "INSERT INTO t (key) VALUES (1)")
    keys, ones = np.array([1, 2], "u8"), np.frombuffer(b"\1" * dtype.itemsize, dtype.base)
    row = ones.reshape(1, *dtype.shape)
    with closing(open_store(path, value=dtype)) as store:
        store.save_many(keys[1:], row)
        values, found = store.load_many(keys)
        assert found.all()
        assert canon_rows(values[1:]) == canon_rows(row)
        nothing = np.zeros((1, *dtype.shape), dtype.base)
        floats = [column for column in store._value if column.kind == "float"]
        for column in floats:
            column.field_of(nothing)[...] = np.nan
        assert canon_rows(values[:1]) == canon_rows(nothing)


def _columns(key: Any, value: Any) -> Any:
    from slabcache.stores.columns import columns_of

    return columns_of(key, value)


# ---- refusals leave the file as it was ---------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a)",
        "CREATE TABLE t (key UNSIGNED BIGINT PRIMARY KEY, value TEXT)",
        "CREATE VIEW t AS SELECT 1 AS key, 2 AS value",
    ],
)
def test_a_refused_table_is_untouched(path: Path, sql: str) -> None:
    execute(path, "PRAGMA page_size = 8192", "CREATE TABLE other (a)", sql)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="table 't' differs") as caught:
        open_store(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert execute(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_new_file_has_small_pages(path: Path) -> None:
    open_store(path).close()
    assert execute(path, "PRAGMA page_size") == [(1024,)]


# ---- names -------------------------------------------------------------------------------------------


def test_the_schema_may_be_named(path: Path) -> None:
    keys = np.array([1], "u8")
    for number, table in enumerate(["main.t", "MAIN.T", '"t"', 'main."t"', "t"]):
        with closing(open_store(path, table=table)) as store:
            store.save_many(keys, np.array([number], "u4"))
    assert execute(path, "SELECT name FROM sqlite_master") == [("t",)]
    assert execute(path, "SELECT value FROM t") == [(4,)]
    with closing(open_store(path, table='"main.t"')) as store:
        assert not store.load_many(keys)[1].any()
    assert ("main.t",) in execute(path, "SELECT name FROM sqlite_master")


@pytest.mark.parametrize("table", ["temp.t", "app.t", "a.b.c", "main.a.b", ".t", "t."])
def test_another_schema_is_refused(path: Path, table: str) -> None:
    with pytest.raises(ValueError, match="the only one here is main.*put it in quotes"):
        open_store(path, table=table)
    assert not path.exists()


def test_identity(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    stores = [open_store(path), open_store(link, table="main.T"), open_store(path, table="other")]
    one, same, other = (store.identity for store in stores)
    assert hash(one) == hash(same)
    assert one == same != other
    for store in stores:
        store.close()


def test_names_are_folded_as_sqlite_does(path: Path) -> None:
    """Which leaves alone what is not ASCII: these are two columns."""
    execute(path, "CREATE TABLE t (Key BIGINT PRIMARY KEY, ä INTEGER, Ä TEXT)")
    with closing(open_store(path, value=[("ä", "u4")])) as store:
        store.save_many(np.array([1], "u8"), np.array([(2,)], [("ä", "u4")]))
    assert execute(path, "SELECT * FROM t") == [(1, 2, None)]


# ---- whose fault it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        ["DROP TABLE t"],
        ["DROP TABLE t", "CREATE TABLE t (key BIGINT PRIMARY KEY, value INTEGER, more INTEGER NOT NULL)"],
        ["ALTER TABLE t RENAME COLUMN value TO worth"],
        ["ALTER TABLE t RENAME TO u"],
        [
            "DROP TABLE t",
            "CREATE TABLE t (key INTEGER PRIMARY KEY, value BLOB CHECK (typeof(value) = 'blob'))",
        ],
    ],
)
def test_a_table_that_has_changed_refuses_no_row(path: Path, change: list[str]) -> None:
    keys = np.array([1], "u8")
    with closing(open_store(path)) as store:
        store.save_many(keys, np.array([2], "u4"))
        execute(path, *change)
        with pytest.raises(sqlite3.Error) as caught:
            store.save_many(keys, np.array([3], "u4"))
        assert not isinstance(caught.value, sqlite3.IntegrityError)


def test_a_constraint_refuses_rows(path: Path) -> None:
    execute(path, "CREATE TABLE t (key BIGINT PRIMARY KEY, value INTEGER UNIQUE)")
    keys = np.array([1, 2], "u8")
    with closing(open_store(path)) as store:
        with pytest.raises(RowsRejected, match="UNIQUE constraint failed"):
            store.save_many(keys, np.array([3, 3], "u4"))
        connections = [store._connections._process.writer[0].connection]
        for _ in range(3):
            with pytest.raises(RowsRejected):
                store.save_many(keys, np.array([3, 3], "u4"))
            connections.append(store._connections._process.writer[0].connection)
        assert len(set(map(id, connections))) == 1  # which is as good as before


def test_a_table_that_differs_later_is_temporary(path: Path) -> None:
    with closing(open_store(path)) as store:
        execute(path, "DROP TABLE t", "CREATE TABLE t (a)")
        for _ in range(2):
            with pytest.raises(sqlite3.Error) as caught:
                store.save_many(np.array([1], "u8"), np.array([2], "u4"))
        assert isinstance(caught.value, TableDiffersError)


# ---- messages ----------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(sqlite3.OperationalError, match="unable to open database file") as caught:
            open_store(path)
        assert str(path) in str(caught.value)
        assert caught.value.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN
        return str(caught.value)

    assert f"there is no directory {tmp_path / 'nowhere'}; create it" in refused(
        tmp_path / "nowhere" / "x.db"
    )
    assert "it is a directory; name a file" in refused(tmp_path)
    (tmp_path / "file").touch()
    assert "create it" in refused(tmp_path / "file" / "x.db")


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="states.db: file is not a database"):
        open_store(path)


@pytest.mark.parametrize("make", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda make: make.__name__)
def test_a_store_is_not_copied(path: Path, make: Callable[[Any], object]) -> None:
    with (
        closing(open_store(path)) as store,
        pytest.raises(
            TypeError, match="a SQLiteStore can be neither copied nor pickled.* with the same arguments"
        ),
    ):
        make(store)


def test_a_constraint_of_a_file_that_is_gone_refuses_no_row(path: Path) -> None:
    """The one that has come instead may take the row."""
    execute(path, "CREATE TABLE t (key BIGINT PRIMARY KEY, value INTEGER CHECK (value < 10))")
    keys = np.array([1], "u8")
    with closing(open_store(path)) as store:

        def strike(statement: str) -> None:
            if statement.startswith("INSERT"):
                path.unlink(missing_ok=True)

        with store._connections.writing() as opened:
            opened.connection.set_trace_callback(strike)
        with pytest.raises(sqlite3.IntegrityError):
            store.save_many(keys, np.array([10], "u4"))
        store.save_many(keys, np.array([10], "u4"))
        assert store.load_many(keys)[0].tolist() == [10]


def test_a_generated_column_cannot_be_written(path: Path) -> None:
    execute(path, "CREATE TABLE t (key BIGINT PRIMARY KEY NOT NULL, value INTEGER AS (key + 1) STORED)")
    with pytest.raises(ValueError, match="column 'value' is generated"):
        open_store(path, value="u4")


def test_the_value_of_null_is_taken_as_a_default_is(path: Path) -> None:
    with closing(open_store(path, value=[("a", "u4"), ("b", "S4")])) as store:
        for value in ((1, b"too long"), (7.9, b""), 5):
            with pytest.raises((TypeError, ValueError)):
                store.null_value = value
        store.null_value = {"b": b"x", "a": 7}
        assert store.null_value.tolist() == (7, b"x")
