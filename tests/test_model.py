"""The whole cache against the model: random operations, invariants I1-I5 checked after each.

The machine draws a key type, a value type, a small capacity and a small pool of keys, so that
repeats, evictions and re-insertions are common. The same class runs once more on caches of one and
two entries, where an entry is the head and the tail of the list at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from slabcache import SlabCache
from support.model import AbsentError, ModelCache, WrapsError, canon, canon_items, canon_rows, to_array
from support.strategies import (
    key_dtypes,
    key_layouts,
    keys_of,
    layouts,
    numeric_fields,
    steps_for,
    value_dtypes,
    values_of,
)

MISSING = object()


class CacheMachine(RuleBasedStateMachine):
    capacities = st.integers(1, 12)

    @initialize(data=st.data(), key_dtype=key_dtypes, value_dtype=value_dtypes)
    def build(self, data: Any, key_dtype: np.dtype, value_dtype: np.dtype) -> None:
        capacity = data.draw(self.capacities, label="capacity")
        pool = data.draw(st.lists(keys_of(key_dtype), min_size=2, max_size=20), label="pool")
        self.key_dtype, self.value_dtype = key_dtype, value_dtype
        self.keys = st.sampled_from(pool)
        self.values = values_of(value_dtype)
        self.told: list[tuple[Any, Any]] = []
        self.calls = 0
        self.cache = SlabCache(capacity, key_dtype, value_dtype, on_evict=self.on_evict)
        self.model = ModelCache(capacity, value_dtype)

    def on_evict(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.calls += 1
        assert keys.dtype == self.key_dtype
        assert len(keys) == len(values) > 0
        self.told += zip(canon_rows(keys), canon_rows(values), strict=True)

    def both(self, real: Any, model: Any) -> None:
        """Runs the two; they must agree on the result, or both raise what stands for the other."""
        try:
            expected = model()
        except AbsentError:
            with pytest.raises(KeyError):
                real()
            return
        except WrapsError:
            with pytest.raises(OverflowError):
                real()
            return
        assert canon(real()) == canon(expected)

    @rule(data=st.data())
    def put(self, data: Any) -> None:
        key, value = data.draw(self.keys), data.draw(self.values)
        self.cache[key] = value
        self.model.put(key, value)

    @rule(data=st.data())
    def read(self, data: Any) -> None:
        key = data.draw(self.keys)
        self.both(lambda: self.cache[key], lambda: self.model.get(key))

    @rule(data=st.data(), name=st.sampled_from(["get", "peek"]))
    def read_with_default(self, data: Any, name: str) -> None:
        key = data.draw(self.keys)
        try:
            expected = canon(getattr(self.model, name)(key))
        except AbsentError:
            assert getattr(self.cache, name)(key) is None
            if name == "get":
                self.model.misses += 1
            assert getattr(self.cache, name)(key, MISSING) is MISSING
        else:
            assert canon(getattr(self.cache, name)(key, MISSING)) == expected

    @rule(data=st.data())
    def contains(self, data: Any) -> None:
        key = data.draw(self.keys)
        assert (key in self.cache) is self.model.contains(key)

    @rule(data=st.data())
    def touch(self, data: Any) -> None:
        key = data.draw(self.keys)
        assert self.cache.touch(key) is self.model.touch(key)

    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        key = data.draw(self.keys)
        if self.model.delete(key):
            del self.cache[key]
        else:
            with pytest.raises(KeyError):
                del self.cache[key]

    @rule(data=st.data())
    def pop(self, data: Any) -> None:
        key = data.draw(self.keys)
        self.both(lambda: self.cache.pop(key), lambda: self.model.pop(key))
        assert self.cache.pop(key, MISSING) is MISSING

    @rule()
    def popitem(self) -> None:
        self.both(lambda: self.cache.popitem(), lambda: self.model.popitem())

    @rule(data=st.data())
    def setdefault(self, data: Any) -> None:
        key, value = data.draw(self.keys), data.draw(self.values)
        self.both(lambda: self.cache.setdefault(key, value), lambda: self.model.setdefault(key, value))

    @rule(data=st.data())
    def update(self, data: Any) -> None:
        pairs = data.draw(st.lists(st.tuples(self.keys, self.values), max_size=5))
        if data.draw(st.booleans()):
            pairs = list(dict(pairs).items())
            self.cache.update(dict(pairs))
        else:
            self.cache.update(pairs)
        for key, value in pairs:
            self.model.put(key, value)

    @precondition(lambda self: self.value_dtype.names)
    @rule(data=st.data())
    def update_fields(self, data: Any) -> None:
        key, value = data.draw(self.keys), data.draw(self.values)
        named = dict(zip(self.value_dtype.names, value, strict=True))
        some = data.draw(st.sets(st.sampled_from(self.value_dtype.names)))
        fields = {name: named[name] for name in some}
        self.both(
            lambda: self.cache.update_fields(key, **fields),
            lambda: self.model.update_fields(key, **fields),
        )

    @precondition(lambda self: numeric_fields(self.value_dtype))
    @rule(data=st.data())
    def increment(self, data: Any) -> None:
        key = data.draw(self.keys)
        field = data.draw(st.sampled_from(numeric_fields(self.value_dtype)))
        by = data.draw(steps_for(self.value_dtype if field is None else self.value_dtype[field]))
        self.both(
            lambda: self.cache.increment(key, field, by),
            lambda: self.model.increment(key, field, by),
        )

    @rule(data=st.data())
    def put_many(self, data: Any) -> None:
        rows = data.draw(st.lists(st.tuples(self.keys, self.values), max_size=30))
        keys, values = [key for key, _ in rows], [value for _, value in rows]
        calls = self.calls
        evicted = self.cache.put_many(
            data.draw(key_layouts(keys, self.key_dtype)).value,
            data.draw(layouts(values, self.value_dtype)).value,
        )
        assert evicted == self.model.put_many(keys, values)
        assert self.calls == calls + (evicted > 0)

    @rule(data=st.data(), name=st.sampled_from(["get", "peek"]))
    def read_many(self, data: Any, name: str) -> None:
        keys = data.draw(st.lists(self.keys, max_size=30))
        layout = data.draw(key_layouts(keys, self.key_dtype))
        values, found = getattr(self.cache, f"{name}_many")(layout.value)
        assert values.dtype == np.zeros(0, self.value_dtype).dtype
        rows = list(zip(canon_rows(values), found.tolist(), strict=True))
        assert rows == self.model.get_many(keys, name)

    @rule(data=st.data(), name=st.sampled_from(["contains", "touch", "delete"]))
    def ask_many(self, data: Any, name: str) -> None:
        keys = data.draw(st.lists(self.keys, max_size=30))
        layout = data.draw(key_layouts(keys, self.key_dtype))
        answer = getattr(self.cache, f"{name}_many")(layout.value)
        assert answer.tolist() == [getattr(self.model, name)(key) for key in keys]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule(data=st.data())
    def resize(self, data: Any) -> None:
        capacity = data.draw(self.capacities)
        assert self.cache.resize(capacity) == self.model.resize(capacity)

    @rule()
    def reset_stats(self) -> None:
        self.cache.reset_stats()
        self.model.reset_stats()

    @rule()
    def snapshot(self) -> None:
        keys, values = self.cache.snapshot()
        assert keys.dtype == self.key_dtype
        rows = list(zip(canon_rows(keys), canon_rows(values), strict=True))
        assert rows == self.model.items()

    @rule()
    def copies(self) -> None:
        copy = self.cache.copy()
        copy._check()
        assert canon_items(copy.items()) == self.model.items()

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.cache._check()
        assert self.told == self.model.take_evicted()
        self.told = []
        assert len(self.cache) == len(self.model.data)
        assert bool(self.cache) == bool(self.model.data)
        assert self.cache.stats()._asdict() == self.model.stats()
        assert canon_items(self.cache.items()) == self.model.items()
        assert [canon(key) for key in reversed(self.cache)] == [
            key for key, _ in reversed(self.model.items())
        ]


class TinyCacheMachine(CacheMachine):
    capacities = st.integers(1, 2)


TestCache = CacheMachine.TestCase
TestTinyCache = TinyCacheMachine.TestCase
# Two or three draws for each pair of a key type and a value type would be 1500: the `ci` and
# `thorough` profiles get there, and the defaults of other properties cover each type alone.
TestCache.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=40)
TestTinyCache.settings = settings(stateful_step_count=40)


@pytest.mark.parametrize("capacity", [1, 2, 3, 15, 16, 17, 1000, 4097])
def test_full_to_the_brim_and_beyond(capacity: int) -> None:
    """Each slot is used, and a full turnover leaves exactly the last `capacity` keys."""
    cache, model = SlabCache(capacity, "u8", "i4"), ModelCache(capacity, "i4")
    for key in range(capacity):
        cache[key] = key
        model.put(key, key)
    assert len(cache) == capacity
    assert cache.stats().evictions == 0
    cache._check()
    for key in range(3 * capacity, capacity, -1):
        cache[key] = -key
        model.put(key, -key)
    cache._check()
    assert canon_items(cache.items()) == model.items()
    assert cache.stats()._asdict() == model.stats()
    for key in list(cache):
        del cache[key]
    cache._check()
    assert len(cache) == 0
    keys = np.arange(capacity, dtype="u8")
    assert cache.put_many(keys, keys.astype("i4")) == 0
    cache._check()


def test_long_churn_matches_the_model() -> None:
    """A middling cache: tables fill, chains grow, slots are reused in any order."""
    rng = np.random.default_rng(7)
    cache, model = SlabCache(300, "u4", "i8"), ModelCache(300, "i8")
    for _ in range(60):
        keys = rng.zipf(1.1, 400).clip(max=2000).astype("u4")
        values = rng.integers(-(2**62), 2**62, 400)
        assert cache.put_many(keys, values) == model.put_many(keys.tolist(), values.tolist())
        gone = rng.integers(0, 2000, 100).astype("u4")
        assert cache.delete_many(gone).tolist() == [model.delete(key) for key in gone.tolist()]
        for key in rng.integers(0, 2000, 50).tolist():
            assert cache.get(key) == model.data.get(key)
            model.touch(key)
        cache._check()
        assert canon_items(cache.items()) == model.items()


def test_snapshot_is_a_copy() -> None:
    cache = SlabCache(4, "u8", [("a", "i4")])
    cache[1] = (10,)
    keys, values = cache.snapshot()
    cache[1] = (11,)
    cache[2] = (20,)
    assert keys.tolist() == [1]
    assert values.tolist() == [(10,)]
    keys[0] = 5
    values["a"] = 7
    assert cache.peek(1) == (11,)


def test_snapshot_of_an_empty_cache_has_the_dtypes() -> None:
    key, value = np.dtype([("a", ">u4"), ("b", "S3")]), np.dtype("f4")
    keys, values = SlabCache(4, key, value).snapshot()
    assert (keys.shape, keys.dtype, values.shape, values.dtype) == ((0,), key, (0,), value)
    assert to_array([], key).dtype == keys.dtype
