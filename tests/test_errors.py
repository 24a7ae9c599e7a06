"""Every error of the interface, and that whatever is raised leaves the cache unchanged.

`unchanged` compares content, order and counters before and after, and walks the arena.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from slabcache import Record, SlabCache
from support.model import canon_items

KEY = np.dtype([("a", "u4"), ("b", "i2")])
VALUE = np.dtype([("n", "u1"), ("x", "f4"), ("flag", "?"), ("text", "S3"), ("raw", "V2")])
WHEN = np.dtype([("at", "M8[s]"), ("took", "m8[ms]")])
ROW = (7, 0.5, True, b"abc", b"xy")


@contextmanager
def unchanged(*caches: SlabCache) -> Iterator[None]:
    before = [(canon_items(cache.items()), cache.stats()) for cache in caches]
    yield
    for cache, (items, stats) in zip(caches, before, strict=True):
        cache._check()
        assert canon_items(cache.items()) == items
        assert cache.stats() == stats


def records() -> SlabCache:
    """Full, so that an insertion that was wrongly begun would evict."""
    cache = SlabCache(3, KEY, VALUE)
    for key in ((1, -1), (2, -2), (3, -3)):
        cache[key] = ROW
    return cache


def scalars(key: Any = "u4", value: Any = "i2") -> SlabCache:
    cache = SlabCache(3, key, value)
    key_dtype = np.dtype(key)
    for item in (b"a", b"b", b"c") if key_dtype.kind in "SV" else (1, 2, 3):
        cache[item] = np.zeros(1, value)[0] if np.dtype(value).subdtype else zero_of(value)
    return cache


def zero_of(dtype: Any) -> Any:
    kind = np.dtype(dtype).kind
    return {"S": b"", "V": bytes(np.dtype(dtype).itemsize), "b": False, "f": 0.0}.get(
        kind, np.zeros(1, dtype)[0]
    )


class Index:
    """An integer that is no int."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Raising:
    """Its conversion raises what the caller must see."""

    def __index__(self) -> int:
        raise ZeroDivisionError

    def __float__(self) -> float:
        raise ZeroDivisionError


# -- keys ---------------------------------------------------------------------------------------

BAD_KEYS: list[tuple[str, Any, Any, type[Exception]]] = [
    ("string for integer", "u4", "1", TypeError),
    ("float", "u4", 1.0, TypeError),
    ("numpy float", "u4", np.float64(1), TypeError),
    ("bool", "u4", True, TypeError),
    ("numpy bool", "u4", np.True_, TypeError),
    ("none", "u4", None, TypeError),
    ("bytes", "u4", b"1", TypeError),
    ("tuple for scalar", "u4", (1,), TypeError),
    ("timedelta for integer", "i8", np.timedelta64(1, "s"), TypeError),
    ("array for scalar", "u4", np.arange(2), TypeError),
    ("negative for unsigned", "u4", -1, OverflowError),
    ("too large", "u4", 2**32, OverflowError),
    ("numpy too large", "u4", np.uint64(2**32), OverflowError),
    ("index too large", "u4", Index(2**70), OverflowError),
    ("huge", "u8", 2**64, OverflowError),
    ("huge and negative", "i8", -(2**63) - 1, OverflowError),
    ("signed limit", "i1", 128, OverflowError),
    ("conversion raises", "u4", Raising(), ZeroDivisionError),
    ("str for S", "S3", "a", TypeError),
    ("int for S", "S3", 1, TypeError),
    ("none for S", "S3", None, TypeError),
    ("long S", "S3", b"abcd", ValueError),
    ("NUL at the end", "S3", b"a\0", ValueError),
    ("only NUL", "S3", b"\0", ValueError),
    ("NUL at the end of bytearray", "S3", bytearray(b"ab\0"), ValueError),
    ("long V", "V3", b"abcd", ValueError),
    ("str for V", "V3", "abc", TypeError),
    ("scalar for structured", KEY, 1, TypeError),
    ("too few", KEY, (1,), TypeError),
    ("too many", KEY, (1, 2, 3), TypeError),
    ("empty tuple", KEY, (), TypeError),
    ("list", KEY, [1, 2], TypeError),
    ("string in a field", KEY, (1, "2"), TypeError),
    ("float in a field", KEY, (1.0, 2), TypeError),
    ("bool in a field", KEY, (1, False), TypeError),
    ("none in a field", KEY, (None, 2), TypeError),
    ("field out of range", KEY, (1, 2**15), OverflowError),
    ("first field out of range", KEY, (-1, 0), OverflowError),
    ("void of another arity", KEY, np.zeros(1, "u4,i2,i2")[0], TypeError),
    ("nested tuple", KEY, ((1, 2), 3), TypeError),
]

