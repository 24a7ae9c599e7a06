"""copy, copy.copy, copy.deepcopy and pickle, of the cache and of subclasses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabcache import SlabCache
from support.model import ModelCache, canon, canon_items
from support.strategies import key_dtypes, keys_of, value_dtypes, values_of

WAYS: dict[str, Callable[[SlabCache], SlabCache]] = {
    "method": lambda cache: cache.copy(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda cache, protocol=protocol: pickle.loads(pickle.dumps(cache, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


class Named(SlabCache):
    """A subclass at module level, so that it can be pickled."""

    __slots__ = ()


def filled(kind: type[SlabCache] = SlabCache) -> SlabCache:
    cache = kind(4, [("a", "u4"), ("b", "S3")], [("n", ">i8"), ("x", "f4")])
    for at in range(6):
        cache[at, b"k"] = (-at, at / 2)
    _ = cache[3, b"k"]
    return cache


@pytest.mark.parametrize("way", sorted(WAYS))
def test_keeps_content_order_capacity_and_types(way: str) -> None:
    cache = filled()
    twin = WAYS[way](cache)
    assert twin is not cache
    assert type(twin) is SlabCache
    assert canon_items(twin.items()) == canon_items(cache.items())
    assert [key[0] for key in twin] == [2, 4, 5, 3]
    assert (twin.capacity, twin.key_dtype, twin.value_dtype) == (
        4,
        cache.key_dtype,
        cache.value_dtype,
    )
    assert twin == cache
    twin._check()


@pytest.mark.parametrize("way", sorted(WAYS))
def test_statistics_start_as_if_just_filled(way: str) -> None:
    cache = filled()
    before = cache.stats()
    assert WAYS[way](cache).stats() == (0, 0, 4, 0, 0, 0, 4, 4)
    assert cache.stats() == before


@pytest.mark.parametrize("way", sorted(WAYS))
def test_on_evict_is_not_kept(way: str) -> None:
    told: list[Any] = []
    cache = SlabCache(1, "u4", "u4", on_evict=told.append)  # a call would be a TypeError
    cache[1] = 1
    twin = WAYS[way](cache)
    assert twin.on_evict is None
    twin[2] = 2
    assert (told, dict(twin)) == ([], {2: 2})
    assert cache.on_evict == told.append


@pytest.mark.parametrize("way", sorted(WAYS))
def test_independent(way: str) -> None:
    cache = filled()
    twin = WAYS[way](cache)
    twin.clear()
    assert len(cache) == 4
    cache[9, b""] = (0, 0)
    assert (9, b"") not in twin
    twin.resize(10)
    assert cache.capacity == 4
    del cache
    twin[1, b""] = (1, 1)
    assert len(twin) == 1
    twin._check()


@pytest.mark.parametrize("way", sorted(WAYS))
def test_subclass(way: str) -> None:
    twin = WAYS[way](filled(Named))
    assert type(twin) is Named
    assert [key[0] for key in twin] == [2, 4, 5, 3]
    assert twin == filled()


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_every_fill(way: str, size: int) -> None:
    cache = SlabCache(7, "u1", "i8")
    cache.put_many(range(size), range(size))
    twin = WAYS[way](cache)
    assert list(twin.items()) == [(at, at) for at in range(size)]
    twin._check()
    for at in range(100, 110):
        twin[at] = at
    assert list(twin) == list(range(103, 110))
    twin._check()


@given(data=st.data(), key_dtype=key_dtypes, value_dtype=value_dtypes)
def test_every_type(data: Any, key_dtype: np.dtype, value_dtype: np.dtype) -> None:
    rows = data.draw(st.lists(st.tuples(keys_of(key_dtype), values_of(value_dtype)), max_size=12))
    cache = SlabCache(6, key_dtype, value_dtype)
    model = ModelCache(6, value_dtype)
    for key, value in rows:
        cache[key] = value
        model.put(key, value)
    way = data.draw(st.sampled_from(sorted(WAYS)))
    twin = WAYS[way](cache)
    twin._check()
    assert canon_items(twin.items()) == model.items()
    assert (twin.key_dtype, twin.value_dtype) == (key_dtype, value_dtype)
    assert twin.value_dtype.itemsize == value_dtype.itemsize
    for key, value in rows:  # found again: the copy has its own table
        assert (canon(twin.peek(key)) == canon(value)) or canon(cache.peek(key)) != canon(value)


def test_large_copy() -> None:
    cache = SlabCache(100_000, "u8", "u8")
    keys = np.random.default_rng(2).permutation(150_000).astype("u8")
    cache.put_many(keys, keys * 3)
    cache.delete_many(keys[60_000:70_000])
    twin = pickle.loads(pickle.dumps(cache))
    twin._check()
    for one, two in zip(twin.snapshot(), cache.snapshot(), strict=True):
        assert np.array_equal(one, two)


def test_the_pickle_is_about_as_large_as_the_data() -> None:
    cache = SlabCache(1_000_000, "u8", "u8")
    cache.put_many(range(100), range(100))
    assert len(pickle.dumps(cache)) < 100 * 16 + 2000


def test_a_cache_in_a_container() -> None:
    """deepcopy's memo: one cache twice in a list stays one cache."""
    cache = filled()
    first, second = copy.deepcopy([cache, cache])
    assert first is second
    assert first is not cache
    first, second = pickle.loads(pickle.dumps([cache, cache]))
    assert first is second


