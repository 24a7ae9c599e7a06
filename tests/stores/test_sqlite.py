"""SQLiteStore: rows come back as they were saved, and the table is one that a person can query."""

from __future__ import annotations

import gc
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabcache.errors import ClosedError, RowsRejected
from slabcache.stores import SQLiteStore, Store
from support.model import canon, canon_rows, to_array, zero
from support.sqlite_file import execute
from support.strategies import key_dtypes, keys_of, value_dtypes, values_of

KEY = [("user_id", "u8"), ("channel_id", "u8")]
VALUE = [("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u8")]

EDGES = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1], "u8")


def open_store(path: Path, key: Any = KEY, value: Any = VALUE, table: str = "states") -> SQLiteStore:
    return SQLiteStore(path, table=table, key=key, value=value)


def pairs(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(list(rows), KEY)


def states(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(list(rows), VALUE)


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(open_store(path)) as store:
        yield store


# ---- against a dictionary ----------------------------------------------------------------------------


@given(st.data())
def test_any_dtype_against_a_dictionary(data: st.DataObject) -> None:
    key_dtype, value_dtype = data.draw(key_dtypes), data.draw(value_dtypes)
    if set(key_dtype.names or ()) & set(value_dtype.names or ()):
        value_dtype = np.dtype("f8")
    pool = data.draw(st.lists(keys_of(key_dtype), min_size=1, max_size=8, unique_by=repr))
    model: dict[Any, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "any.db")
        store = open_store(path, key_dtype, value_dtype)
        try:
            for step in data.draw(
                st.lists(st.sampled_from(["save", "delete", "load", "reopen"]), max_size=8)
            ):
                keys = data.draw(st.lists(st.sampled_from(pool), unique_by=repr))
                if step == "save":
                    values = data.draw(
                        st.lists(values_of(value_dtype), min_size=len(keys), max_size=len(keys))
                    )
                    rows = to_array(values, value_dtype)
                    store.save_many(to_array(keys, key_dtype), rows)
                    model.update(zip(map(canon, keys), canon_rows(rows), strict=True))
                elif step == "delete":
                    store.delete_many(to_array(keys, key_dtype))
                    for key in keys:
                        model.pop(canon(key), None)
                elif step == "reopen":
                    store.close()
                    store = open_store(path, key_dtype, value_dtype)
                asked = data.draw(st.lists(st.sampled_from(pool)))  # repeated keys and all
                values, found = store.load_many(to_array(asked, key_dtype))
                assert found.tolist() == [canon(key) in model for key in asked]
                assert canon_rows(values) == [model.get(canon(key), zero(value_dtype)) for key in asked]
        finally:
            store.close()


def test_it_is_a_store(store: SQLiteStore) -> None:
    assert isinstance(store, Store)
    assert store.key_dtype == np.dtype(KEY)
    assert store.value_dtype == np.dtype(VALUE)


def test_padded_dtypes_come_back_as_they_were_given(path: Path) -> None:
    key = np.dtype({"names": ["a", "b"], "formats": ["u1", ">i8"], "offsets": [3, 8], "itemsize": 24})
    value = np.dtype([("x", "u1"), ("y", ">f8")], align=True)
    with closing(open_store(path, key, value)) as store:
        assert (store.key_dtype, store.value_dtype) == (key, value)
        keys = np.array([(1, -2), (3, 4)], key)
        store.save_many(keys, np.array([(5, 6.5), (7, np.inf)], value))
        values, found = store.load_many(keys[::-1])
    assert values.dtype == value
    assert values.tolist() == [(7, np.inf), (5, 6.5)]
    assert found.dtype == np.bool_
    assert found.all()


def test_order_repeats_and_misses(store: SQLiteStore) -> None:
    store.save_many(pairs((1, 1), (2, 2), (3, 3)), states((10, 1, 0), (20, 2, 0), (30, 3, 0)))
    values, found = store.load_many(pairs((3, 3), (9, 9), (1, 1), (3, 3), (1, 2)))
    assert found.tolist() == [True, False, True, True, False]
    assert values["last_message_id"].tolist() == [30, 0, 10, 30, 0]


def test_the_last_of_repeated_keys_is_saved(store: SQLiteStore) -> None:
    store.save_many(pairs((1, 1), (0, 5), (1, 1)), states((10, 0, 0), (5, 0, 0), (20, 0, 0)))
    assert store.load_many(pairs((1, 1)))[0].tolist() == [(20, 0, 0)]


def test_unsigned_integers(path: Path) -> None:
    keys = np.zeros(36, KEY)
    keys["user_id"], keys["channel_id"] = np.repeat(EDGES, 6), np.tile(EDGES, 6)
    with closing(open_store(path, value="u8")) as store:
        store.save_many(keys, keys["channel_id"] ^ keys["user_id"])
        values, found = store.load_many(keys[::-1])
        assert found.all()
        assert (values == (keys["channel_id"] ^ keys["user_id"])[::-1]).all()
        store.delete_many(keys[::2])
        assert store.load_many(keys)[1].tolist() == [False, True] * 18
    assert execute(path, 'SELECT min("user_id"), max("user_id") FROM states') == [(-(2**63), 2**63 - 1)]


@pytest.mark.parametrize("size", ["f2", "f4", "f8"])
def test_floats_that_compare_oddly(path: Path, size: str) -> None:
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, np.finfo(size).smallest_subnormal], size)
    with closing(open_store(path, "u1", size)) as store:
        store.save_many(np.arange(7, dtype="u1"), odd)
        values, found = store.load_many(np.arange(7, dtype="u1"))
    assert found.all()
    assert canon_rows(values) == canon_rows(odd)
    # Numbers in a query as well, whatever their sign; NaN is what has no value.
    assert execute(path, "SELECT key FROM states WHERE value = 0 ORDER BY key") == [(0,), (1,)]
    assert execute(path, "SELECT key FROM states WHERE value < 0") == [(3,)]
    assert execute(path, "SELECT key FROM states WHERE value IS NULL") == [(4,)]


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000, 70_001])
def test_many_rows_at_once(path: Path, count: int) -> None:
    keys = np.random.default_rng(count).permutation(count).astype("u4")
    with closing(open_store(path, "u4", "u4")) as store:
        store.save_many(keys, keys * 3)
        asked = np.arange(count + 10, dtype="u4")
        values, found = store.load_many(asked)
        assert found.tolist() == [True] * count + [False] * 10
        assert (values[:count] == asked[:count] * 3).all()
        store.delete_many(asked[: count // 2])
        assert store.load_many(asked)[1].sum() == count - count // 2


def test_keys_and_rows_as_wide_as_can_be(path: Path) -> None:
    key = [(f"k{at}", "u1") for at in range(255)]
    value = [(f"v{at}", "V1") for at in range(200)]
    keys = np.random.default_rng(0).integers(0, 256, (300, 255), "u1").view(key)[:, 0]
    values = np.random.default_rng(1).integers(0, 256, (300, 200), "u1").view(value)[:, 0]
    with closing(open_store(path, key, value)) as store:
        store.save_many(keys, values)
        loaded, found = store.load_many(keys)
    assert found.all()
    assert loaded.tobytes() == values.tobytes()


@pytest.mark.parametrize("limit", [2, 3, 100, 999])
def test_a_build_of_sqlite_that_takes_few_parameters(store: SQLiteStore, limit: int) -> None:
    keys = np.zeros(700, KEY)
    keys["user_id"] = np.arange(700)
    store.save_many(keys, np.zeros(700, VALUE))
    with store._connections.reading() as opened:  # given back, and the one that is taken next
        opened.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limit)
    assert store.load_many(keys)[1].all()


def test_inputs_are_not_modified(store: SQLiteStore) -> None:
    keys, values = pairs((3, 1), (2, 2)), states((1, 2, 3), (4, 5, 6))
    before = keys.tobytes(), values.tobytes()
    keys.flags.writeable = values.flags.writeable = False
    store.save_many(keys, values)
    store.load_many(keys)
    store.delete_many(keys)
    assert (keys.tobytes(), values.tobytes()) == before


@pytest.mark.parametrize(
    ("keys", "values", "error"),
    [
        (np.zeros(2, "u8"), np.zeros(2, VALUE), TypeError),
        (np.zeros((2, 2), KEY), np.zeros(2, VALUE), TypeError),
        (np.zeros(2, KEY), np.zeros(2, "u4"), TypeError),
        (np.zeros(2, KEY), np.zeros((2, 1), VALUE), TypeError),
        (np.zeros(2, KEY), np.zeros(1, VALUE), ValueError),
    ],
)
def test_other_arrays_are_refused(store: SQLiteStore, keys: Any, values: Any, error: type) -> None:
    with pytest.raises(error):
        store.save_many(keys, values)
    assert not store.load_many(np.zeros(1, KEY))[1].any()


# ---- the table ---------------------------------------------------------------------------------------


def test_a_person_can_query_it(store: SQLiteStore, path: Path) -> None:
    store.save_many(pairs((42, 7), (42, 8)), states((1001, 3, 0), (1002, 4, 0)))
    sql = "SELECT channel_id, mention_count, typeof(mention_count) FROM states WHERE user_id = 42"
    assert execute(path, sql) == [(7, 3, "integer"), (8, 4, "integer")]
    execute(path, "UPDATE states SET mention_count = 9 WHERE channel_id = 8")
    assert store.load_many(pairs((42, 8)))[0].tolist() == [(1002, 9, 0)]


def test_it_stays_for_the_next_run(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.save_many(pairs((1, 2)), states((3, 4, 5)))
    with closing(open_store(path)) as store:
        assert store.load_many(pairs((1, 2)))[0].tolist() == [(3, 4, 5)]


def test_a_log_on_the_disk_before_a_save_returns(store: SQLiteStore) -> None:
    with store._connections.writing() as opened:
        assert opened.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert opened.connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_tables_share_a_file(path: Path) -> None:
    with closing(open_store(path)) as states_, closing(open_store(path, "u4", "u4", "other")) as other:
        other.save_many(np.array([1], "u4"), np.array([2], "u4"))
        states_.save_many(pairs((1, 1)), states((1, 1, 1)))
        assert other.load_many(np.array([1], "u4"))[0].tolist() == [2]


def test_what_a_table_is_declared_as(path: Path) -> None:
    value = [
        ("a", "i2"),
        ("b", "u8"),
        ("c", "f4"),
        ("d", "?"),
        ("e", "S3"),
        ("f", "V3"),
        ("g", "M8[us]"),
        ("h", "m8[25s]"),
        ("i", "u2", (2, 3)),
        ("j", "M8[m]", 2),
        ("k", "M8[M]", 2),
    ]
    open_store(path, "u4", value).close()
    assert [row[2:4] for row in execute(path, "PRAGMA table_info(states)")] == [
        ("INTEGER", 1),
        ("INTEGER", 1),
        ("UNSIGNED BIGINT", 1),
        ("", 0),
        ("BOOLEAN", 1),
        ("BLOB", 1),
        ("BLOB", 1),
        ("INTEGER MICROSECONDS SINCE EPOCH", 1),
        ("INTEGER SECONDS(25)", 1),
        ("BLOB_2X3_OF_U2", 1),
        ("BLOB_2_OF_TIME_1_MINUTES", 1),
        ("BLOB_2_OF_TIME_1_MONTHS", 1),
    ]
    open_store(path, "u4", value).close()  # and taken for the same


DEFINITION = "a UNSIGNED BIGINT NOT NULL, b INTEGER NOT NULL, c INTEGER NOT NULL"


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (f"{DEFINITION}, PRIMARY KEY (a)", r"the primary key is \(a\), not \(a, b\)"),
        (f"{DEFINITION}, PRIMARY KEY (b, a)", r"the primary key is \(b, a\), not \(a, b\)"),
        (DEFINITION, r"the primary key is \(\), not \(a, b\)"),
        (f"{DEFINITION}, d INT NOT NULL, PRIMARY KEY (a, b)", "'d' is not in the dtypes, may not be NULL"),
        (
            f"{DEFINITION}, d INT DEFAULT NULL NOT NULL, PRIMARY KEY (a, b)",
            "may not be NULL and has no default",
        ),
        (f"{DEFINITION}, d INT, PRIMARY KEY (a, b, d)", r"the primary key is \(a, b, d\), not \(a, b\)"),
        ("a UNSIGNED BIGINT, b INTEGER, PRIMARY KEY (a, b)", "column 'c' is missing"),
        ("a INTEGER, b INTEGER, c INTEGER, PRIMARY KEY (a, b)", "'a' has the declared type INTEGER, not UNS"),
        ("a UNSIGNED BIGINT, b INTEGER, c, PRIMARY KEY (a, b)", "'c' has the declared type none, not INT"),
    ],
)
def test_another_table_is_refused(path: Path, definition: str, message: str) -> None:
    execute(path, f"CREATE TABLE states ({definition})")
    with pytest.raises(ValueError, match=message) as caught:
        open_store(path, [("a", "u8"), ("b", "i4")], [("c", "i4")])
    assert "Name another table" in str(caught.value)
    assert execute(path, "SELECT * FROM states") == []