# What takes one key; the value it also takes is good.
KEY_CALLS: dict[str, Callable[[SlabCache, Any, Any], Any]] = {
    "[]": lambda cache, key, value: cache[key],
    "[]=": lambda cache, key, value: cache.__setitem__(key, value),
    "del": lambda cache, key, value: cache.__delitem__(key),
    "in": lambda cache, key, value: key in cache,
    "get": lambda cache, key, value: cache.get(key, 1),
    "peek": lambda cache, key, value: cache.peek(key, 1),
    "pop": lambda cache, key, value: cache.pop(key, 1),
    "touch": lambda cache, key, value: cache.touch(key),
    "setdefault": lambda cache, key, value: cache.setdefault(key, value),
    "increment": lambda cache, key, value: cache.increment(key),
    "update": lambda cache, key, value: cache.update([(key, value)]),
    "get_many": lambda cache, key, value: cache.get_many([key]),
    "peek_many": lambda cache, key, value: cache.peek_many([key]),
    "contains_many": lambda cache, key, value: cache.contains_many(iter([key])),
    "delete_many": lambda cache, key, value: cache.delete_many((key,)),
    "touch_many": lambda cache, key, value: cache.touch_many([key]),
    "put_many": lambda cache, key, value: cache.put_many([key], [value]),
    "increment_many": lambda cache, key, value: cache.increment_many([key]),
}


@pytest.mark.parametrize("call", sorted(KEY_CALLS))
@pytest.mark.parametrize(
    ("key_dtype", "key", "error"),
    [case[1:] for case in BAD_KEYS],
    ids=[case[0] for case in BAD_KEYS],
)
def test_bad_key(call: str, key_dtype: Any, key: Any, error: type[Exception]) -> None:
    cache = SlabCache(2, key_dtype, "i2")
    good = [(1, 2), (2, 3)] if key_dtype is KEY else [1, 2]
    if np.dtype(key_dtype).kind in "SV" and key_dtype is not KEY:
        good = [b"aaa", b"bbb"]
    for item in good:
        cache[item] = 5
    with unchanged(cache), pytest.raises(error):
        KEY_CALLS[call](cache, key, 9)


@pytest.mark.parametrize("call", sorted(set(KEY_CALLS) - {"update"}))
def test_bad_key_behind_good_ones(call: str) -> None:
    """A batch is checked as a whole before its first row is touched."""
    if not call.endswith("_many"):
        call = "put_many"
    cache = scalars()
    method = getattr(cache, call)
    for keys in ([3, 9, 1, "x"], (3, 1, -1), iter([3, 1, None])):
        args = ([5] * 4 if isinstance(keys, list) else [5] * 3,) if call == "put_many" else ()
        with unchanged(cache), pytest.raises((TypeError, OverflowError)):
            method(keys, *args)


MISSING_KEYS: dict[str, Callable[[SlabCache], Any]] = {
    "[]": lambda cache: cache[9, 9],
    "del": lambda cache: cache.__delitem__((9, 9)),
    "pop": lambda cache: cache.pop((9, 9)),
    "increment": lambda cache: cache.increment((9, 9), "n"),
    "update_fields": lambda cache: cache.update_fields((9, 9), n=1),
}


@pytest.mark.parametrize("call", sorted(MISSING_KEYS))
def test_absent_key(call: str) -> None:
    cache = records()
    before = cache.stats()
    with pytest.raises(KeyError) as caught:
        MISSING_KEYS[call](cache)
    assert caught.value.args == ((9, 9),)
    assert cache.stats() == before._replace(misses=int(call == "[]"))
    assert list(cache) == [(1, -1), (2, -2), (3, -3)]


def test_popitem_of_an_empty_cache() -> None:
    cache = SlabCache(1, "u4", "u4")
    with unchanged(cache), pytest.raises(KeyError):
        cache.popitem()


# -- values -------------------------------------------------------------------------------------

