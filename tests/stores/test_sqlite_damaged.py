"""SQLiteStore: rows into which somebody else has written what no dtype holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slabcache import RowsRejected, WriteBehindCache
from slabcache.stores import SQLiteStore
from support.sqlite_file import execute

KEY = [("user", "u8"), ("channel", "u8")]
VALUE = [("seen", "u8"), ("mentions", "u4"), ("name", "S4")]
ROWS = 40
HURT = 17


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path, table="states", key=KEY, value=VALUE)) as store:
        store.save_many(keys(*range(ROWS)), np.array([(n, n, b"n%d" % n) for n in range(ROWS)], VALUE))
        yield store


def keys(*users: int) -> np.ndarray:
    return np.array([(user, 2**64 - 1) for user in users], KEY)


def damage(path: Path, change: str, user: int = HURT) -> None:
    execute(path, f"UPDATE states SET {change} WHERE user = {user}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mentions = -1", "column 'mentions': -1 is out of range for uint32"),
        ("mentions = 'many'", "column 'mentions' holds str, which is not uint32"),
        ("mentions = 1.5", "column 'mentions' holds float"),
        ("mentions = CAST(x'ff' AS TEXT)", "column 'mentions' holds str"),
        ("seen = x'00'", "column 'seen' holds bytes, which is not uint64"),
        ("name = x'0102030405'", "column 'name': 5 bytes are more than the 4"),
    ],
)
def test_a_damaged_row_is_named(store: SQLiteStore, path: Path, change: str, message: str) -> None:
    damage(path, change)
    named = re.escape(f"table 'states', key ({HURT}, {2**64 - 1}), {message}")
    with pytest.raises(RowsRejected, match=named) as caught:
        store.load_many(keys(3, 99, HURT, 0))
    assert isinstance(caught.value.__cause__, ValueError)
    values, found = store.load_many(keys(3, 99, 0))
    assert values.tolist() == [(3, 3, b"n3"), (0, 0, b""), (0, 0, b"n0")]
    assert found.tolist() == [True, False, True]


def test_a_damaged_row_is_an_error_for_its_readers_alone(store: SQLiteStore, path: Path) -> None:
    damage(path, "mentions = 'many'")
    cache = WriteBehindCache(ROWS, store, flush_interval=1000.0)
    with ThreadPoolExecutor(ROWS) as pool:
        results = [pool.submit(cache.get, (user, 2**64 - 1)) for user in range(ROWS)]
    for user, result in enumerate(results):
        if user == HURT:
            with pytest.raises(RowsRejected, match=f"key \\({HURT}, .*holds str"):
                result.result()
        else:
            assert result.result().seen == user
    cache[HURT, 2**64 - 1] = (1, 2, b"new")  # which needs no look at the old one
    cache.flush()
    assert store.load_many(keys(HURT))[0].tolist() == [(1, 2, b"new")]
    cache.close()


@pytest.mark.parametrize("table", [5, b"states", None])
def test_a_table_that_is_no_name(path: Path, table: Any) -> None:
    with pytest.raises(TypeError, match=f"table must be a name, a str, not {type(table).__name__}"):
        SQLiteStore(path, table=table, key=KEY, value=VALUE)
    assert not path.exists()
