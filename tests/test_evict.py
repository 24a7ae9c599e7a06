"""on_evict: when it is called, with what, and what it may do."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slabcache import SlabCache
from support.model import canon_rows


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], list[Any]]] = []

    def __call__(self, keys: np.ndarray, values: np.ndarray) -> None:
        assert isinstance(keys, np.ndarray)
        assert isinstance(values, np.ndarray)
        self.calls.append((canon_rows(keys), canon_rows(values)))


def build(capacity: int = 2, **arguments: Any) -> tuple[SlabCache, Recorder]:
    recorder = Recorder()
    return SlabCache(capacity, "u4", "i8", on_evict=recorder, **arguments), recorder


def test_scalar_writes() -> None:
    cache, recorder = build()
    for key in range(4):
        cache[key] = 10 * key
    assert recorder.calls == [([0], [0]), ([1], [10])]


def test_what_evicts() -> None:
    cache, recorder = build()
    cache.put_many([1, 2], [10, 20])
    assert recorder.calls == []
    cache.setdefault(3, 30)
    cache.update({4: 40})
    cache.put_many([5], [50])
    cache.resize(1)
    assert recorder.calls == [([1], [10]), ([2], [20]), ([3], [30]), ([4], [40])]


def test_deletion_is_not_eviction() -> None:
    cache, recorder = build(4)
    cache.put_many([1, 2, 3, 4], [1, 2, 3, 4])
    del cache[1]
    cache.pop(2)
    cache.popitem()
    cache.delete_many([4])
    cache[5] = 5
    cache.clear()
    cache[6] = 6
    cache[6] = 7  # an overwritten value is not evicted either
    del cache
    gc.collect()
    assert recorder.calls == []


def test_once_for_a_batch_least_recent_first() -> None:
    cache, recorder = build(3)
    cache.put_many([1, 2, 3], [1, 2, 3])
    cache.touch(1)
    assert cache.put_many([4, 5, 2, 6], [4, 5, 22, 6]) == 4
    # 2 went out, came in again and stayed; 4 had come in with this batch and stayed too.
    assert recorder.calls == [([2, 3, 1, 4], [2, 3, 1, 4])]
    assert list(cache) == [5, 2, 6]


def test_rows_that_come_and_go_within_a_batch() -> None:
    cache, recorder = build(1)
    keys, values = cache.put_many([1, 2, 3], [10, 20, 30], return_evicted=True)
    assert recorder.calls == [([1, 2], [10, 20])]
    assert (keys.tolist(), values.tolist()) == ([1, 2], [10, 20])


def test_once_for_a_resize() -> None:
    cache, recorder = build(100)
    cache.put_many(np.arange(100), np.arange(100))
    cache.touch(0)
    assert cache.resize(10) == 90
    assert recorder.calls == [(list(range(1, 91)), list(range(1, 91)))]
    assert cache.stats().evictions == 90
    cache.resize(1000)
    assert len(recorder.calls) == 1


def test_large_batch() -> None:
    cache, recorder = build(1000)
    cache.put_many(np.arange(50_000), np.arange(50_000))
    assert len(recorder.calls) == 1
    assert recorder.calls[0][0] == list(range(49_000))


def test_dtypes_and_contents_of_the_arrays() -> None:
    key = np.dtype([("a", "u1"), ("b", ">u4")], align=True)
    value = np.dtype([("n", "S3"), ("grid", "i2", (2,))])
    seen: list[Any] = []
    cache = SlabCache(1, key, value, on_evict=lambda keys, values: seen.append((keys, values)))
    cache[1, 2] = (b"ab", [3, 4])
    cache[3, 4] = (b"", [0, 0])
    ((keys, values),) = seen
    assert (keys.dtype, values.dtype) == (key, value)
    assert canon_rows(keys) == [(1, 2)]
    assert values["n"].tolist() == [b"ab"]
    assert values["grid"].tolist() == [[3, 4]]
    cache.clear()
    assert values["grid"].tolist() == [[3, 4]]  # the arrays are the callback's own


class RefusedError(Exception):
    pass


OPERATIONS: dict[str, tuple[Callable[[SlabCache], Any], list[tuple[int, int]]]] = {
    "[]=": (lambda cache: cache.__setitem__(3, 30), [(2, 20), (3, 30)]),
    "setdefault": (lambda cache: cache.setdefault(3, 30), [(2, 20), (3, 30)]),
    "put_many": (lambda cache: cache.put_many([3, 4], [30, 40]), [(3, 30), (4, 40)]),
    "put_many, evicted returned": (
        lambda cache: cache.put_many([3], [30], return_evicted=True),
        [(2, 20), (3, 30)],
    ),
    "resize": (lambda cache: cache.resize(1), [(2, 20)]),
}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_what_it_raises_reaches_the_caller_and_the_operation_stays(name: str) -> None:
    def refuse(keys: np.ndarray, values: np.ndarray) -> None:
        raise RefusedError

    cache = SlabCache(2, "u4", "i8", on_evict=refuse)
    cache.put_many([1, 2], [10, 20])
    operation, after = OPERATIONS[name]
    with pytest.raises(RefusedError):
        operation(cache)
    cache._check()
    assert list(cache.items()) == after
    stats = cache.stats()
    assert stats.insertions - stats.evictions == stats.size
    assert cache.peek(2) == (20 if (2, 20) in after else None)


def test_update_stops_where_on_evict_raises() -> None:
    def refuse(keys: np.ndarray, values: np.ndarray) -> None:
        raise RefusedError

    cache = SlabCache(2, "u4", "i8", on_evict=refuse)
    with pytest.raises(RefusedError):
        cache.update([(1, 1), (2, 2), (3, 3)])
    assert 3 in cache
    cache._check()


def test_it_may_use_the_cache() -> None:
    """No lock is held: every call works, and sees the operation done."""
    seen: list[Any] = []

    def use(keys: np.ndarray, values: np.ndarray) -> None:
        key = int(keys[0])
        seen.append((key, key in cache, list(cache), cache.stats().evictions))
        cache._check()
        cache.get_many(keys)
        cache.snapshot()
        cache.increment(next(reversed(cache)), by=1)
        cache.peek(key)
        cache.touch_many(keys)
        repr(cache)
        cache.copy()

    cache = SlabCache(2, "u4", "i8", on_evict=use)
    for key in (1, 2, 3):
        cache[key] = 0
    assert seen == [(1, False, [2, 3], 1)]
    assert cache[3] == 1


def test_writes_from_within_evict_again() -> None:
    """A callback that puts the evicted entry into the cache again, up to a depth."""
    depth = 0
    log: list[int] = []

    def put_back(keys: np.ndarray, values: np.ndarray) -> None:
        nonlocal depth
        log.extend(keys.tolist())
        if depth < 5:
            depth += 1
            cache.put_many(keys, values)

    cache = SlabCache(2, "u4", "i8", on_evict=put_back)
    cache.put_many([1, 2], [10, 20])
    cache[3] = 30
    cache._check()
    assert log == [1, 2, 3, 1, 2, 3]
    assert sorted(cache) == [1, 2]
    assert cache.stats()[2:6] == (8, 0, 0, 6)


def test_it_may_clear_and_resize() -> None:
    def shrink(keys: np.ndarray, values: np.ndarray) -> None:
        cache.clear()
        cache.resize(7)

    cache = SlabCache(2, "u4", "i8", on_evict=shrink)
    assert cache.put_many([1, 2, 3, 4], [1, 2, 3, 4]) == 2
    assert (len(cache), cache.capacity) == (0, 7)
    cache._check()


def test_setdefault_returns_the_value_though_the_callback_removed_it() -> None:
    cache = SlabCache(1, "u4", "i8", on_evict=lambda keys, values: cache.clear())
    cache[1] = 10
    assert cache.setdefault(2, 20) == 20
    assert len(cache) == 0


def test_no_memory_of_earlier_batches() -> None:
    """A batch tells of its own evictions only, also after one whose callback raised."""
    told: list[list[int]] = []

    def refuse_once(keys: np.ndarray, values: np.ndarray) -> None:
        told.append(keys.tolist())
        if len(told) == 1:
            raise RefusedError

    cache = SlabCache(1, "u4", "i8", on_evict=refuse_once)
    with pytest.raises(RefusedError):
        cache.put_many([1, 2], [1, 2])
    cache.put_many([3], [3])
    cache.put_many([3], [4])
    assert told == [[1], [2]]


def test_nothing_is_kept_alive() -> None:
    """A cache whose callback refers to it is a cycle that the collector can free."""

    class Owner:
        def __init__(self) -> None:
            self.cache = SlabCache(1, "u4", "i8", on_evict=self.evicted)

        def evicted(self, keys: np.ndarray, values: np.ndarray) -> None:
            pass

    owner = Owner()
    owner.cache[1] = 1
    owner.cache[2] = 1
    reference, cache = weakref.ref(owner), weakref.ref(owner.cache)
    del owner
    gc.collect()
    assert reference() is None
    assert cache() is None


def test_a_cache_that_dies_within_its_callback() -> None:
    holder: list[SlabCache] = []

    def let_go(keys: np.ndarray, values: np.ndarray) -> None:
        holder.clear()
        gc.collect()

    holder.append(SlabCache(1, "u4", "i8", on_evict=let_go))
    assert holder[0].put_many([1, 2], [1, 2]) == 1
    assert holder == []


def test_a_callback_in_c_that_recurses() -> None:
    """No Python frame stands between its calls, so the core itself must count them."""

    class Echo(SlabCache):
        def __init__(self) -> None:
            super().__init__(1, "u8", "u8", on_evict=self.put_many)

    cache = Echo()
    cache[1] = 1
    with pytest.raises(RecursionError):
        cache[2] = 2
    cache._check()


@pytest.mark.parametrize("dtype", ["u4", ">u4"])
def test_what_a_callback_does_to_its_arrays_is_not_done_again(dtype: str) -> None:
    """Where the caller gets the evicted rows as well."""

    def reshape(keys: np.ndarray, values: np.ndarray) -> None:
        keys.resize((1, keys.size), refcheck=False)
        values[:] = 7

    cache = SlabCache(2, key="u8", value=dtype, on_evict=reshape)
    keys, values = cache.put_many(np.arange(10), np.arange(10), return_evicted=True)
    assert keys.tolist() == [list(range(8))]
    assert values.tolist() == [7] * 8