BAD_SCALARS: list[tuple[str, Any, Any, type[Exception]]] = [
    ("string", "i2", "1", TypeError),
    ("float for integer", "i2", 1.0, TypeError),
    ("numpy float for integer", "i2", np.float32(1), TypeError),
    ("none", "i2", None, TypeError),
    ("tuple for scalar", "i2", (1,), TypeError),
    ("too large", "i2", 2**15, OverflowError),
    ("too small", "i2", -(2**15) - 1, OverflowError),
    ("numpy too large", "u1", np.int64(256), OverflowError),
    ("negative for unsigned", "u8", -1, OverflowError),
    ("huge", "u8", 2**64, OverflowError),
    ("timedelta for integer", "i8", np.timedelta64(1, "s"), TypeError),
    ("conversion raises", "i2", Raising(), ZeroDivisionError),
    ("string for float", "f8", "1.0", TypeError),
    ("none for float", "f8", None, TypeError),
    ("complex for float", "f8", 1j, TypeError),
    ("bytes for float", "f4", b"1", TypeError),
    ("conversion to float raises", "f8", Raising(), ZeroDivisionError),
    ("huge integer for float", "f8", 10**400, OverflowError),
    ("infinite as f4", "f4", 1e39, OverflowError),
    ("infinite as f2", "f2", 65520.0, OverflowError),
    ("integer infinite as f2", "f2", 10**6, OverflowError),
    ("int for bool", "?", 1, TypeError),
    ("float for bool", "?", 0.0, TypeError),
    ("none for bool", "?", None, TypeError),
    ("string for bool", "?", "True", TypeError),
    ("str for S", "S3", "abc", TypeError),
    ("int for S", "S3", 3, TypeError),
    ("none for S", "S3", None, TypeError),
    ("long S", "S3", b"abcd", ValueError),
    ("long S of NULs", "S3", b"abc\0", ValueError),
    ("long V", "V3", b"abcd", ValueError),
    ("str for V", "V3", "abc", TypeError),
    ("list for V", "V3", [1, 2, 3], TypeError),
    ("str for datetime", "M8[s]", "2020-01-01", TypeError),
    ("int for datetime", "M8[s]", 5, TypeError),
    ("none for datetime", "M8[s]", None, TypeError),
    ("timedelta for datetime", "M8[s]", np.timedelta64(5, "s"), TypeError),
    ("datetime for timedelta", "m8[s]", np.datetime64(5, "s"), TypeError),
    ("int for timedelta", "m8[s]", 5, TypeError),
    ("unit too coarse", "M8[s]", np.datetime64(1500, "ms"), ValueError),
    ("unit too coarse for delta", "m8[s]", np.timedelta64(1, "ms"), ValueError),
    ("out of the unit's range", "M8[ns]", np.datetime64("9999-01-01", "s"), ValueError),
    ("delta out of the unit's range", "m8[ns]", np.timedelta64(2**62, "s"), ValueError),
    ("multiple of a unit", "m8[25s]", np.timedelta64(26, "s"), ValueError),
    ("shape of a subarray", ("i4", (2,)), [1, 2, 3], ValueError),
    ("scalar for a subarray", ("i4", (2,)), 1, ValueError),
    ("unsafe subarray", ("i4", (2,)), [1.5, 2.5], TypeError),
    ("none for a subarray", ("i4", (2,)), None, TypeError),
]

VALUE_CALLS: dict[str, Callable[[SlabCache, Any], Any]] = {
    "[]= of a present key": lambda cache, value: cache.__setitem__(1, value),
    "[]= of an absent key": lambda cache, value: cache.__setitem__(9, value),
    "setdefault": lambda cache, value: cache.setdefault(9, value),
    "update": lambda cache, value: cache.update({9: value}),
    "put_many": lambda cache, value: cache.put_many([9], [value]),
    "put_many, behind a good one": lambda cache, value: cache.put_many([1, 9], [cache.peek(2), value]),
}


@pytest.mark.parametrize("call", sorted(VALUE_CALLS))
@pytest.mark.parametrize(
    ("dtype", "value", "error"),
    [case[1:] for case in BAD_SCALARS],
    ids=[case[0] for case in BAD_SCALARS],
)
def test_bad_value(call: str, dtype: Any, value: Any, error: type[Exception]) -> None:
    cache = scalars(value=dtype)
    with unchanged(cache), pytest.raises(error):
        VALUE_CALLS[call](cache, value)


