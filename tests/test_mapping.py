"""The mapping side: recency, views, iteration, equality, and everything a dict user expects."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import ChainMap, OrderedDict
from collections.abc import (
    Callable,
    ItemsView,
    KeysView,
    Mapping,
    MutableMapping,
    Sized,
    ValuesView,
)
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from slabcache import SlabCache

PAIR = [("user", "u8"), ("channel", "u8")]
STATE = [("last", "u8"), ("count", "u4")]


def filled(capacity: int = 5) -> SlabCache:
    """Keys 1, 2, 3, the least recent first; values ten times that."""
    cache = SlabCache(capacity, "u4", "i8")
    for key in (1, 2, 3):
        cache[key] = 10 * key
    return cache


def records() -> SlabCache:
    cache = SlabCache(5, PAIR, STATE)
    cache[1, 2] = (3, 4)
    cache[5, 6] = (7, 8)
    return cache


# -- a dict, as far as one sees -----------------------------------------------------------------


def test_basics() -> None:
    cache = SlabCache(3, "u4", "i8")
    assert not cache
    assert len(cache) == 0
    cache[1] = -5
    assert cache
    assert len(cache) == 1
    assert cache[1] == -5
    assert 1 in cache
    assert 2 not in cache
    cache[1] = -6
    assert (len(cache), cache[1]) == (1, -6)
    del cache[1]
    assert 1 not in cache
    with pytest.raises(KeyError):
        cache[1]


def test_structured() -> None:
    cache = records()
    assert cache[1, 2] == (3, 4)
    assert cache[(5, 6)].count == 8
    assert (1, 2) in cache
    assert (2, 1) not in cache
    assert list(cache) == [(1, 2), (5, 6)]


def test_get_and_peek() -> None:
    cache = filled()
    marker = object()
    for method in (cache.get, cache.peek):
        assert method(1) == 10
        assert method(9) is None
        assert method(9, marker) is marker
        assert method(9, default=marker) is marker
        assert method(1, marker) == 10


def test_pop() -> None:
    cache = filled()
    marker = object()
    assert cache.pop(2) == 20
    assert cache.pop(2, marker) is marker
    assert cache.pop(2, None) is None
    with pytest.raises(KeyError):
        cache.pop(2)
    assert list(cache) == [1, 3]


def test_popitem_takes_the_least_recent() -> None:
    cache = filled()
    _ = cache[1]
    assert [cache.popitem() for _ in range(3)] == [(2, 20), (3, 30), (1, 10)]
    assert records().popitem() == ((1, 2), (3, 4))


def test_setdefault() -> None:
    cache = filled()
    assert cache.setdefault(1, 99) == 10
    assert cache.setdefault(4, 99) == 99
    assert list(cache.items()) == [(2, 20), (3, 30), (1, 10), (4, 99)]
    assert records().setdefault((9, 9), {"last": 1, "count": 2}) == (1, 2)


class Pairs:
    """Has keys() and [], and is no Mapping by name: dict.update takes it too."""

    def keys(self) -> list[int]:
        return [7, 8]

    def __getitem__(self, key: int) -> int:
        return -key


@pytest.mark.parametrize(
    "other",
    [
        {7: -7, 8: -8},
        [(7, -7), (8, -8)],
        ((key, -key) for key in (7, 8)),
        [[7, -7], [8, -8]],
        OrderedDict([(7, -7), (8, -8)]),
        MappingProxyType({7: -7, 8: -8}),
        Pairs(),
        {7: -7, 8: -8}.items(),
    ],
    ids=["dict", "list", "generator", "lists", "OrderedDict", "proxy", "keys and []", "items"],
)
def test_update(other: Any) -> None:
    cache = filled()
    assert cache.update(other) is None
    assert list(cache.items()) == [(1, 10), (2, 20), (3, 30), (7, -7), (8, -8)]


def test_update_from_nothing_and_from_a_cache() -> None:
    cache = filled()
    cache.update()
    cache.update({})
    assert list(cache) == [1, 2, 3]
    other = SlabCache(2, "u8", "i2")
    other[3] = 33
    other[9] = 99
    cache.update(other)
    assert list(cache.items()) == [(1, 10), (2, 20), (3, 33), (9, 99)]
    assert other.stats()[:2] == (0, 0)
    cache.update(cache.copy())
    assert list(cache) == [1, 2, 3, 9]


def test_clear_of_a_few_entries_in_a_large_cache() -> None:
    """They are erased one by one, so that pages of the table never used stay untouched."""
    cache = SlabCache(10_000, "u8", "u8")
    cache.put_many(np.arange(50), np.arange(50))
    cache.clear()
    cache._check()
    assert len(cache) == 0
    assert list(cache) == []
    assert not cache.contains_many(np.arange(50)).any()
    cache[7] = 8
    assert dict(cache.items()) == {7: 8}
    cache._check()


def test_a_change_at_the_last_step_of_an_iteration() -> None:
    cache = SlabCache(4, "u8", "u8")
    cache[1] = 10
    with pytest.raises(RuntimeError, match="changed"):
        [cache.pop(key) for key in cache]
    steps = iter(cache)
    assert list(steps) == []
    cache[2] = 20
    assert list(steps) == []  # it had ended before


def test_clear() -> None:
    cache = filled()
    assert cache.clear() is None
    assert (len(cache), list(cache)) == (0, [])
    assert 1 not in cache
    cache._check()
    cache[1] = 5
    assert list(cache.items()) == [(1, 5)]


def test_abstract_classes() -> None:
    cache = filled()
    assert isinstance(cache, MutableMapping)
    assert issubclass(SlabCache, MutableMapping)
    assert isinstance(cache.keys(), Sized)
    match cache:
        case {1: value}:
            assert value == 10
        case _:
            pytest.fail("a mapping pattern must match a cache")


def test_dict_of_a_cache() -> None:
    cache = filled()
    assert dict(cache) == {1: 10, 2: 20, 3: 30}
    assert list(cache.keys()) == [1, 2, 3]


def test_not_hashable_and_weakly_referable() -> None:
    cache = filled()
    with pytest.raises(TypeError):
        hash(cache)
    reference = weakref.ref(cache)
    assert reference() is cache
    del cache
    gc.collect()
    assert reference() is None


def test_repr_is_short_whatever_the_size() -> None:
    cache = SlabCache(10_000, "u4", "i8")
    cache.put_many(np.arange(10_000), np.arange(10_000))
    text = repr(cache)
    assert "SlabCache" in text
    assert len(text) < 1000


# -- recency ------------------------------------------------------------------------------------

MOVES: dict[str, Callable[[SlabCache], Any]] = {
    "[]": lambda cache: cache[1],
    "get": lambda cache: cache.get(1),
    "[]=": lambda cache: cache.__setitem__(1, 10),
    "setdefault": lambda cache: cache.setdefault(1, 0),
    "increment": lambda cache: cache.increment(1, by=0),
    "touch": lambda cache: cache.touch(1),
    "update": lambda cache: cache.update({1: 10}),
    "get_many": lambda cache: cache.get_many([1]),
    "put_many": lambda cache: cache.put_many([1], [10]),
    "increment_many": lambda cache: cache.increment_many([1], by=0),
    "touch_many": lambda cache: cache.touch_many([1]),
}
STAYS: dict[str, Callable[[SlabCache], Any]] = {
    "peek": lambda cache: cache.peek(1),
    "in": lambda cache: 1 in cache,
    "iteration": lambda cache: [list(cache), list(reversed(cache))],
    "items": lambda cache: list(cache.items()),
    "values": lambda cache: 10 in cache.values(),
    "in keys": lambda cache: 1 in cache.keys(),  # noqa: SIM118
    "in items": lambda cache: (1, 10) in cache.items(),
    "snapshot": lambda cache: cache.snapshot(),
    "peek_many": lambda cache: cache.peek_many([1]),
    "contains_many": lambda cache: cache.contains_many([1]),
    "==": lambda cache: cache == {1: 10, 2: 20, 3: 30},
    "copy": lambda cache: cache.copy(),
    "missing []": lambda cache: cache.get(9),
    "missing touch": lambda cache: cache.touch(9),
    "stats": lambda cache: cache.stats(),
    "repr": repr,
    "len": len,
    "get of a miss": lambda cache: cache.get_many([9]),
}


@pytest.mark.parametrize("name", sorted(MOVES))
def test_makes_an_entry_the_most_recent(name: str) -> None:
    cache = filled()
    MOVES[name](cache)
    assert list(cache) == [2, 3, 1]
    assert list(reversed(cache)) == [1, 3, 2]
    cache.put_many([4, 5, 6], [0, 0, 0])
    assert 2 not in cache
    assert 1 in cache


@pytest.mark.parametrize("name", sorted(STAYS))
def test_leaves_the_order(name: str) -> None:
    cache = filled()
    iterator = iter(cache)
    STAYS[name](cache)
    assert list(iterator) == [1, 2, 3]
    assert list(cache) == [1, 2, 3]


def test_update_fields_with_no_fields_makes_recent() -> None:
    cache = records()
    cache.update_fields((1, 2))
    assert list(cache) == [(5, 6), (1, 2)]
    cache.update_fields((5, 6), count=1)
    assert list(cache.items()) == [((1, 2), (3, 4)), ((5, 6), (7, 1))]


def test_touch_says_whether_the_key_is_there() -> None:
    cache = filled()
    assert cache.touch(1) is True
    assert cache.touch(9) is False


# -- views --------------------------------------------------------------------------------------


def test_views() -> None:
    cache = filled()
    keys, values, items = cache.keys(), cache.values(), cache.items()
    assert (len(keys), len(values), len(items)) == (3, 3, 3)
    assert list(keys) == [1, 2, 3]
    assert list(values) == [10, 20, 30]
    assert list(items) == [(1, 10), (2, 20), (3, 30)]
    assert list(reversed(keys)) == [3, 2, 1]
    assert list(reversed(values)) == [30, 20, 10]
    assert list(reversed(items)) == [(3, 30), (2, 20), (1, 10)]
    assert 2 in keys
    assert 9 not in keys
    assert 20 in values
    assert 21 not in values
    assert (2, 20) in items
    assert (2, 21) not in items
    assert (9, 20) not in items
    cache[4] = 40  # views show the cache as it is
    assert (len(keys), 4 in keys, 40 in values, (4, 40) in items) == (4, True, True, True)
    assert list(values) == [10, 20, 30, 40]
    for view, kind in ((keys, KeysView), (values, ValuesView), (items, ItemsView)):
        assert isinstance(view, kind)


def test_views_of_records() -> None:
    cache = records()
    assert list(cache.keys()) == [(1, 2), (5, 6)]
    assert list(cache.values()) == [(3, 4), (7, 8)]
    assert (3, 4) in cache.values()
    assert cache.peek((5, 6)) in cache.values()
    assert (3, 5) not in cache.values()
    assert ((1, 2), (3, 4)) in cache.items()
    assert ((1, 2), cache.peek((1, 2))) in cache.items()
    assert ((1, 2), (7, 8)) not in cache.items()
    assert dict(cache.items()) == {(1, 2): (3, 4), (5, 6): (7, 8)}


def test_views_as_sets() -> None:
    cache = filled()
    assert cache.keys() == {1, 2, 3}
    assert cache.keys() & {2, 9} == {2}
    assert cache.keys() | {9} == {1, 2, 3, 9}
    assert cache.keys() - {1} == {2, 3}
    assert cache.items() == {(1, 10), (2, 20), (3, 30)}
    assert cache.keys().isdisjoint({7})


FOREIGN: list[Any] = ["a", b"a", None, 1.0, -1, 2**40, (1,), (1, 2), [1], True, np.ma.masked]


def test_foreign_keys_are_not_in_the_views() -> None:
    """As with a dict: a key of the wrong type is simply not in them. `in` and `get` of the cache raise."""
    cache = filled()
    keys, items = cache.keys(), cache.items()
    for key in FOREIGN:
        assert key not in keys
        assert (key, 10) not in items
        for call in (cache.__contains__, cache.get, cache.peek, cache.touch):
            with pytest.raises((TypeError, OverflowError)):
                call(key)
    assert keys & {1, "a"} == {"a", 1} & keys == {1}
    assert keys.isdisjoint({"a", None, -1})
    assert not keys.isdisjoint(["a", 1])
    assert not keys >= {1, "a"}
    assert keys >= {1, 2}
    assert not keys <= {"a"}
    assert keys != {1, 2, "a"}
    assert keys | {"a"} == {1, 2, 3, "a"}
    assert keys - {1, "a"} == {2, 3}
    assert {1, "a"} - keys == {"a"}
    assert keys ^ {1, "a"} == {2, 3, "a"}
    assert items & {(1, 10), ("a", 10), "a"} == {(1, 10)}
    assert items.isdisjoint({("a", 10), (-1, 10)})
    assert records().keys() & {(1, 2), 1, "a", (1, 2, 3)} == {(1, 2)}


class Raising:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __index__(self) -> int:
        raise self.error


def test_errors_of_the_caller_pass_through_views() -> None:
    class OwnError(ValueError):
        pass

    error = OwnError("mine")
    with pytest.raises(OwnError) as caught:
        Raising(error) in filled().keys()  # noqa: SIM118, B015
    assert caught.value is error


def test_chain_map_goes_on_to_the_next_mapping() -> None:
    cache = filled()
    chain = ChainMap(cache, {"a": 1, (1,): 2, -1: 3, 9: 4, b"x": 5})
    assert [chain[key] for key in (1, "a", (1,), -1, 9, b"x")] == [10, 1, 2, 3, 4, 5]
    with pytest.raises(KeyError):
        chain["b"]
    for key, error in (("a", TypeError), (-1, OverflowError)):
        with pytest.raises(error) as caught:
            cache[key]
        assert isinstance(caught.value, KeyError)
        assert str(caught.value).startswith("key: ")
        assert caught.value.__cause__ is None
    texts = ChainMap(SlabCache(2, "S3", "u1"), {b"abcd": 1, b"\0": 2})
    assert (texts[b"abcd"], texts[b"\0"]) == (1, 2)


def test_views_keep_the_cache() -> None:
    keys = filled().keys()
    gc.collect()
    assert list(keys) == [1, 2, 3]
    iterator = iter(filled().items())
    gc.collect()
    assert list(iterator) == [(1, 10), (2, 20), (3, 30)]


# -- iteration ----------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[SlabCache], Any]] = {
    **MOVES,
    "insert": lambda cache: cache.__setitem__(9, 9),
    "update the newest": lambda cache: cache.__setitem__(3, 31),
    "increment the newest": lambda cache: cache.increment(3),
    "del": lambda cache: cache.__delitem__(2),
    "del the newest": lambda cache: cache.__delitem__(3),
    "pop": lambda cache: cache.pop(1),
    "popitem": lambda cache: cache.popitem(),
    "clear": lambda cache: cache.clear(),
    "resize that evicts": lambda cache: cache.resize(2),
    "setdefault of an absent key": lambda cache: cache.setdefault(9, 9),
    "delete_many": lambda cache: cache.delete_many([9, 2]),
    "delete and put back": lambda cache: cache.update({3: cache.pop(3)}),
}
ITERATORS: dict[str, Callable[[SlabCache], Any]] = {
    "iter": iter,
    "reversed": reversed,
    "keys": lambda cache: iter(cache.keys()),
    "values": lambda cache: iter(cache.values()),
    "items": lambda cache: iter(cache.items()),
    "reversed values": lambda cache: reversed(cache.values()),
    "reversed items": lambda cache: reversed(cache.items()),
}


@pytest.mark.parametrize("iterator", sorted(ITERATORS))
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_change_while_iterating(change: str, iterator: str) -> None:
    cache = filled()
    begun = ITERATORS[iterator](cache)
    next(begun)
    CHANGES[change](cache)
    with pytest.raises(RuntimeError):
        next(begun)
    cache._check()


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_change_before_the_first_step(change: str) -> None:
    cache = filled()
    iterator = iter(cache)
    CHANGES[change](cache)
    with pytest.raises(RuntimeError):
        next(iterator)


@pytest.mark.parametrize("iterator", sorted(ITERATORS))
def test_get_of_the_most_recent_changes_nothing(iterator: str) -> None:
    cache = filled()
    begun = ITERATORS[iterator](cache)
    next(begun)
    assert cache[3] == 30
    assert cache.get(3) == 30
    assert cache.touch(3)
    assert cache.get_many([3])[1].tolist() == [True]
    assert cache.get(9) is None
    next(begun)


def test_exhausted_iterators_stay_so() -> None:
    cache = filled()
    iterator = iter(cache)
    assert list(iterator) == [1, 2, 3]
    cache[9] = 9
    assert list(iterator) == []
    empty = iter(SlabCache(1, "u1", "u1"))
    assert list(empty) == []


def test_two_iterators_at_once() -> None:
    cache = filled()
    assert [(a, b) for a in cache for b in reversed(cache)] == [(a, b) for a in (1, 2, 3) for b in (3, 2, 1)]


# -- equality -----------------------------------------------------------------------------------


def test_equality_goes_by_content() -> None:
    cache = filled()
    other = SlabCache(50, "u8", "i2")
    for key in (3, 1, 2):
        other[key] = 10 * key
    assert cache == other  # capacity, types and order do not matter
    other[2] = 21
    assert cache != other
    other[2] = 20
    other[4] = 40
    assert cache != other
    del other[4]
    assert cache == other
    assert cache == filled()
    assert SlabCache(1, "u4", "i8") == SlabCache(2, "S3", "f8")


def test_equality_with_other_mappings() -> None:
    cache = filled()
    content = {3: 30, 2: 20, 1: 10}
    for other in (content, OrderedDict(content), MappingProxyType(content)):
        assert cache == other
        assert other == cache
        assert (cache != other) is False
    for other in (
        {1: 10, 2: 20},
        {1: 10, 2: 20, 3: 31},
        {1: 10, 2: 20, 4: 30},
        {1: 10, 2: 20, "3": 30},
        {1: 10, 2: 20, None: 30},
        {1: 10, 2: 20, -3: 30},
        {1: 10, 2: 20, 2**70: 30},
        {1: 10, 2: 20, (3,): 30},
        {1: 10, 2: 20, 3: "30"},
        {1: 10, 2: 20, 3: None},
        {},
    ):
        assert cache != other
        assert (cache == other) is False
    assert cache != [(1, 10), (2, 20), (3, 30)]
    assert cache != 5
    assert cache is not None
    assert cache.__eq__(5) is NotImplemented


def test_equality_of_records() -> None:
    cache = records()
    assert cache == {(1, 2): (3, 4), (5, 6): (7, 8)}
    assert cache == {(1, 2): cache.peek((1, 2)), (5, 6): (7, 8)}
    assert cache != {(1, 2): (3, 4), (5, 6): (7, 9)}
    assert cache == cache.copy()


def test_equality_with_itself_and_an_odd_mapping() -> None:
    cache = filled()
    assert cache == cache

    class Odd(Mapping[int, int]):
        """Changes the cache while it is compared: no crash, and the cache stays whole."""

        def __getitem__(self, key: int) -> int:
            cache[key] = 5
            return 10 * key

        def __iter__(self) -> Any:
            for key in (1, 2, 3):
                cache.touch(key)
                yield key

        def __len__(self) -> int:
            return 3

    with suppress(RuntimeError):  # the change while iterating may be told
        _ = cache == Odd()
    cache._check()


def test_comparison_counts_nothing() -> None:
    one, two = filled(), filled()
    before = one.stats(), two.stats()
    assert one == two
    assert one == {1: 10, 2: 20, 3: 30}
    assert (one.stats(), two.stats()) == before


NAN_DTYPES = [
    "f2",
    ">f8",
    "M8[s]",
    ("f4", (2,)),
    [("a", "f4"), ("t", "m8[s]"), ("g", "f8", (2,)), ("s", "S3")],
]


@pytest.mark.parametrize("dtype", NAN_DTYPES, ids=str)
def test_a_copy_is_equal_with_nan_in_it(dtype: Any) -> None:
    cache = SlabCache(3, "u4", dtype)
    rows = np.zeros(3, cache.value_dtype.base if cache.value_dtype.subdtype is None else dtype)
    rows.view("u1")[...] = 0xFF  # NaN; for times that is no NaT, which is below
    cache.put_many([1, 2, 3], rows)
    if "M8" in str(dtype):
        cache[1] = np.datetime64("NaT", "s")
    elif isinstance(dtype, list):
        cache.update_fields(1, t=np.timedelta64("NaT", "s"), s=b"")
    twin = cache.copy()
    assert cache == twin
    assert twin == cache
    twin.put_many([2], np.zeros((1, *rows.shape[1:]), rows.dtype))
    assert cache != twin


def test_equal_values_of_different_bytes() -> None:
    cache, other = (SlabCache(2, "u4", [("x", "f8"), ("y", "f8")]) for _ in range(2))
    cache[1] = (0.0, float("nan"))
    other[1] = (-0.0, float("nan"))
    assert cache != other  # NaN is equal as bytes of the whole value alone
    cache[1] = (0.0, 1.0)
    other[1] = (-0.0, 1.0)
    assert cache == other


# -- resize -------------------------------------------------------------------------------------


def test_resize() -> None:
    cache = filled()
    assert cache.resize(5) == 0
    assert list(cache) == [1, 2, 3]
    before = cache.nbytes
    assert cache.resize(2) == 1
    assert (list(cache.items()), cache.capacity) == ([(2, 20), (3, 30)], 2)
    assert cache.resize(1000) == 0
    assert cache.nbytes > before
    assert (list(cache), cache.capacity) == ([2, 3], 1000)
    cache._check()
    cache.put_many(np.arange(2000), np.arange(2000))
    assert len(cache) == 1000
    assert cache.resize(1) == 999
    assert list(cache.items()) == [(1999, 1999)]
    cache._check()
    assert cache.nbytes < before * 2
    assert cache.bytes_per_entry == cache.nbytes


@pytest.mark.parametrize("size", [1, 2, 3, 10, 100, 1000])
def test_resize_keeps_the_most_recent(size: int) -> None:
    cache = SlabCache(500, PAIR, STATE)
    keys = np.arange(1400).reshape(700, 2)
    cache.put_many(keys, np.zeros(700, STATE))
    cache.touch_many(keys[300:310])
    expected = list(cache)[-size:]
    assert cache.resize(size) == max(0, 500 - size)
    assert list(cache) == expected
    cache._check()


# -- subclasses ---------------------------------------------------------------------------------


class Sessions(SlabCache):
    """Its own constructor, an attribute, and one overridden method."""

    def __init__(self, name: str) -> None:
        super().__init__(4, "u4", "i8")
        self.name = name

    def double(self, key: int) -> int:
        return 2 * self[key]


def test_subclass() -> None:
    sessions = Sessions("mine")
    sessions[1] = 5
    assert (sessions.name, sessions.double(1), len(sessions)) == ("mine", 10, 1)
    assert sessions == {1: 5}
    assert isinstance(sessions, SlabCache)
    assert isinstance(sessions, MutableMapping)
    assert "Sessions" in repr(sessions)
    sessions._check()


def test_subclass_that_overrides_an_operation() -> None:
    class Loud(SlabCache):
        def __getitem__(self, key: Any) -> Any:
            return super().__getitem__(key) + 1

    loud = Loud(2, "u4", "i8")
    loud[1] = 5
    assert loud[1] == 6
    assert loud.peek(1) == 5
    assert loud.get_many([1])[0].tolist() == [5]


class Squares(SlabCache):
    """What is absent is made."""

    def __missing__(self, key: Any) -> Any:
        self[key] = key * key
        return self[key]


def test_missing_of_a_subclass() -> None:
    squares = Squares(4, "u8", "u8")
    assert (squares[3], squares[3], list(squares)) == (9, 9, [3])
    assert squares.get(4) is None
    assert squares.stats()[:2] == (2, 2)
    assert 4 not in squares
    with pytest.raises(KeyError):
        squares.pop(4)
    with pytest.raises(TypeError):
        squares["a"]
    assert squares.copy()[5] == 25
    with pytest.raises(KeyError) as caught:
        super(Squares, squares).__missing__(7)
    assert caught.value.args == (7,)


def test_size_in_memory() -> None:
    """sys.getsizeof has the arena in it."""

    class Wide(SlabCache):
        __slots__ = ("a", "b")

    for entries in (10, 100_000):
        cache = SlabCache(entries, "u8", "u8")
        assert 0 <= sys.getsizeof(cache) - cache.nbytes < 100
        wide = Wide(entries, "u8", "u8")
        assert sys.getsizeof(wide) > sys.getsizeof(cache)
    before = sys.getsizeof(cache)
    cache.resize(200_000)
    assert 0 <= sys.getsizeof(cache) - cache.nbytes < 100
    assert sys.getsizeof(cache) > 1.5 * before
    assert sys.getsizeof(SlabCache.__new__(SlabCache)) < 1000


def test_update_with_itself() -> None:
    cache = SlabCache(4, "u8", "u8")
    cache.update({1: 10, 2: 20})
    cache.update(cache)
    assert list(cache.items()) == [(1, 10), (2, 20)]


def test_arrays_are_equal_as_wholes() -> None:
    cache = SlabCache(4, "u8", ("f4", (3,)))
    cache[1] = [1, 1, 1]
    assert 1.0 not in cache.values()
    assert [1, 2] not in cache.values()
    assert (1, [1, 2]) not in cache.items()
    assert cache != {1: 1.0}
    assert [1, 1, 1] in cache.values()
    assert cache == {1: np.ones(3)}


def test_an_iterator_cannot_be_made_without_a_cache() -> None:
    kind = type(iter(SlabCache(1, "u8", "u8")))
    with pytest.raises(TypeError):
        kind.__new__(kind)
