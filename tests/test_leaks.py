"""Leaks: every call, error paths included, repeated in a process of its own.

Two measures catch two kinds of leak. Each call makes fresh arguments, so a reference that is not
given back keeps a memory block: `sys.getallocatedblocks` grows. References to what all calls share
(dtypes, names, the callback) are counted. Arenas lie outside of Python's allocator: for them the
address space of the process is watched.
"""

from __future__ import annotations

import pytest

from support.scripts import run

CALLS = """
    import copy, gc, pickle, sys
    import numpy as np
    from slabcache import SlabCache

    KEY = np.dtype([("a", "u8"), ("b", "S9")])
    VALUE = np.dtype([("n", "i8"), ("x", "f8"), ("t", "S40"), ("d", "M8[us]"), ("g", "i4", (2,))])
    FIELD = "".join(["n"])
    told = lambda keys, values: None
    SHARED = [KEY, VALUE, VALUE["n"], VALUE["g"], FIELD, told, SlabCache]

    class Index:
        def __init__(self, value): self.value = value
        def __index__(self): return self.value

    class Raising:
        def __index__(self): raise ZeroDivisionError(str(id(self)))
        def __getitem__(self, key): raise ZeroDivisionError(str(id(self)))
        def keys(self): return ["n"]

    number = 10**6
    def fresh():
        global number
        number += 1
        return number

    def key(at=None): return (fresh() if at is None else at + 10**5, b"key" + b"x" * 3)
    def row(): return (fresh(), fresh() / 7, b"text%d" % fresh(), np.datetime64(fresh(), "us"),
                       np.array([fresh(), 2], "i4"))
    def build(): return SlabCache(50, KEY, VALUE, on_evict=told)
    def keys(): return np.array([key(at) for at in range(20)], KEY)
    def rows(): return np.ones(20, VALUE)

    cache = build()
    numbers = SlabCache(50, "u8", "i8", on_evict=told)
    def refill():
        cache.put_many(keys(), rows())
        numbers.put_many(np.arange(50), np.arange(50))

    def bad(call, *errors):
        def run():
            try:
                call()
            except errors or (TypeError, ValueError, OverflowError, KeyError) as error:
                error.__traceback__ = None
            else:
                raise AssertionError(f"{call} has not raised")
        return run

    def stop_half_way():
        yield key(); yield row(); raise ZeroDivisionError

    def iterate_and_change():
        numbers[60] = fresh()
        iterator = iter(numbers.items()); next(iterator); numbers[61] = fresh(); next(iterator)

    def raising_callback():
        def refuse(keys, values): raise ZeroDivisionError(fresh())
        tiny = SlabCache(1, "u8", "u8", on_evict=refuse)
        tiny.put_many([1, 2], [1, 2])

    def cycle():
        owner = type("Owner", (), {})()
        owner.cache = SlabCache(1, "u8", "u8", on_evict=lambda keys, values: owner)
        owner.cache.put_many([1, 2, 3], [1, 2, 3])

    class Sub(SlabCache):
        pass

    calls = {
        "set": lambda: cache.__setitem__(key(), row()),
        "set by mapping": lambda: cache.__setitem__(key(), dict(zip(VALUE.names, row()))),
        "set by record": lambda: cache.__setitem__(key(), cache[key(1)]),
        "set by void": lambda: cache.__setitem__(keys()[0], rows()[0]),
        "get": lambda: (cache[key(1)], cache.get(key()), cache.get(key(), fresh())),
        "get by index": lambda: (numbers[Index(5)], numbers.get(Index(fresh()))),
        "peek": lambda: (cache.peek(key(1)), cache.peek(key(), fresh())),
        "contains": lambda: (key(1) in cache, key() in cache),
        "del": lambda: (cache.__delitem__(key(2)), cache.__setitem__(key(2), row())),
        "pop": lambda: (cache.pop(key(2)), cache.pop(key(), fresh()), refill()),
        "popitem": lambda: (cache.popitem(), refill()),
        "setdefault": lambda: (cache.setdefault(key(), row()), cache.setdefault(key(1), fresh())),
        "update": lambda: (cache.update({key(): row()}), cache.update([(key(), row())])),
        "touch": lambda: (cache.touch(key(1)), cache.touch(key())),
        "increment": lambda: (cache.increment(key(1), FIELD, fresh()),
                              cache.increment(key(1), "x", fresh() / 3)),
        "increment by index": lambda: numbers.increment(1, by=Index(fresh())),
        "update_fields": lambda: cache.update_fields(key(1), n=fresh(), t=b"%d" % fresh()),
        "record": lambda: (lambda r: (r.n, r["x"], r[2], r[-1], list(r), r._asdict(), r._fields,
                                      repr(r), r == r, r == row(), len(r)))(cache[key(1)]),
        "record hash": lambda: hash(SlabCacheRecord()),
        "record pickle": lambda: pickle.loads(pickle.dumps(cache[key(1)])),
        "iterate": lambda: (list(cache), list(reversed(cache)), list(cache.items())),
        "iterator dropped": lambda: (next(iter(cache)), next(iter(cache.items()))),
        "views": lambda: (len(cache.keys()), key(1) in cache.keys(), fresh() in numbers.values(),
                          (fresh(), fresh()) in numbers.items()),
        "equal": lambda: (numbers == dict(numbers), numbers == numbers.copy(), numbers == {}),
        "repr": lambda: repr(cache),
        "stats": lambda: (cache.stats(), cache.stats().hit_ratio, cache.reset_stats()),
        "properties": lambda: (cache.capacity, cache.key_dtype, cache.value_dtype, cache.nbytes,
                               cache.bytes_per_entry, cache.on_evict),
        "get_many": lambda: (cache.get_many(keys()), cache.get_many(list(keys()))),
        "out": lambda: cache.get_many(keys(), out=np.zeros(20, VALUE)),
        "peek_many": lambda: cache.peek_many([key() for _ in range(9)]),
        "contains_many": lambda: cache.contains_many(key() for _ in range(9)),
        "touch_many": lambda: cache.touch_many(keys()[::-2]),
        "delete_many": lambda: (cache.delete_many(keys()), refill()),
        "put_many": lambda: cache.put_many(keys(), rows()),
        "put_many of a list": lambda: cache.put_many([key(), key()], [row(), row()]),
        "evicted": lambda: cache.put_many([key() for _ in range(60)], np.ones(60, VALUE),
                                          return_evicted=True),
        "other integers": lambda: numbers.put_many(np.arange(9, dtype=">i2"), np.ones(9, "u1")),
        "increment_many": lambda: (numbers.increment_many([1, 2], by=[fresh(), 5]),
                                   cache.increment_many(keys(), FIELD, by=np.arange(20))),
        "snapshot": lambda: cache.snapshot(),
        "copy": lambda: (cache.copy(), copy.copy(cache), copy.deepcopy(cache)),
        "pickle": lambda: pickle.loads(pickle.dumps(cache)),
        "resize": lambda: (cache.resize(5), cache.resize(50), refill()),
        "clear": lambda: (cache.clear(), refill()),
        "construct": lambda: (build(), Sub(3, "u8", "S5"),
                              SlabCache(2, [("k", "u8")], [("v", "u1")])),
        "cycle": cycle,
        "bad dtype": bad(lambda: SlabCache(3, [("name%d" % fresh(), object)], "u8")),
        "bad value dtype": bad(lambda: SlabCache(3, "u8", [("name%d" % fresh(), "U3")])),
        "bad capacity": bad(lambda: SlabCache(-fresh(), KEY, VALUE)),
        "no memory": bad(lambda: SlabCache(2**32 - 2, KEY, "V65535"), MemoryError),
        "no memory to resize": bad(lambda: SlabCache(2, "V255", "V65535").resize(2**32 - 2),
                                   MemoryError),
        "bad callback": bad(lambda: SlabCache(3, KEY, VALUE, on_evict=fresh())),
        "bad arguments": bad(lambda: cache.get(key(), fresh(), fresh())),
        "bad key": bad(lambda: cache[fresh(), "text%d" % fresh()]),
        "bad arity": bad(lambda: cache[fresh(), b"", fresh()]),
        "bad key list": bad(lambda: cache.get([fresh()])),
        "key out of range": bad(lambda: fresh() * 2**64 in numbers),
        "long bytes": bad(lambda: cache.get((fresh(), b"long" * 9))),
        "trailing NUL": bad(lambda: cache.get((fresh(), b"text\\0"))),
        "absent": bad(lambda: cache[key()]),
        "absent del": bad(lambda: cache.__delitem__(key())),
        "absent increment": bad(lambda: cache.increment(key(), FIELD)),
        "bad value": bad(lambda: cache.__setitem__(key(), (fresh(), "x", b"", None, None))),
        "bad value later": bad(lambda: cache.__setitem__(key(), (*row()[:4], [fresh()] * 3))),
        "bad mapping": bad(lambda: cache.__setitem__(key(), {"nope%d" % fresh(): fresh()})),
        "bad row arity": bad(lambda: cache.__setitem__(key(), (fresh(),))),
        "value conversion raises": bad(lambda: numbers.__setitem__(fresh(), Raising()),
                                       ZeroDivisionError),
        "key conversion raises": bad(lambda: numbers[Raising()], ZeroDivisionError),
        "bad fields": bad(lambda: cache.update_fields(key(1), **{"nope%d" % fresh(): fresh()})),
        "bad field value": bad(lambda: cache.update_fields(key(1), n=fresh(), x="%d" % fresh())),
        "bad increment": bad(lambda: cache.increment(key(1), "nope%d" % fresh(), fresh())),
        "bad step": bad(lambda: cache.increment(key(1), FIELD, fresh() / 3)),
        "huge step": bad(lambda: cache.increment(key(1), FIELD, fresh() * 2**64)),
        "wraps": bad(lambda: (numbers.__setitem__(1, 2**63 - 1), numbers.increment(1, by=fresh()))),
        "wraps in a batch": bad(lambda: (numbers.__setitem__(1, 2**63 - 1),
                                         numbers.increment_many([1, 1], by=[fresh(), 1]))),
        "bad setdefault": bad(lambda: cache.setdefault(key(), fresh())),
        "bad update": bad(lambda: cache.update([(key(), row()), (key(), fresh())])),
        "update raises": bad(lambda: cache.update(Raising()), ZeroDivisionError),
        "bad key array": bad(lambda: cache.get_many(np.arange(9) / fresh())),
        "array out of range": bad(lambda: numbers.get_many(np.array([1, -fresh()]))),
        "bad list": bad(lambda: cache.get_many([key(), key(), fresh()])),
        "iterator raises": bad(lambda: cache.get_many(stop_half_way()), TypeError,
                               ZeroDivisionError),
        "values raise": bad(lambda: cache.put_many(keys(), stop_half_way()), TypeError,
                            ZeroDivisionError),
        "lengths": bad(lambda: cache.put_many(keys(), np.ones(19, VALUE))),
        "bad values": bad(lambda: cache.put_many(keys(), np.ones(20, "S%d" % (fresh() % 90 + 5)))),
        "bad out": bad(lambda: cache.get_many(keys(), out=np.zeros(19, VALUE))),
        "bad steps": bad(lambda: numbers.increment_many([1, 2], by=[fresh(), "text%d" % fresh()])),
        "changed iteration": bad(iterate_and_change, RuntimeError),
        "callback raises": bad(raising_callback, ZeroDivisionError),
        "not hashable": bad(lambda: hash(cache)),
        "bad record access": bad(lambda: cache[key(1)]["nope%d" % fresh()]),
        "bad record attribute": bad(lambda: getattr(cache[key(1)], "nope%d" % fresh()),
                                    AttributeError),
    }
    plain = SlabCache(3, "u8", [("n", "i8"), ("t", "S5")])
    plain[1] = (2**40, b"abc")
    def SlabCacheRecord(): return plain[1]

    leak = []
    calls["a leak, on purpose"] = lambda: leak.append((fresh(),))
    shared_leak = []
    calls["a shared leak, on purpose"] = lambda: shared_leak.append(KEY)

    def measure(call):
        refill(); gc.collect()
        references = [sys.getrefcount(thing) for thing in SHARED]
        blocks = sys.getallocatedblocks()
        for _ in range(RUNS):
            call()
        refill(); gc.collect()
        blocks = sys.getallocatedblocks() - blocks
        references = [sys.getrefcount(thing) - old for thing, old in zip(SHARED, references)]
        return max(blocks, *references, *(-change for change in references))

    RUNS = 400
    for name, call in calls.items():
        for _ in range(20):
            call()
        # A leak is in every run; free lists and half-empty pools fill up, numpy's in a thousand runs or two.
        if all(measure(call) > RUNS * 3 // 4 for _ in range(8)):
            print(name)
"""