@pytest.mark.parametrize(
    ("dtype", "value", "error"),
    [case[1:] for case in BAD_SCALARS],
    ids=[case[0] for case in BAD_SCALARS],
)
def test_bad_value_in_a_field(dtype: Any, value: Any, error: type[Exception]) -> None:
    """The same in the last field of a record, by tuple, by mapping and by update_fields."""
    spec = np.dtype([("first", "u2"), ("last", *dtype)] if isinstance(dtype, tuple) else
                    [("first", "u2"), ("last", dtype)])  # fmt: skip
    cache = SlabCache(2, "u4", spec)
    cache.put_many(np.array([1, 2]), np.zeros(2, spec))
    with unchanged(cache):
        for key in (1, 9):
            with pytest.raises(error):
                cache[key] = (3, value)
            with pytest.raises(error):
                cache[key] = {"last": value, "first": 3}
        with pytest.raises(error):
            cache.update_fields(1, first=3, last=value)
        with pytest.raises(error):
            cache.put_many([1, 9], [(3, spec_zero(spec)), (3, value)])


def spec_zero(spec: np.dtype) -> Any:
    return np.zeros(1, spec)["last"][0]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ((), TypeError),
        (ROW[:4], TypeError),
        ((*ROW, 1), TypeError),
        (list(ROW), TypeError),
        (7, TypeError),
        (b"bytes", TypeError),
        (None, TypeError),
        (np.zeros(1, "u1")[0], TypeError),
    ],
)
def test_bad_record(value: Any, error: type[Exception]) -> None:
    cache = records()
    for key in ((1, -1), (9, 9)):
        with unchanged(cache), pytest.raises(error):
            cache[key] = value
        with unchanged(cache), pytest.raises(error):
            cache.put_many([(1, -1), key], [ROW, value])


NAMED = {"n": 1, "x": 2.0, "flag": True, "text": b"", "raw": b""}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({**NAMED, "nope": 1}, "nope"),
        ({name: NAMED[name] for name in NAMED if name != "flag"}, "flag"),
        ({}, "text"),
        ({**{name: NAMED[name] for name in NAMED if name != "raw"}, "row": b""}, "raw"),
    ],
)
def test_mapping_with_wrong_names_is_told_which(fields: dict[str, Any], named: str) -> None:
    cache = records()
    for key in ((1, -1), (9, 9)):
        with unchanged(cache), pytest.raises(ValueError, match=named):
            cache[key] = fields
    other = SlabCache(1, "u1", [(name, "u1") for name in fields] or [("z", "u1")])
    other[1] = (0,) * len(other.value_dtype.names)
    for value in (other[1], np.zeros(1, other.value_dtype)[0]):  # records go by name too
        with unchanged(cache), pytest.raises(ValueError, match=named):
            cache[1, -1] = value


def test_update_fields() -> None:
    cache = records()
    with unchanged(cache), pytest.raises(ValueError, match="nope"):
        cache.update_fields((1, -1), n=1, nope=2)
    with unchanged(cache), pytest.raises(OverflowError):
        cache.update_fields((1, -1), x=1.0, n=256)
    with unchanged(cache), pytest.raises(TypeError):
        cache.update_fields((1, -1), {"n": 1})
    scalar = scalars()
    with unchanged(scalar), pytest.raises(TypeError):
        scalar.update_fields(1, n=1)


def test_setdefault_looks_at_its_default_only_when_the_key_is_absent() -> None:
    cache = records()
    assert cache.setdefault((1, -1), "nonsense") == ROW
    with unchanged(cache), pytest.raises(TypeError):
        cache.setdefault((9, 9), "nonsense")


