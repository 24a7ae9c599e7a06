"""`pop` before a store: its result is made before the row is deleted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slabcache import WriteBehindCache
from support.faulty_store import FaultyStore, make

RECORD = [("n", "u4"), ("at", "M8[s]")]


@pytest.mark.parametrize("default", [None, 0, 7])
@pytest.mark.parametrize("value", [0, 5])
def test_from_memory_from_the_store_and_from_nowhere(default: Any, value: int) -> None:
    store, cache = make(FaultyStore(rows={1: value}), default=default)
    cache[2] = value
    cache[3] = value
    cache.flush()
    cache.invalidate_all()
    cache[3] = value
    assert [cache.pop(key) for key in (1, 2, 3)] == [value] * 3
    for key in (1, 2, 3, 4):
        if default is None:
            with pytest.raises(KeyError):
                cache.pop(key)
            assert cache.pop(key, "none") == "none"
        else:
            assert cache.pop(key) == default
    cache.close()
    assert store.rows == {}


def test_a_value_that_changes_while_its_object_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    store, cache = make()
    cache[1] = 10
    pop, calls = cache._pop, iter(range(10))

    def interrupted(request: Any, expected: bytes) -> int:
        if next(calls) == 1:
            cache[1] = 11  # between the look and the deletion
        return pop(request, expected)

    object.__setattr__(cache, "_pop", interrupted)
    assert cache.pop(1) == 11
    assert cache.pop(1, None) is None
    cache.close()
    assert store.rows == {}


def test_records_and_rows_written_meanwhile_in_the_store() -> None:
    at = np.datetime64(5, "s")
    store = FaultyStore("u8", RECORD, {1: (1, at)})
    cache = WriteBehindCache(4, store, flush_interval=1000.0, default=(9, at))
    assert cache.pop(1) == (1, at)
    assert cache.pop(1) == (9, at)
    assert cache.setdefault(1, (3, at)) == (9, at)
    cache.close()
    assert store.rows == {}