def test_no_call_leaks_objects() -> None:
    assert run(CALLS).splitlines() == ["a leak, on purpose", "a shared leak, on purpose"]


ARENAS = """
    import copy, gc, pickle, sys
    import numpy as np
    from measuring.memory import address_space_bytes
    from slabcache import SlabCache

    CAPACITY = 100_000
    ROWS = np.arange(CAPACITY)

    def full():
        cache = SlabCache(CAPACITY, "u8", "V40")  # some 7 MB
        cache.put_many(ROWS, np.zeros(CAPACITY, "V40"))
        return cache

    one = full()

    def no_memory():
        try:
            SlabCache(2**32 - 2, "u8", "V65535")
        except MemoryError:
            return
        raise AssertionError

    def refused_resize():
        try:
            one.resize(0)
        except ValueError:
            return
        raise AssertionError

    def resize():
        one.resize(10)
        one.resize(CAPACITY)
        one.put_many(ROWS, np.zeros(CAPACITY, "V40"))

    def again():
        cache = full()
        try:
            cache.__init__(CAPACITY, "u8", "V40")
        except Exception:
            pass

    def cycle():
        cache = SlabCache(CAPACITY, "u8", "V40", on_evict=lambda keys, values: cache)

    class Told(SlabCache):  # nothing else in the cycle can be cleared: not a dict, not a cell
        def __init__(self):
            super().__init__(CAPACITY, "u8", "V40", on_evict=self.evicted)

        def evicted(self, keys, values):
            pass

    kept = []
    run = {
        "construct": full,
        "empty": lambda: SlabCache(CAPACITY, "u8", "V40"),
        "copy": lambda: copy.copy(one),
        "deepcopy": lambda: copy.deepcopy(one),
        "pickle": lambda: pickle.loads(pickle.dumps(one)),
        "resize": resize,
        "no memory": no_memory,
        "refused resize": refused_resize,
        "init twice": again,
        "cycle": cycle,
        "cycle of itself": Told,
        "snapshot": lambda: one.snapshot(),
        "leak on purpose": lambda: kept.append(full()),
    }[sys.argv[1]]

    def size():
        gc.collect()
        return address_space_bytes()

    for _ in range(5):
        run()
    before = size()
    for _ in range(40):
        run()
    print(size() - before > 20 * one.nbytes)
"""