def test_update_stops_at_a_bad_item() -> None:
    cache = SlabCache(4, "u1", "u1")
    with pytest.raises(OverflowError):
        cache.update([(1, 10), (2, 20), (300, 30), (3, 30)])
    assert dict(cache.items()) == {1: 10, 2: 20}
    for bad in ([(1, 2, 3)], [1], 5, None):
        with unchanged(cache), pytest.raises((TypeError, ValueError)):
            cache.update(bad)
    with unchanged(cache), pytest.raises(ZeroDivisionError):
        cache.update(1 // 0 for _ in range(1))


# -- increment ----------------------------------------------------------------------------------

BAD_STEPS: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("no field", {}, TypeError),
    ("unknown field", {"field": "nope"}, ValueError),
    ("bool field", {"field": "flag"}, TypeError),
    ("bytes field", {"field": "text"}, TypeError),
    ("void field", {"field": "raw"}, TypeError),
    ("float step", {"field": "n", "by": 1.0}, TypeError),
    ("numpy float step", {"field": "n", "by": np.float64(1)}, TypeError),
    ("string step", {"field": "n", "by": "1"}, TypeError),
    ("string step of a float", {"field": "x", "by": "1"}, TypeError),
    ("no step", {"field": "n", "by": None}, TypeError),
    ("step raises", {"field": "n", "by": Raising()}, ZeroDivisionError),
    ("wraps", {"field": "n", "by": 249}, OverflowError),
    ("wraps below", {"field": "n", "by": -8}, OverflowError),
    ("huge step", {"field": "n", "by": 2**64}, OverflowError),
    ("huge step down", {"field": "n", "by": -(2**64)}, OverflowError),
    ("float becomes infinite", {"field": "x", "by": 3.5e38}, OverflowError),
]


@pytest.mark.parametrize(
    ("arguments", "error"), [case[1:] for case in BAD_STEPS], ids=[case[0] for case in BAD_STEPS]
)
def test_bad_increment(arguments: dict[str, Any], error: type[Exception]) -> None:
    cache = records()
    with unchanged(cache), pytest.raises(error):
        cache.increment((1, -1), **arguments)
    with unchanged(cache), pytest.raises(error):
        cache.increment_many([(1, -1)], **arguments)


@pytest.mark.parametrize("field", ["at", "took"])
def test_increment_takes_no_dates(field: str) -> None:
    cache = SlabCache(2, "u4", WHEN)
    cache.put_many([1], np.zeros(1, WHEN))
    with unchanged(cache), pytest.raises(TypeError):
        cache.increment(1, field)
    with unchanged(cache), pytest.raises(TypeError):
        cache.increment(1, field, np.timedelta64(1, "s"))


def test_increment_of_a_subarray() -> None:
    cache = scalars(value=("u4", (2,)))
    with unchanged(cache), pytest.raises(TypeError):
        cache.increment(1)


def test_huge_step_raises_before_the_key_is_looked_at() -> None:
    cache = scalars()
    with unchanged(cache), pytest.raises(OverflowError):
        cache.increment(9, by=2**64)
    with unchanged(cache), pytest.raises(OverflowError):
        cache.increment_many([9], by=2**64)


@pytest.mark.parametrize(
    ("by", "error"),
    [
        ([1, 2], ValueError),
        (np.arange(4), ValueError),
        (np.zeros((3, 1), "i8"), ValueError),
        (np.zeros(3), TypeError),
        (np.zeros(3, "m8[s]"), TypeError),
        ([1, 1, 2**64], OverflowError),
        ([1, 1, "x"], TypeError),
        ([1, 1, 0.5], TypeError),
        ("123", TypeError),
    ],
)
def test_bad_steps_array(by: Any, error: type[Exception]) -> None:
    cache = scalars()
    with unchanged(cache), pytest.raises(error):
        cache.increment_many([1, 2, 3], by=by)


# -- batches ------------------------------------------------------------------------------------