def test_a_view_is_refused(path: Path) -> None:
    execute(path, "CREATE VIEW states AS SELECT 1 AS key, 2 AS value")
    with pytest.raises(ValueError, match="the primary key is"):
        open_store(path, "i4", "i4")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("u8", "i8"),
        ("u8", "u4"),
        ("M8[s]", "M8[ms]"),
        ("M8[m]", "M8[M]"),
        ("M8[s]", "M8[25s]"),
        ("M8[s]", "m8[s]"),
        ("M8[s]", "i8"),
        ("?", "u1"),
        ("f8", "i8"),
        ("V8", "f8"),
        (("u2", 4), ("u4", 2)),
        (("u2", 4), ("u2", (2, 2))),
        (("u2", 4), "V8"),
        (("M8[m]", 2), ("M8[M]", 2)),
    ],
)
def test_a_table_that_would_be_misread_is_refused(path: Path, first: Any, second: Any) -> None:
    open_store(path, "u4", first).close()
    with pytest.raises(ValueError, match="column 'value' has the declared type"):
        open_store(path, "u4", second)
    open_store(path, "u4", first).close()


def test_a_table_of_ones_own_with_the_same_columns_is_used(path: Path) -> None:
    execute(path, "CREATE TABLE states (value integer CHECK (value < 100), KEY integer PRIMARY KEY)")
    with closing(open_store(path, "u4", "u4")) as store:
        keys, values = np.arange(3, dtype="u4"), np.array([1, 100, 2], "u4")
        with pytest.raises(RowsRejected, match="CHECK constraint failed") as caught:
            store.save_many(keys, values)
        assert isinstance(caught.value.__cause__, sqlite3.IntegrityError)
        assert not store.load_many(keys)[1].any()  # all or none
        store.save_many(keys[::2], values[::2])
        assert store.load_many(keys)[0].tolist() == [1, 0, 2]