@pytest.mark.parametrize(
    "way",
    [
        "construct",
        "empty",
        "copy",
        "deepcopy",
        "pickle",
        "resize",
        "no memory",
        "refused resize",
        "init twice",
        "cycle",
        "cycle of itself",
        "snapshot",
    ],
)
def test_no_arena_leaks(way: str) -> None:
    assert run(ARENAS, way) == "False\n"


def test_a_leaked_arena_would_be_seen() -> None:
    assert run(ARENAS, "leak on purpose") == "True\n"


MEMORY = """
    import numpy as np
    from measuring.memory import resident_bytes
    from slabcache import SlabCache

    before = resident_bytes()
    cache = SlabCache(20_000_000, "u8", "V40")
    at_start = resident_bytes() - before
    cache.put_many(np.arange(1000), np.zeros(1000, "V40"))
    with_few = resident_bytes() - before
    size = cache.nbytes
    del cache
    print(size, at_start, with_few, resident_bytes() - before)
"""


def test_memory_is_reserved_at_once_and_touched_as_the_cache_fills() -> None:
    size, at_start, with_few, at_end = map(int, run(MEMORY).split())
    assert size > 20_000_000 * 56
    assert at_start < size / 20
    assert with_few < size / 2  # scattered buckets, on huge pages at worst
    assert at_end < size / 20