BAD_KEY_ARRAYS: list[tuple[str, Any, Any, type[Exception] | tuple[type[Exception], ...]]] = [
    ("floats", "u4", np.zeros(3), TypeError),
    ("bools", "u4", np.zeros(3, bool), TypeError),
    ("strings", "u4", np.array(["1", "2"]), TypeError),
    ("bytes for integers", "u4", np.array([b"1"]), TypeError),
    ("dates", "i8", np.zeros(2, "M8[s]"), TypeError),
    ("deltas", "i8", np.zeros(2, "m8[s]"), TypeError),
    ("a string", "u4", "123", TypeError),
    ("bytes", "u4", b"123", TypeError),
    ("bytearray", "u4", bytearray(b"123"), TypeError),
    ("a scalar", "u4", 5, TypeError),
    ("none", "u4", None, TypeError),
    ("two dimensions", "u4", np.zeros((2, 2), "u4"), ValueError),
    ("two dimensions, one column", "u4", np.zeros((2, 1), "u4"), ValueError),
    ("too large", "u4", np.array([1, 2**32]), OverflowError),
    ("negative", "u4", np.array([1, -1]), OverflowError),
    ("unsigned too large", "i4", np.array([1, 2**63], "u8"), OverflowError),
    ("structured for scalar", "u4", np.zeros(2, [("a", "u4")]), TypeError),
    ("longer bytes", "S3", np.array([b"abcd", b"a"]), TypeError),
    ("longer void", "V3", np.zeros(2, "V4"), TypeError),
    ("floats for bytes", "S3", np.zeros(2), TypeError),
    ("unicode for bytes", "S3", np.array(["abc"]), TypeError),
    ("one column", KEY, np.zeros((3, 1), KEY), ValueError),
    ("unequal fields as columns", KEY, np.zeros((3, 2), "u4"), (TypeError, ValueError)),
    ("one dimension for fields", KEY, np.zeros(2, "u4"), (TypeError, ValueError)),
    ("floats for fields", KEY, np.zeros((3, 2)), TypeError),
    ("another arity", KEY, np.zeros(2, "u4,i2,i2"), TypeError),
    ("other names", KEY, np.zeros(2, [("c", "u4"), ("d", "i2")]), TypeError),
    ("one name at another position", KEY, np.zeros(2, [("z", "u4"), ("a", "i2")]), TypeError),
    ("float field", KEY, np.zeros(2, [("a", "u4"), ("b", "f4")]), TypeError),
    ("bool field", KEY, np.zeros(2, [("a", "u4"), ("b", "?")]), TypeError),
    ("field too large", KEY, np.full(2, 2**20, [("a", "u4"), ("b", "i8")]), OverflowError),
    ("list of scalars", KEY, [1, 2], TypeError),
    ("list of lists", KEY, [[1, 2]], TypeError),
]


@pytest.mark.parametrize("call", sorted(name for name in KEY_CALLS if name.endswith("_many")))
@pytest.mark.parametrize(
    ("dtype", "keys", "error"),
    [case[1:] for case in BAD_KEY_ARRAYS],
    ids=[case[0] for case in BAD_KEY_ARRAYS],
)
def test_bad_key_array(call: str, dtype: Any, keys: Any, error: type[Exception]) -> None:
    cache = SlabCache(3, dtype, "i2")
    key_dtype = np.dtype(dtype)
    if key_dtype.names:
        cache.put_many([(0, 0), (1, 2), (5, 5)], [1, 2, 3])
    else:
        cache.put_many([b"aaa", b"bbb", b"ccc"] if key_dtype.kind in "SV" else [0, 1, 2], [1, 2, 3])
    count = len(keys) if hasattr(keys, "__len__") else 1
    args = (np.zeros(count, "i2"),) if call == "put_many" else ()
    with unchanged(cache), pytest.raises(error):
        getattr(cache, call)(keys, *args)


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_wrong_number_of_columns(columns: int) -> None:
    cache = SlabCache(2, [("a", "u8"), ("b", "u8")], "u4")
    cache[0, 0] = 1
    with unchanged(cache), pytest.raises(ValueError, match=r"\d"):
        cache.get_many(np.zeros((4, columns), "u8"))


@pytest.mark.parametrize("kind", ["f8", "?", "M8[s]", "S8"])
def test_columns_of_another_kind(kind: str) -> None:
    cache = SlabCache(2, [("a", "u8"), ("b", "u8")], "u4")
    cache[0, 0] = 1
    with unchanged(cache), pytest.raises(TypeError):
        cache.get_many(np.zeros((4, 2), kind))


