"""Rows that the store will never give: an error for those who ask for them, and for nobody else."""

from __future__ import annotations

import asyncio
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from slabcache import RowsRejected, WriteBehindCache
from slabcache.behind.loader import CALLS_MAX
from support.faulty_store import FaultyStore

KEYS = 20


def make(
    *damaged: int, refusal: Exception | None = None, **options: Any
) -> tuple[FaultyStore, WriteBehindCache]:
    store = FaultyStore(rows={key: key * 10 for key in range(1000)})
    store.damaged = set(damaged)
    store.refusal = refusal or RowsRejected("damaged")
    return store, WriteBehindCache(1000, store, flush_interval=1000.0, **options)


def overlapping_reads(store: FaultyStore, cache: WriteBehindCache) -> list[Future[Any]]:
    """Of all keys, by one caller each, while nobody has got an answer."""
    store.gate.clear()
    with ThreadPoolExecutor(KEYS) as pool:
        results = [pool.submit(cache.get, key) for key in range(KEYS)]
        while len(cache._loader._flights.places) < KEYS:
            pass
        store.gate.set()
    return results


@pytest.mark.parametrize("failure", [ValueError("no"), RowsRejected("no"), OSError("no"), KeyError("no")])
def test_callers_who_share_a_load_do_not_share_its_failure(failure: Exception) -> None:
    """Whatever the store raises for a row that it does not load by itself."""
    store, cache = make(3, 18, refusal=failure)
    for key, result in enumerate(overlapping_reads(store, cache)):
        if key in (3, 18):
            raised = result.exception()
            assert raised is not failure
            assert type(raised) is (RuntimeError if isinstance(failure, KeyError) else type(failure))
            assert "no" in str(raised)
        else:
            assert result.result() == key * 10
    assert len(cache) == KEYS - 2
    store.damaged.clear()
    assert cache[3] == 30
    cache.close()


def waiting(cache: WriteBehindCache, key: int) -> int:
    """Calls that wait for a key."""
    packed = key.to_bytes(8, "little")
    flight = cache._loader._flights.places.get(packed)
    return 0 if flight is None else flight.keys[packed]


def test_each_who_waits_gets_an_exception_of_their_own() -> None:
    """Shared, it would gather the frames of all of them."""
    store, cache = make(3, refusal=OSError(5, "down"))
    store.gate.clear()
    with ThreadPoolExecutor(50) as pool:
        results = [pool.submit(cache.get, 3) for _ in range(50)]
        while waiting(cache, 3) < 50:
            pass
        store.gate.set()
    raised = [result.exception() for result in results]
    assert len(set(map(id, raised))) == 50
    assert all(isinstance(error, OSError) and error.errno == 5 for error in raised)
    assert {id(error.__cause__) for error in raised if error} == {id(store.refusal)}
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in raised if error) < 12
    cache.close()


def test_an_error_that_cannot_be_copied_is_told_by_another() -> None:
    class OddError(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"{first} and {second}")

    store, cache = make(3, refusal=OddError(1, 2))
    with pytest.raises(RuntimeError, match="OddError: 1 and 2") as raised:
        cache.get(3)
    assert raised.value.__cause__ is store.refusal
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
        with pytest.raises(RowsRejected, match="damaged"):
            cache.get_many(np.arange(8))
        with pytest.raises(RowsRejected, match="damaged"):
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
    assert results[3].__cause__ is store.refusal
    assert [result for key, result in enumerate(results) if key != 3] == [0, 10, 20, 40, 50]
    cache.close()


def test_a_store_that_refuses_everything_is_not_asked_for_each_row() -> None:
    store, cache = make(*range(2000))
    with pytest.raises(RowsRejected, match="damaged"):
        cache.get_many(np.arange(2000))
    assert len(store.loads) == CALLS_MAX
    cache.close()