CRASHERS = """
    import gc, sys
    from slabcache import SlabCache, Record

    def quietly(call):
        try:
            return call()
        except Exception:
            return None

    # A cache that was never initialised raises; it does not crash.
    bare = quietly(lambda: SlabCache.__new__(SlabCache))
    if bare is not None:
        for call in (
            lambda: bare[1], lambda: bare.get(1), lambda: bare.put_many([1], [1]),
            lambda: len(bare), lambda: list(bare), lambda: bare.stats(), lambda: bare.clear(),
            lambda: bare._check(),
            lambda: bare.copy(), lambda: repr(bare), lambda: bare == bare, lambda: bare.resize(4),
            lambda: bare.__setitem__(1, 1), lambda: bare.snapshot(), lambda: bare.popitem(),
            lambda: bare.nbytes, lambda: bare.key_dtype, lambda: bare.bytes_per_entry,
            lambda: next(reversed(bare)), lambda: bare.get_many([1]), lambda: 1 in bare,
            lambda: bare.increment(1), lambda: bare.__reduce__(), lambda: bare.touch(1),
        ):
            quietly(call)
    # Initialised again: refused, or a fresh cache; iterators and views of the old one stay safe.
    cache = SlabCache(3, "u4", "i8")
    cache[1] = 5
    iterator, items = iter(cache), cache.items()
    quietly(lambda: cache.__init__(2000, [("a", "u8"), ("b", "S40")], [("x", "S400")]))
    quietly(lambda: list(iterator))
    quietly(lambda: list(items))
    quietly(lambda: cache.__init__(-1, "u4", "u4"))
    quietly(lambda: cache[1])
    cache._check()
    # Iterators outlive a resize.
    cache = SlabCache(1000, "u4", "i8")
    cache.update((at, at) for at in range(1000))
    iterators = [iter(cache), reversed(cache), iter(cache.items()), iter(cache.values())]
    for iterator in iterators:
        next(iterator)
    cache.resize(1)
    for iterator in iterators:
        quietly(lambda: list(iterator))
    quietly(lambda: Record())
    quietly(lambda: Record.__new__(Record))
    bare = quietly(lambda: object.__new__(Record))
    quietly(lambda: repr(bare))
    gc.collect()
    print("alive")
"""


def test_misuse_does_not_crash() -> None:
    assert run(CRASHERS) == "alive\n"