BAD_VALUE_ARRAYS: list[tuple[str, Any, Any, type[Exception] | tuple[type[Exception], ...]]] = [
    ("floats for integers", "i2", np.zeros(2), TypeError),
    ("dates for integers", "i8", np.zeros(2, "M8[s]"), TypeError),
    ("too large", "i2", np.array([0, 2**15]), OverflowError),
    ("too small", "i2", np.array([0, -(2**15) - 1]), OverflowError),
    ("unsigned too large", "i8", np.array([0, 2**63], "u8"), OverflowError),
    ("negative", "u8", np.array([0, -1]), OverflowError),
    ("wider floats", "f4", np.zeros(2), TypeError),
    ("wide integers for floats", "f4", np.zeros(2, "i8"), TypeError),
    ("integers for bools", "?", np.zeros(2, "u1"), TypeError),
    ("strings", "S3", np.array(["a", "b"]), TypeError),
    ("longer bytes", "S3", np.array([b"abcd", b""]), TypeError),
    ("longer void", "V3", np.zeros(2, "V4"), TypeError),
    ("finer dates", "M8[s]", np.zeros(2, "M8[ms]"), TypeError),
    ("integers for dates", "M8[s]", np.zeros(2, "i8"), TypeError),
    ("objects", "i2", np.array([1, 2], object), TypeError),
    ("shape of subarrays", ("i4", (2,)), np.zeros((2, 3), "i4"), ValueError),
    ("one dimension for subarrays", ("i4", (2,)), np.zeros(2, "i4"), ValueError),
    ("two dimensions", "i2", np.zeros((2, 1), "i2"), ValueError),
    ("one too few", "i2", np.zeros(1, "i2"), ValueError),
    ("one too many", "i2", np.zeros(3, "i2"), ValueError),
    ("list too short", "i2", [1], ValueError),
    ("list too long", "i2", [1, 2, 3], ValueError),
    ("a string", "i2", "12", TypeError),
    ("bytes", "u1", b"12", TypeError),
    ("a scalar", "i2", 5, TypeError),
    ("none", "i2", None, TypeError),
    ("scalar for records", WHEN, np.zeros(2, "M8[s]"), (TypeError, ValueError)),
    ("arity of records", WHEN, np.zeros(2, "M8[s],m8[ms],u1"), TypeError),
    ("names at other positions", WHEN, np.zeros(2, [("took", "M8[s]"), ("at", "m8[s]")]),
     TypeError),
    ("finer field", WHEN, np.zeros(2, "M8[ms],m8[ms]"), TypeError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "values", "error"),
    [case[1:] for case in BAD_VALUE_ARRAYS],
    ids=[case[0] for case in BAD_VALUE_ARRAYS],
)
def test_bad_value_array(dtype: Any, values: Any, error: type[Exception]) -> None:
    cache = SlabCache(2, "u4", dtype)
    cache.put_many(np.array([1, 2]), np.zeros(2, dtype))
    for keys in (np.array([1, 9]), [1, 9]):
        with unchanged(cache), pytest.raises(error):
            cache.put_many(keys, values)


BAD_OUTS: list[tuple[str, Any, type[Exception] | tuple[type[Exception], ...]]] = [
    ("too short", np.zeros(1, "i2"), ValueError),
    ("too long", np.zeros(3, "i2"), ValueError),
    ("another dtype", np.zeros(2, "i4"), (TypeError, ValueError)),
    ("two dimensions", np.zeros((2, 1), "i2"), ValueError),
    ("a list", [0, 0], TypeError),
    ("read-only", np.broadcast_to(np.int16(0), (2,)), ValueError),
]


@pytest.mark.parametrize("call", ["get_many", "peek_many"])
@pytest.mark.parametrize(
    ("out", "error"), [case[1:] for case in BAD_OUTS], ids=[case[0] for case in BAD_OUTS]
)
def test_bad_out(call: str, out: Any, error: type[Exception]) -> None:
    cache = scalars()
    with unchanged(cache), pytest.raises(error):
        getattr(cache, call)([1, 2], out=out)
    with unchanged(cache), pytest.raises(TypeError):
        getattr(cache, call)([1, 2], np.zeros(2, "i2"))  # keyword only


def test_a_sequence_that_raises_half_way() -> None:
    def keys() -> Iterator[int]:
        yield 3
        yield 1
        raise ZeroDivisionError

    cache = scalars()
    for call in (cache.get_many, cache.delete_many, cache.touch_many):
        with unchanged(cache), pytest.raises(ZeroDivisionError):
            call(keys())
    with unchanged(cache), pytest.raises(ZeroDivisionError):
        cache.put_many(keys(), [1, 2])
    with unchanged(cache), pytest.raises(ZeroDivisionError):
        cache.put_many([1, 2], keys())


def test_cache_changed_by_the_conversion_of_an_argument() -> None:
    """Conversions run Python code before the cache is touched, so they may use it."""
    cache = scalars()

    class Sneaky:
        def __index__(self) -> int:
            cache.clear()
            cache[8] = 80
            return 8

    assert cache[Sneaky()] == 80
    assert cache.get_many([8, Sneaky()])[1].tolist() == [True, True]
    cache[Sneaky()] = 5
    assert dict(cache.items()) == {8: 5}
    cache.put_many([1, 2, Sneaky()], [1, 2, 3])
    assert dict(cache.items()) == {8: 3, 1: 1, 2: 2}
    with pytest.raises(KeyError):
        cache.increment(1, by=Sneaky())  # the key was there when the call began
    assert dict(cache.items()) == {8: 80}
    cache._check()


