"""Rows that the store will never give: an error for those who ask for them, and for nobody else."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from slabcache import RowsRejected, WriteBehindCache
from slabcache.loader import HALVINGS
from write_behind.faulty_store import FaultyStore

KEYS = 20


def make(
    *damaged: int, refusal: Exception | None = None, **options: Any
) -> tuple[FaultyStore, WriteBehindCache]:
    store = FaultyStore(rows={key: key * 10 for key in range(1000)})
    store.damaged = set(damaged)
    store.refusal = refusal or ValueError("damaged")
    return store, WriteBehindCache(1000, store, flush_interval=1000.0, **options)


def overlapping_reads(store: FaultyStore, cache: WriteBehindCache) -> list[Future[Any]]:
    """Of all keys, by one caller each, while nobody has got an answer."""
    store.gate.clear()
    with ThreadPoolExecutor(KEYS) as pool:
        results = [pool.submit(cache.get, key) for key in range(KEYS)]
        while len(cache._loader._places) < KEYS:
            pass
        store.gate.set()
    return results


@pytest.mark.parametrize("refusal", [ValueError("no"), RowsRejected("no"), OverflowError("no")])
def test_callers_who_share_a_load_do_not_share_its_refusal(refusal: Exception) -> None:
    store, cache = make(3, 18, refusal=refusal)
    for key, result in enumerate(overlapping_reads(store, cache)):
        if key in (3, 18):
            assert result.exception() is refusal
        else:
            assert result.result() == key * 10
    assert len(cache) == KEYS - 2
    store.damaged.clear()
    assert cache[3] == 30
    cache.close()


def test_another_error_is_that_of_all() -> None:
    store, cache = make(3, refusal=OSError("down"))
    results = overlapping_reads(store, cache)
    shared = next(load for load in store.loads if 3 in load)
    assert len(store.loads) < KEYS
    assert [key for key, result in enumerate(results) if result.exception()] == sorted(shared)
    cache.close()


def test_what_is_in_memory_needs_no_load() -> None:
    _store, cache = make(3)
    cache[3] = 33
    cache[7] = 77
    assert cache.get_many(np.arange(8))[0].tolist() == [0, 10, 20, 33, 40, 50, 60, 77]
    cache.close()


def test_a_batch_with_a_refused_row_raises_and_does_not_keep_that_row() -> None:
    store, cache = make(3, default=-1)
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get_many(np.arange(8))
        with pytest.raises(ValueError, match="damaged"):
            cache.increment(3)
    assert sorted(cache) == [0, 1, 2, 4, 5, 6, 7]
    store.damaged.clear()
    assert cache.get_many(np.arange(8))[0].tolist() == list(range(0, 80, 10))
    cache.close()
    assert store.saves == []


def test_in_asyncio() -> None:
    store, cache = make(3)

    async def read() -> list[Any]:
        return await asyncio.gather(*(cache.aget(key) for key in range(6)), return_exceptions=True)

    results = asyncio.run(read())
    assert results[3] is store.refusal
    assert [result for key, result in enumerate(results) if key != 3] == [0, 10, 20, 40, 50]
    cache.close()


def test_a_store_that_refuses_everything_is_not_asked_for_each_row() -> None:
    store, cache = make(*range(1000))
    with pytest.raises(ValueError, match="damaged"):
        cache.get_many(np.arange(1000))
    assert len(store.loads) == 2 * HALVINGS + 1
    cache.close()