def test_a_trigger_that_refuses_a_deletion(store: SQLiteStore, path: Path) -> None:
    store.save_many(pairs((1, 1)), states((1, 1, 1)))
    execute(path, "CREATE TRIGGER keep BEFORE DELETE ON states BEGIN SELECT RAISE(ABORT, 'kept'); END")
    with pytest.raises(RowsRejected, match="kept"):
        store.delete_many(pairs((1, 1)))
    assert store.load_many(pairs((1, 1)))[1].all()


def test_a_batch_is_a_few_statements(store: SQLiteStore) -> None:
    """At each of them a busy thread takes the GIL, and keeps it for a while."""
    keys = np.array([(row, 2**64 - 1 - row) for row in range(1000)], KEY)
    values = np.array([(row, row, 2**64 - 1) for row in range(1000)], VALUE)
    statements: list[str] = []
    with store._connections.writing() as opened:
        opened.connection.set_trace_callback(statements.append)
    store.save_many(keys, values)
    assert len(statements) <= 12
    assert store.load_many(keys[::-1])[0].tolist() == values[::-1].tolist()


# ---- names and arguments -----------------------------------------------------------------------------

NAMES = [
    "select",
    "two words",
    'say "hi"',
    "it's",
    "?",
    ":name",
    "%s",
    "line\nbreak",
    "größe",
    '"a.b"',
    "[x]",
    "`x`",
    "x); DROP TABLE victim; --",
    '"); DROP TABLE victim; --',
    "at",
    "k0",
    "asked",
    "t",
    "main",
    "excluded",
    "rowid",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_names_and_never_code(path: Path, name: str) -> None:
    execute(path, "CREATE TABLE victim (a)")
    key = [(name, "u4"), ("other", "u4")]
    value = [("first", "u4"), (name + "2", "u4")]
    for table, spec in ((name, (key, value)), ("plain", (value, key))):
        with closing(open_store(path, *spec, table=table)) as store:
            keys = np.array([(1, 2), (3, 4)], spec[0])
            for number in (5, 6):  # created, then overwritten
                store.save_many(keys, np.array([(number, 1), (number, 2)], spec[1]))
            values, found = store.load_many(keys[::-1])
            assert found.all()
            assert values.tolist() == [(6, 2), (6, 1)]
            store.delete_many(keys[:1])
            assert store.load_many(keys)[1].tolist() == [False, True]
    assert execute(path, "SELECT name FROM sqlite_master WHERE name = 'victim'") == [("victim",)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": ""}, "a name is empty"),
        ({"table": "a\0b"}, "NUL"),
        ({"table": "SQLite_x"}, "SQLite keeps names"),
        ({"value": [("User_ID", "u4")]}, "the key has a column of that name"),
        ({"path": ""}, "name a file"),
        ({"path": ":memory:"}, "name a file"),
        ({"path": Path(":memory:")}, "name a file"),
        ({"path": "a\0b"}, "NUL"),
        ({"busy_timeout": -1}, "busy_timeout must be from 0 to 2e\\+06 seconds, not -1"),
        ({"busy_timeout": float("nan")}, "busy_timeout must be"),
        ({"busy_timeout": float("inf")}, "busy_timeout must be"),
    ],
)
def test_arguments_that_cannot_be_used(path: Path, arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"path": path, "table": "t", "key": KEY, "value": VALUE}
    with pytest.raises(ValueError, match=message):
        SQLiteStore(**(good | arguments))
    assert not path.exists()


