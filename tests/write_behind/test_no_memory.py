"""Moments without memory: no thread of ours ends, no row is lost, nobody waits for ever.

`_testcapi.set_nomemory` lets allocations of the interpreter fail, in all threads, from one of them on.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from support.scripts import run

SCRIPT = """
    import random
    import sys
    import time
    import _testcapi
    import numpy as np
    from slabcache import WriteBehindCache

    class Store:
        # Without a lock or an event: those of Python may stay locked where there is no memory.

        key_dtype, value_dtype = np.dtype("u8"), np.dtype("i8")

        def __init__(self, rows):
            self.rows = rows

        def load_many(self, keys):
            rows = [self.rows.get(key) for key in keys.tolist()]
            return np.array([row or 0 for row in rows], "i8"), np.array([row is not None for row in rows])

        def save_many(self, keys, values):
            self.rows.update(zip(keys.tolist(), values.tolist()))

        def delete_many(self, keys):
            for key in keys.tolist():
                self.rows.pop(key, None)

        def close(self):
            pass

    class Quiet:
        write = staticmethod(len)
        flush = staticmethod(int)

    seed = int(sys.argv[1])
    rng = random.Random(seed)
    store = Store({key: key for key in range(1000, 3000)})
    cache = WriteBehindCache(40, store, flush_interval=0.0, flush_rows=5, max_pending=10)
    truth = {}
    failed = 0
    stderr, sys.stderr = sys.stderr, Quiet()    # of threads whose call finds no memory, by design

    for number in range(400):
        key, action = rng.randrange(60), rng.randrange(4)
        start = rng.randrange(1, 120)
        stop = start + rng.choice([1, 1, 2, 5, 30])
        done = True
        _testcapi.set_nomemory(start, stop)
        try:
            if action == 0:
                cache[key] = number
            elif action == 1:
                cache.put_many([key, key + 1], [number, number])
            elif action == 2:
                cache.get(1000 + number)
            else:
                time.sleep(0.0005)
        except BaseException:
            done = False
        finally:
            _testcapi.remove_mem_hooks()
        failed += not done
        written = {0: [key], 1: [key, key + 1]}.get(action, [])
        for each in written:
            if done:
                truth[each] = {number}
            else:
                truth.setdefault(each, {None}).add(number)
    cache.flush(60)
    for key, values in truth.items():
        value = cache.get(key)
        assert value in values, (key, value, values)
        assert store.rows.get(key) == value
    assert cache[2500] == 2500
    assert cache.stats().dirty == 0
    cache._check()
    cache.close(60)
    sys.stderr = stderr
    print(failed)
"""


# Some builds of Python come without it; and 3.12 itself ends where it finds no memory for a frame, as of a
# function that only assigns attributes.
if find_spec("_testcapi") is not None and sys.version_info < (3, 12):

    @pytest.mark.parametrize("seed", range(4))
    def test_moments_without_memory_lose_nothing(seed: int) -> None:
        assert int(run(SCRIPT, seed)) > 10
