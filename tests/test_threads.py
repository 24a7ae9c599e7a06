"""Threads: every call is atomic, a batch as a whole, and nobody waits for the GIL in vain."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from slabcache import SlabCache
from support.scripts import run
from support.threads import together

STATE = [("n", "u4"), ("twice", "u8"), ("raw", "V9")]
LARGE = 30_000  # rows: enough for any build to run the batch without the GIL


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("capacity", [1, 2, 7, 50])
def test_mixed_calls_on_a_tiny_cache(capacity: int) -> None:
    """Whatever one thread sees is a row that some thread wrote: `twice` belongs to `n`."""
    told = threading.Lock()
    evicted = 0

    def on_evict(keys: np.ndarray, values: np.ndarray) -> None:
        nonlocal evicted
        assert np.array_equal(values["twice"], 2 * values["n"].astype("u8"))
        with told:
            evicted += len(keys)

    cache = SlabCache(capacity, "u4", STATE, on_evict=on_evict)

    def row(number: int) -> tuple[int, int, bytes]:
        return (number, 2 * number, bytes([number % 251]) * 9)

    def worker(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for step in range(250):
            keys = rng.integers(0, 60, 12)
            key = int(keys[0])
            number = seed * 1000 + step
            match step % 10:
                case 0:
                    rows = np.array([row(number + at) for at in range(12)], STATE)
                    cache.put_many(keys, rows)
                case 1:
                    cache.delete_many(keys[:3])
                case 2 | 3:
                    values, found = cache.get_many(keys)
                    assert np.array_equal(values["twice"], 2 * values["n"].astype("u8"))
                    assert not values["n"][~found].any()
                case 4:
                    keys_now, values = cache.snapshot()
                    assert len(set(keys_now.tolist())) == len(keys_now) <= capacity
                    assert np.array_equal(values["twice"], 2 * values["n"].astype("u8"))
                case 5:
                    cache.pop(key, None)
                    cache.touch_many(keys)
                case 6:
                    cache.setdefault(key, row(number))
                case 7:
                    cache.update({key: row(number), key + 1: row(number + 1)})
                case 8:
                    stats = cache.stats()
                    held = stats.insertions - stats.evictions - stats.deletions
                    assert held == stats.size <= stats.capacity
                case _:
                    cache[key] = row(number)
            got = cache.get(key)
            assert got is None or got.twice == 2 * got.n
            assert got is None or got.raw == bytes([got.n % 251]) * 9

    together(*(lambda seed=seed: worker(seed) for seed in range(1, 7)))
    cache._check()
    assert evicted == cache.stats().evictions


def test_increments_are_not_lost() -> None:
    cache = SlabCache(4, "u4", [("n", "u8"), ("m", "i4")])
    cache[1] = (0, 0)
    cache[2] = (0, 0)

    def scalars() -> None:
        for _ in range(2000):
            cache.increment(1, "n")
            cache.increment(2, "m", -1)

    def batches() -> None:
        for _ in range(200):
            cache.increment_many([1, 2, 1], "n")
            cache.increment_many(np.array([1, 1, 2]), "m", by=np.array([2, 3, -5]))

    together(scalars, scalars, batches, batches)
    assert cache[1] == (2 * 2000 + 2 * 400, 2 * 200 * 5)
    assert cache[2] == (2 * 200, -2 * 2000 - 2 * 200 * 5)
    cache._check()


def test_results_of_increment_are_each_seen_once() -> None:
    cache = SlabCache(1, "u4", "u8")
    cache[0] = 0
    seen: list[list[int]] = [[], [], []]
    together(*(lambda mine=mine: mine.extend(cache.increment(0) for _ in range(2000)) for mine in seen))
    assert sorted(seen[0] + seen[1] + seen[2]) == list(range(1, 6001))


def test_a_batch_is_atomic_as_a_whole() -> None:
    """Two writers stamp all rows with their generation; no reader ever sees a mix."""
    cache = SlabCache(LARGE, "u4", "u8")
    keys = np.arange(LARGE)
    cache.put_many(keys, np.zeros(LARGE, "u8"))
    done = threading.Event()
    writing = 2
    lock = threading.Lock()

    def writer(first: int) -> None:
        nonlocal writing
        order = keys if first == 1 else keys[::-1]
        for generation in range(first, 120, 2):
            cache.put_many(order, np.full(LARGE, generation, "u8"))
        with lock:
            writing -= 1
            if not writing:
                done.set()

    def reader(read: Callable[[], np.ndarray]) -> None:
        while not done.is_set():
            values = read()
            assert len(values) == LARGE
            assert (values == values[0]).all()

    together(
        lambda: writer(1),
        lambda: writer(2),
        lambda: reader(lambda: cache.get_many(keys)[0]),
        lambda: reader(lambda: cache.peek_many(keys[::-1])[0]),
        lambda: reader(lambda: cache.snapshot()[1]),
    )
    cache._check()


def test_large_increments_are_atomic() -> None:
    cache = SlabCache(LARGE, "u4", "u8")
    keys = np.arange(LARGE)
    cache.put_many(keys, np.zeros(LARGE, "u8"))
    seen: list[list[int]] = [[], []]

    def worker(mine: list[int]) -> None:
        for _ in range(30):
            values, _ = cache.increment_many(keys)
            assert (values == values[0]).all()
            mine.append(int(values[0]))

    together(lambda: worker(seen[0]), lambda: worker(seen[1]))
    assert sorted(seen[0] + seen[1]) == list(range(1, 61))


def test_scalar_calls_while_large_batches_run() -> None:
    """Scalar calls get through between batches, and see each either wholly or not at all."""
    cache = SlabCache(LARGE, "u4", "u8")
    keys = np.arange(LARGE)
    cache.put_many(keys, np.zeros(LARGE, "u8"))
    done = threading.Event()

    def batches() -> None:
        for generation in range(1, 100):
            cache.put_many(keys, np.full(LARGE, generation, "u8"))
        done.set()

    def scalars() -> None:
        last = 0
        while not done.is_set():
            first = cache[0]
            assert cache[LARGE - 1] >= first >= last  # writes go up, in whole batches
            last = first
            cache.touch(7)
            assert 5 in cache

    together(batches, scalars, scalars)
    assert set(cache.values()) == {99}
    cache._check()


def test_the_gil_is_released_while_a_large_batch_runs() -> None:
    """With switches turned off, another thread moves on only if the batch lets it."""
    sys.setswitchinterval(1000)
    count = 0
    stop = False

    def ticking() -> None:
        nonlocal count
        while not stop:
            count += 1
            time.sleep(0)  # gives the GIL back at once

    cache = SlabCache(200_000, "u8", "u8")
    keys = np.random.default_rng(1).permutation(2_000_000).astype("u8")
    thread = threading.Thread(target=ticking)
    thread.start()
    try:
        before = count
        cache.put_many(keys, keys)
        during_put = count - before
        before = count
        cache.get_many(keys)
        during_get = count - before
    finally:
        stop = True
        thread.join()
    assert during_put > 0
    assert during_get > 0


def test_callbacks_that_enter_the_cache_again_from_many_threads() -> None:
    cache: SlabCache
    local = threading.local()

    def on_evict(keys: np.ndarray, values: np.ndarray) -> None:
        depth = getattr(local, "depth", 0)
        if depth < 3:
            local.depth = depth + 1
            try:
                cache.get_many(keys)
                cache[int(keys[0])] = int(values[0])
                cache.snapshot()
            finally:
                local.depth = depth

    cache = SlabCache(5, "u4", "u8", on_evict=on_evict)

    def worker(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            keys = rng.integers(0, 30, 8)
            cache.put_many(keys, keys)
            cache.setdefault(int(keys[0]), 5)

    together(*(lambda seed=seed: worker(seed) for seed in range(4)))
    cache._check()
    assert len(cache) == 5


def test_resize_copy_and_clear_beside_everything_else() -> None:
    cache = SlabCache(64, "u4", "u8")
    rounds = 150

    def writer() -> None:
        for step in range(rounds * 4):
            keys = np.arange(step, step + 40)
            cache.put_many(keys, keys)
            values, found = cache.get_many(keys)
            assert np.array_equal(values[found], keys[found])

    def resizer() -> None:
        for step in range(rounds):
            cache.resize(1 + step * 37 % 200)

    def copier() -> None:
        for _ in range(rounds):
            twin = cache.copy()
            twin._check()
            assert all(key == value for key, value in twin.items())
            assert twin == twin.copy()

    def clearer() -> None:
        for _ in range(rounds):
            cache.clear()
            _ = cache == {1: 1}

    def iterating() -> None:
        for _ in range(rounds * 2):
            try:
                for key, value in cache.items():
                    assert key == value
            except RuntimeError:
                continue

    together(writer, writer, resizer, copier, clearer, iterating)
    cache._check()


def test_comparing_two_caches_with_each_other_both_ways() -> None:
    """No order of locks can be wrong: this would stop for good."""
    one, two = SlabCache(500, "u4", "u8"), SlabCache(500, "u4", "u8")
    for cache in (one, two):
        cache.put_many(range(500), range(500))
    results: list[bool] = []

    def compare(left: Any, right: Any) -> None:
        results.extend(left == right for _ in range(60))

    def update(left: Any, right: Any) -> None:
        for _ in range(60):
            left.update(right.copy())

    together(
        lambda: compare(one, two),
        lambda: compare(two, one),
        lambda: update(one, two),
        lambda: update(two, one),
    )
    one._check()
    two._check()
    assert one == two


def test_one_iterator_shared_by_threads() -> None:
    cache = SlabCache(2000, "u4", "u4")
    cache.put_many(range(2000), range(2000))
    iterator = iter(cache)
    seen: list[list[int]] = [[], [], []]

    def take(mine: list[int]) -> None:
        mine.extend(iterator)

    together(*(lambda mine=mine: take(mine) for mine in seen))
    together_seen = seen[0] + seen[1] + seen[2]
    assert set(together_seen) <= set(range(2000))  # no crash, nothing made up
    cache._check()


EXIT = """
    import threading, time
    import numpy as np
    from slabcache import SlabCache

    cache = SlabCache(200_000, "u8", "u8")
    keys = np.arange(200_000)

    def work():
        while True:
            cache.put_many(keys, keys)

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()

    class Late:  # its finalizer runs when the threads are gone for good, wherever they were
        def __del__(self):
            cache[1] = 2
            assert cache[1] == 2
            cache.get_many(keys)

    late = Late()
    time.sleep(0.2)
    print("done", flush=True)
"""


def test_the_interpreter_exits_in_the_middle_of_batches() -> None:
    for _ in range(5):
        assert run(EXIT) == "done\n"
