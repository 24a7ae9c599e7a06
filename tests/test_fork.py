"""fork: the child has its own working copy, whatever the parent's threads were doing."""

from __future__ import annotations

from support.scripts import run

PREAMBLE = """
    import os, threading, warnings
    import numpy as np
    from slabcache import SlabCache
    from support.forks import child, wait
    from support.threads import beside

    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
"""

COPY = """
    told = []
    cache = SlabCache(1000, [("a", "u4"), ("b", "u4")], [("n", "i8")],
                      on_evict=lambda keys, values: told.extend(keys.tolist()))
    for at in range(1000):
        cache[at, at] = (at,)
    iterator = iter(cache)
    next(iterator)

    def work():
        cache._check()
        assert len(cache) == 1000
        assert next(iterator) == (1, 1)
        assert cache[5, 5] == (5,)
        cache[5, 5] = (-5,)
        cache.increment((6, 6), "n", 100)
        cache[7777, 1] = (1,)
        assert told == [(0, 0)]
        keys = np.arange(4000).reshape(2000, 2)
        assert cache.put_many(keys, np.zeros(2000, cache.value_dtype)) >= 1000
        cache.resize(10)
        cache._check()
        cache.clear()
        os.waitpid(child(lambda: (cache._check(), cache.put_many([(1, 1)], [(1,)]))), 0)

    pid = child(work)
    for at in range(1000, 1500):
        cache[at, at] = (at,)
    wait(pid)
    cache._check()
    assert list(cache) == [(at, at) for at in range(500, 1500)]
    assert cache.peek((600, 600)) == (600,)
    assert cache.stats()[2:6] == (1500, 0, 0, 500)
    print("done")
"""


def test_parent_and_child_go_their_own_ways() -> None:
    assert run(PREAMBLE + COPY) == "done\n"


BUSY = """
    SIZE, FORKS = 100_000, 40
    cache = SlabCache(SIZE, "u8", "u8")
    keys = np.random.default_rng(0).permutation(SIZE).astype("u8")
    cache.put_many(keys, np.zeros(SIZE, "u8"))
    stop = threading.Event()
    generation = 0

    def stamp():
        global generation
        while not stop.is_set():
            generation += 1
            cache.put_many(keys, np.full(SIZE, generation, "u8"))

    def churn():
        while not stop.is_set():
            cache.get_many(keys[: SIZE // 2])
            cache.increment_many(keys, by=0)
            cache.touch(5)

    def work():
        cache._check()
        values, found = cache.get_many(keys)
        assert found.all() and (values == values[0]).all(), "half a batch"
        cache[SIZE + 5] = 1
        assert cache.put_many(keys + SIZE, keys) >= SIZE - 1
        # A child may start threads of its own.
        thread = threading.Thread(target=lambda: cache.get_many(keys))
        thread.start()
        thread.join()
        cache.snapshot()
        cache._check()

    with beside(stamp, churn):
        for _ in range(FORKS):
            wait(child(work))
            cache.get(3)
        stop.set()
    cache._check()
    print("done")
"""


def test_fork_in_the_middle_of_large_batches() -> None:
    assert run(PREAMBLE + BUSY) == "done\n"


MANY_CACHES = """
    caches = [SlabCache(20_000, "u4", "u8") for _ in range(8)]
    keys = np.arange(20_000)
    stop = threading.Event()

    def work(mine):
        while not stop.is_set():
            for cache in mine:
                cache.put_many(keys, keys)
            SlabCache(10, "u4", "u4")[1] = 1  # caches come and go while others fork
            mine[0].copy()

    def use():
        for cache in caches:
            cache._check()
            cache[5] = 6
            assert cache[5] == 6
            cache.get_many(keys)
        SlabCache(5, "u4", "u4")[1] = 2

    # Several children live at once, and one thread forks beside another.
    def forking():
        for _ in range(5):
            pids = [child(use) for _ in range(2)]
            for pid in pids:
                wait(pid)

    with beside(*(lambda at=at: work(caches[at::3]) for at in range(3))):
        with beside(forking, forking):
            pass
        stop.set()
    for cache in caches:
        cache._check()
    print("done")
"""