# -- arguments ----------------------------------------------------------------------------------


WRONG_ARGUMENTS: dict[str, Callable[[SlabCache], Any]] = {
    "get()": lambda cache: cache.get(),
    "get(1, 2, 3)": lambda cache: cache.get(1, 2, 3),
    "peek()": lambda cache: cache.peek(),
    "pop()": lambda cache: cache.pop(),
    "pop(1, 2, 3)": lambda cache: cache.pop(1, 2, 3),
    "setdefault()": lambda cache: cache.setdefault(),
    "touch()": lambda cache: cache.touch(),
    "update(1, 2)": lambda cache: cache.update({}, {}),
    "update(other=)": lambda cache: cache.update(other={}),
    "resize()": lambda cache: cache.resize(),
    "get_many()": lambda cache: cache.get_many(),
    "put_many(keys)": lambda cache: cache.put_many([1]),
    "put_many(keys, values, True)": lambda cache: cache.put_many([1], [1], True),
    "increment()": lambda cache: cache.increment(),
    "popitem(1)": lambda cache: cache.popitem(1),
    "clear(1)": lambda cache: cache.clear(1),
    "hash": hash,
    "slice": lambda cache: cache[1:2],
    "+": lambda cache: cache + cache,
    "<": lambda cache: cache < cache,
}


@pytest.mark.parametrize("name", sorted(WRONG_ARGUMENTS))
def test_wrong_arguments(name: str) -> None:
    cache = scalars()
    with unchanged(cache), pytest.raises(TypeError):
        WRONG_ARGUMENTS[name](cache)


@pytest.mark.parametrize("name", ["capacity", "key_dtype", "value_dtype", "nbytes", "on_evict"])
def test_properties_are_read_only(name: str) -> None:
    cache = scalars()
    with unchanged(cache), pytest.raises(AttributeError):
        setattr(cache, name, getattr(cache, name))


@pytest.mark.parametrize("huge", [10**5000, -(10**5000)], ids=["above", "below"])
def test_integers_too_long_to_print(huge: int) -> None:
    """Python refuses to print them; the message must not."""
    cache = SlabCache(2, "u8", [("n", "i8"), ("x", "f4")])
    cache[1] = (2, 3)
    for call in (
        lambda: huge in cache,
        lambda: cache.get(huge),
        lambda: cache.__setitem__(1, (huge, 0)),
        lambda: cache.__setitem__(1, (0, huge)),
        lambda: cache.increment(1, "n", by=huge),
    ):
        with unchanged(cache), pytest.raises(OverflowError, match="bits"):
            call()


@pytest.mark.parametrize("code", ["M8", "m8", [("t", "M8")]])
def test_times_without_a_unit(code: Any) -> None:
    with pytest.raises(TypeError, match=r"M8\[s\]|m8\[s\]"):
        SlabCache(2, "u8", code)


def test_items_of_a_subarray_are_taken_as_fields_are() -> None:
    cache = SlabCache(2, "u8", ("u8", (2,)))
    cache[1] = [2**64 - 1, 1]
    assert cache[1].tolist() == [2**64 - 1, 1]
    for items, error in (
        ([2**64, 1], OverflowError),
        ([-1, 1], OverflowError),
        ([1.5, 1], TypeError),
        ([1], ValueError),
        ([[1], [2, 3]], TypeError),
        (None, TypeError),
    ):
        with unchanged(cache), pytest.raises(error):
            cache[1] = items
    texts = SlabCache(2, "u8", ("S3", (2,)))
    with pytest.raises(ValueError, match="4 bytes"):
        texts[1] = [b"abcd", b"a"]


@pytest.mark.parametrize("owner", [SlabCache, Record])
def test_methods_called_on_something_else(owner: type) -> None:
    for name in dir(owner):
        method = getattr(owner, name)
        if type(method).__name__ in ("method_descriptor", "wrapper_descriptor") and name not in dir(object):
            with pytest.raises(TypeError):
                method(5)