def test_types_that_cannot_be_used(path: Path) -> None:
    text: Any = "5"
    with pytest.raises(TypeError, match="busy_timeout must be a number of seconds, not str"):
        SQLiteStore(path, table="t", key=KEY, value=VALUE, busy_timeout=text)
    with pytest.raises(TypeError, match="key: float64 is not supported"):
        open_store(path, key="f8")
    assert not path.exists()


@pytest.mark.parametrize("name", ["plain", "a b?c#d%20", "file:x?mode=memory", "größe", ":memory:x"])
def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Taken literally, and relative to where the process was then."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore(name, table="t", key="u4", value="u4")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with closing(store):
        store.save_many(np.array([1], "u4"), np.array([2], "u4"))
        assert {entry.name for entry in tmp_path.iterdir()} >= {name, "elsewhere"}
        assert list((tmp_path / "elsewhere").iterdir()) == []
    assert execute(tmp_path / name, "SELECT * FROM t") == [(1, 2)]


def test_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "real.db", tmp_path / "link.db"
    link.symlink_to(target)
    with closing(open_store(link)) as store:
        store.save_many(pairs((1, 1)), states((1, 1, 1)))
        store.save_many(pairs((2, 2)), states((1, 1, 1)))
    assert execute(target, "SELECT count(*) FROM states") == [(2,)]