def test_pickle_of_a_damaged_state_is_refused() -> None:
    """Loading never leaves a half-made cache behind: what cannot be built raises."""
    text = pickle.dumps(SlabCache(3, "u4", "u4"), 0)
    for end in range(1, len(text), 7):
        try:
            loaded = pickle.loads(text[:end])
        except Exception:
            continue
        assert not isinstance(loaded, SlabCache)


class Labelled(SlabCache):
    """A subclass with an attribute, and with a length of its own."""

    def __init__(self, name: list[str]) -> None:
        super().__init__(4, "u8", "u8")
        self.name = name

    def __len__(self) -> int:
        return 0


def test_what_a_subclass_adds() -> None:
    cache = Labelled(["a"])
    cache.update({1: 10, 2: 20})
    assert cache.snapshot()[0].tolist() == [1, 2]
    shallow, deep = copy.copy(cache), copy.deepcopy(cache)
    for other in (shallow, deep, pickle.loads(pickle.dumps(cache))):
        assert type(other) is Labelled
        assert other.name == ["a"]
        assert list(other) == [1, 2]
    assert shallow.name is cache.name
    assert deep.name is not cache.name


class Slotted(SlabCache):
    """Attributes in slots, one of them private, one never set."""

    __slots__ = ("__hidden", "name", "unset")

    def __init__(self, name: list[str]) -> None:
        super().__init__(4, "u8", "u8")
        self.name = name
        self.__hidden = [name]

    @property
    def hidden(self) -> list[list[str]]:
        return self.__hidden


class SlottedAndMore(Slotted):
    """With a dict besides."""


class Chosen(SlabCache):
    """It says itself what is kept, and what becomes of it."""

    def __init__(self, name: str) -> None:
        super().__init__(4, "u8", "u8")
        self.name = name
        self.socket = object()

    def __getstate__(self) -> Any:
        return {"name": self.name}


class Restored(Chosen):
    def __getstate__(self) -> Any:
        return [self.name]

    def __setstate__(self, state: Any) -> None:
        (self.name,) = state
        self.socket = None


@pytest.mark.parametrize("kind", [Slotted, SlottedAndMore])
@pytest.mark.parametrize("way", sorted(WAYS))
def test_slots_of_a_subclass(way: str, kind: Any) -> None:
    cache = kind(["a"])
    cache[1] = 10
    if kind is SlottedAndMore:
        cache.more = 5
    twin = WAYS[way](cache)
    assert (type(twin), twin.name, twin.hidden, dict(twin.items())) == (kind, ["a"], [["a"]], {1: 10})
    assert twin.hidden[0] is twin.name
    assert (twin.name is cache.name) is (way in ("method", "copy"))
    assert not hasattr(twin, "unset")
    assert getattr(twin, "more", None) == getattr(cache, "more", None)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_getstate_and_setstate_of_a_subclass(way: str) -> None:
    twin = WAYS[way](Chosen("a"))
    assert (twin.name, hasattr(twin, "socket")) == ("a", False)
    twin = WAYS[way](Restored("b"))
    assert (twin.name, twin.socket) == ("b", None)


def test_deepcopy_of_a_cache_that_its_attribute_leads_to() -> None:
    cache = Slotted(["a"])
    cache.name.append(cache)
    twin = copy.deepcopy(cache)
    assert twin.name[1] is twin