def test_fork_with_many_caches_busy() -> None:
    assert run(PREAMBLE + MANY_CACHES) == "done\n"


WITHIN = """
    # A fork from within the callback, where the cache's operation is over but its caller is not.
    depth = 0

    def work():
        cache._check()
        cache.put_many(range(1, 4), range(3))  # evicts: the grandchildren end here
        cache._check()

    def on_evict(keys, values):
        global depth
        depth += 1
        if depth < 3:
            wait(child(work))
        depth -= 1

    cache = SlabCache(2, "u4", "u4", on_evict=on_evict)
    cache.put_many([0, 1], [0, 0])
    cache.put_many([7, 8], [0, 0])
    cache._check()
    print("done")
"""


def test_fork_within_a_callback() -> None:
    assert run(PREAMBLE + WITHIN) == "done\n"


SHARED = """
    # Reading in a child never unshares a page: its private memory hardly grows.
    def private():
        with open("/proc/self/smaps_rollup") as file:
            fields = dict(line.split()[:2] for line in file if line.startswith("Private"))
        return 1024 * int(fields["Private_Dirty:"])

    cache = SlabCache(1_000_000, "u8", "V40")
    keys = np.arange(1_000_000)
    cache.put_many(keys, np.zeros(1_000_000, "V40"))
    out = np.zeros(1_000_000, "V40")
    cache.peek_many(keys, out=out)
    expected = cache.nbytes / 5

    def read():
        before = private()
        for start in range(0, 1_000_000, 10_000):
            cache.peek_many(keys[start : start + 10_000])
            cache.contains_many(keys[start : start + 10_000])
            assert cache.peek(start) is not None
        assert private() - before < expected, (private(), before)

    def write():
        before = private()
        cache.get_many(keys[::-1])  # moves each entry: this must be seen, or the measure is blind
        assert private() - before > expected, (private(), before)

    wait(child(read))
    wait(child(write))
    print("done")
"""


def test_reading_shares_the_parents_pages() -> None:
    assert run(PREAMBLE + SHARED) == "done\n"


HOOKS = (
    """
    import os, sys

    cache = None

    def use():
        if cache is not None:
            cache.put_many(keys, keys)
            cache.clear()
            cache.put_many(keys, keys)
            cache._check()

    # Registered before slabcache is imported: 'before' runs after its own hook, the others before it.
    os.register_at_fork(before=use, after_in_parent=use, after_in_child=use)
"""
    + PREAMBLE
    + """
    keys = np.arange(5_000)
    cache = SlabCache(5_000, "u8", "u8")
    for _ in range(3):
        wait(child(use))
    print("done")
"""
)


def test_at_fork_hooks_may_use_a_cache() -> None:
    assert run(HOOKS) == "done\n"


ORDER = (
    PREAMBLE
    + """
    cache = SlabCache(300_000, "u8", "u8")
    keys = np.arange(300_000)
    held = threading.Lock()
    stop = threading.Event()

    def work():
        while not stop.is_set():
            with held:
                cache.put_many(keys, keys)

    with beside(work):
        for _ in range(5):
            wait(child(lambda: cache._check()))
        stop.set()
    print("done")
"""
)


def test_a_lock_of_another_fork_hook_held_around_batches() -> None:
    """Its hook, registered earlier, runs after slabcache's own, and waits for a thread that runs a batch."""
    script = """
    import os
    held = None
    os.register_at_fork(
        before=lambda: held and held.acquire(),
        after_in_parent=lambda: held and held.release(),
        after_in_child=lambda: held and held.release(),
    )
    """
    assert run(script + ORDER) == "done\n"