@pytest.mark.parametrize("content", [b"no database at all" * 100])
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError):
        open_store(path)
    assert path.read_bytes() == content


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        open_store(tmp_path / "nowhere" / "x.db")


# ---- the end -----------------------------------------------------------------------------------------


def open_files(directory: Path) -> list[str]:
    links = Path("/proc/self/fd").iterdir()
    return [
        target for target in (os.path.realpath(link) for link in links) if target.startswith(str(directory))
    ]


def test_close(path: Path) -> None:
    store = open_store(path)
    store.load_many(pairs((1, 1)))
    assert open_files(path.parent)
    store.close()
    store.close()
    assert not open_files(path.parent)
    for call in (
        lambda: store.load_many(pairs((1, 1))),
        lambda: store.load_many(pairs()),
        lambda: store.save_many(pairs((1, 1)), states((1, 1, 1))),
        lambda: store.delete_many(pairs((1, 1))),
    ):
        with pytest.raises(ClosedError):
            call()
    assert not open_files(path.parent)


def test_a_store_that_is_forgotten(path: Path) -> None:
    def forget() -> None:
        store = open_store(path)
        store.load_many(pairs((1, 1)))
        del store
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed SQLiteStore"):
        forget()
    assert not open_files(path.parent)


def test_a_store_that_was_never_opened_leaves_nothing_open(path: Path) -> None:
    execute(path, "CREATE TABLE states (a)")
    with pytest.raises(ValueError, match="is missing"):
        open_store(path)
    assert not open_files(path.parent)
