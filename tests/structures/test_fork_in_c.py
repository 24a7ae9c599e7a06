"""A fork made in C, which runs none of Python's hooks: no half batch in the child, and locks that work.

The thread that runs batches rests, without wanting the GIL, when a batch is over, until the fork is made:
Python itself hangs in a child where another thread waited for the GIL.
"""

from __future__ import annotations

import pytest

from support.scripts import run

PREAMBLE = """
    import ctypes, gc, os, sysconfig, time, warnings
    import numpy as np
    from slabcache import SlabCache, WriteBehindCache
    from slabcache.machine import lock
    from slabcache._structures import Writer, batches, set_rest
    from slabcache.behind.core import WriteBehindCore
    from support import forks
    from support.threads import beside

    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    c_fork = getattr(ctypes, KIND)(None).fork

    def child(work, fork=c_fork):
        forks.wait(forks.child(lambda: (set_rest(False), work()), fork))
"""

BATCHES = """
    SIZE, FORKS = 100_000, 25
    cache = SlabCache(SIZE, "u8", "u8")
    others = [SlabCache(10, "u8", "u8") for _ in range(3)]
    keys = np.random.default_rng(0).permutation(SIZE).astype("u8")
    cache.put_many(keys, np.zeros(SIZE, "u8"))
    stop = False
    generation = 0

    def stamp():
        global generation
        while not stop:
            generation += 1
            cache.put_many(keys, np.full(SIZE, generation, "u8"))

    def look():
        cache._check()
        values, found = cache.get_many(keys)
        assert found.all() and (values == values[0]).all(), "half a batch"

    def use():
        cache[SIZE + 5] = 1
        assert cache.increment(SIZE + 5) == 2
        cache.put_many(keys + SIZE, keys)
        cache.snapshot()
        cache._check()
        for other in others:
            other[1] = 2
        SlabCache(5, "u4", "u4")[1] = 2

    before = lock.forks()

    def work():
        look()
        use()
        assert lock.forks() == before + 1
        child(lambda: (use(), lock.forks() == before + 2 or os._exit(9)))
        child(use, os.fork)

    with beside(stamp):
        for _ in range(FORKS):
            set_rest(True)
            while not batches():  # it rests, or is between two batches
                set_rest(False)
                time.sleep(0.0001)
                set_rest(True)
            child(work)
            set_rest(False)
        stop = True
    cache._check()
    assert lock.forks() == before
    child(work, os.fork)
    print("done")
"""


@pytest.mark.parametrize("kind", ["PyDLL", "CDLL"])
def test_a_fork_in_c_in_the_middle_of_large_batches(kind: str) -> None:
    """With the GIL, and without it."""
    assert run(f"    KIND = {kind!r}\n" + PREAMBLE + BATCHES) == "done\n"


WRITES = """
    class Core(WriteBehindCore):
        def __init__(self):
            super().__init__(10, 10, "u8", "u8", None)

    inherited = Core()
    inherited._attempt_put(1, 1)

    def refused(call, *arguments):
        try:
            call(*arguments)
        except RuntimeError as error:
            assert "forked child" in str(error)
        else:
            raise AssertionError("a write in a child")

    def work():
        assert inherited._forked
        assert inherited._attempt(1, True, True) == 1
        refused(inherited._attempt_put, 1, 2)
        refused(inherited._attempt_increment, 1, None, 1)
        refused(inherited._delete_least_recent)
        own = Core()
        assert not own._forked
        assert own._attempt_put(1, 2)
        child(lambda: refused(own._attempt_put, 1, 2))

    child(work)
    child(work, os.fork)
    assert inherited._attempt_put(1, 2)
    print("done")
"""


@pytest.mark.parametrize("kind", ["PyDLL", "CDLL"])
def test_a_child_of_a_fork_in_c_may_not_write_behind(kind: str) -> None:
    assert run(f"    KIND = {kind!r}\n" + PREAMBLE + WRITES) == "done\n"


SCALAR = """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        FORKS, KEYS = 50, 300
        caches = [SlabCache(200, "u8", "u8") for _ in range(3)]
        writers = [Writer() for _ in caches]

        def work():
            gc.disable()
            for cache in caches:
                cache._check()
                cache[5] = 6
                assert cache[5] == 6
                cache.put_many(np.arange(1000), np.arange(1000))
                cache._check()

        with beside(*(lambda at=at: writers[at].run(caches[at], KEYS) for at in range(3))):
            for _ in range(FORKS):
                child(work)
            for writer in writers:
                writer.stop()
        for cache in caches:
            cache._check()
    print("done")
"""


def test_a_fork_in_c_in_the_middle_of_scalar_calls_without_a_gil() -> None:
    """With one there is nothing to see: no thread is in a scalar call while another has the GIL."""
    assert run("    KIND = 'PyDLL'\n" + PREAMBLE + SCALAR) == "done\n"
