"""Every kind of key and value: what goes in, what comes out, and what construction refuses."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest

from slabcache import Record, SlabCache
from support.model import canon, canon_items
from support.strategies import KEY_DTYPES, VALUE_DTYPES

DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 250_000)


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def through(dtype: Any, value: Any) -> Any:
    """What a cache of this value dtype gives back, by each way in and out."""
    cache = SlabCache(2, "u4", dtype)
    cache[1] = value
    cache.put_many([2], [value])
    assert canon(cache[1]) == canon(cache[2]) == canon(cache.peek(1))
    assert canon(cache.get_many([1])[0][0]) == canon(cache[1])
    assert canon(cache.snapshot()[1][0]) == canon(cache[2])
    cache._check()
    return cache[1]


# -- values that come out -----------------------------------------------------------------------


@pytest.mark.parametrize("code", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i8", ">u2"])
def test_integer_values(code: str) -> None:
    info = np.iinfo(code)
    for number in (info.min, -1 if info.min else 0, 0, 1, info.max):
        number = int(number)
        given = [number, Index(number), np.dtype(code).newbyteorder("=").type(number)]
        for value in given:
            got = through(code, value)
            assert type(got) is int
            assert got == number
    assert through(code, np.int8(5)) == 5
    assert through(code, True) == 1
    assert type(through(code, True)) is int
    assert through(code, False) == 0


@pytest.mark.parametrize("code", ["f2", "f4", "f8", ">f4", ">f8"])
def test_float_values(code: str) -> None:
    info = np.finfo(code)
    for number in (0.0, -0.0, 1.5, float(info.max), float(info.min), float(info.tiny)):
        got = through(code, number)
        assert type(got) is float
        assert canon(got) == canon(number)
    for number in (math.inf, -math.inf, math.nan):
        assert canon(through(code, number)) == canon(number)
    assert canon(through(code, 3)) == canon(3.0)
    assert canon(through(code, np.int64(3))) == canon(3.0)
    assert canon(through(code, np.float32(0.5))) == canon(0.5)
    assert canon(through(code, np.float64(0.5))) == canon(0.5)
    assert through(code, 0.1) == float(np.dtype(code).type(0.1))  # rounds as numpy does


def test_large_integers_in_floats_round_as_python_does() -> None:
    assert through("f8", 2**53 + 1) == float(2**53 + 1)
    assert through("f8", 10**300) == 1e300
    assert through("f4", 2**24 + 1) == float(np.float32(2**24 + 1))


def test_bool_values() -> None:
    for flag in (True, False):
        assert through("?", flag) is flag
        assert through("?", np.bool_(flag)) is flag


def test_bytes_values() -> None:
    assert through("S4", b"ab") == b"ab"
    assert through("S4", b"abcd") == b"abcd"
    assert through("S4", b"") == b""
    assert through("S4", b"a\0b") == b"a\0b"
    assert through("V4", b"\0\1\2\0") == b"\0\1\2\0"
    for code in ("S4", "V4"):
        for value in (bytearray(b"abcd"), memoryview(b"abcd"), np.bytes_(b"abcd"), b"abcd"):
            assert through(code, value) == b"abcd"
            assert type(through(code, value)) is bytes
        strided = memoryview(b"axbxcxdx")[::2]
        assert through(code, strided) == b"abcd"
    assert through("V4", np.void(b"abcd")) == b"abcd"


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [
        ("M8[D]", DAY, np.datetime64("2024-02-29", "D")),
        ("M8[ms]", NOON, np.datetime64("2024-02-29T12:00:00.250", "ms")),
        ("M8[ns]", NOON, np.datetime64("2024-02-29T12:00:00.25", "ns")),
        ("M8[s]", DAY, np.datetime64("2024-02-29T00:00:00", "s")),
        ("M8[s]", np.datetime64("2024-02-29", "D"), np.datetime64("2024-02-29T00:00:00", "s")),
        ("M8[s]", np.datetime64(5000, "ms"), np.datetime64(5, "s")),
        (">M8[us]", np.datetime64(-1, "us"), np.datetime64(-1, "us")),
        ("M8[us]", np.datetime64("NaT", "s"), np.datetime64("NaT", "us")),
        ("m8[s]", datetime.timedelta(minutes=-2), np.timedelta64(-120, "s")),
        ("m8[us]", datetime.timedelta(microseconds=7), np.timedelta64(7, "us")),
        ("m8[s]", np.timedelta64(3000, "ms"), np.timedelta64(3, "s")),
        ("m8[25s]", np.timedelta64(100, "s"), np.array(4, "m8[25s]")[()]),
        ("m8[ns]", np.timedelta64("NaT", "s"), np.timedelta64("NaT", "ns")),
        (">m8[h]", np.timedelta64(2, "D"), np.timedelta64(48, "h")),
    ],
)
def test_dates(code: str, value: Any, expected: Any) -> None:
    got = through(code, value)
    assert type(got) is type(expected)
    assert canon(got) == canon(expected)


def test_finer_datetime_than_the_unit() -> None:
    cache = SlabCache(1, "u4", "M8[s]")
    with pytest.raises(ValueError, match="s"):
        cache[1] = NOON
    with pytest.raises(ValueError, match="s"):
        SlabCache(1, "u4", "m8[s]")[1] = datetime.timedelta(milliseconds=1)


def test_subarray_values() -> None:
    cache = SlabCache(3, "u4", ("i4", (2, 3)))
    rows = np.arange(6, dtype="i4").reshape(2, 3)
    for key, value in enumerate([rows, rows.tolist(), rows.astype("i2"), rows[:, ::-1][:, ::-1]]):
        cache[key] = value
        got = cache[key]
        assert type(got) is np.ndarray
        assert (got.shape, got.dtype) == ((2, 3), np.dtype("i4"))
        assert got.tolist() == rows.tolist()
        assert not got.flags.writeable
    got = cache[3]
    cache[3] = np.zeros((2, 3), "i4")
    assert got.tolist() == rows.tolist()  # a copy: later writes do not change it
    values, found = cache.get_many([3, 9, 2])
    assert (values.shape, values.dtype, found.shape) == ((3, 2, 3), np.dtype("i4"), (3,))
    assert values[1].tolist() == [[0] * 3] * 2
    cache.put_many([5, 6], np.ones((2, 2, 3), "i2"))
    assert cache[6].tolist() == [[1] * 3] * 2
    keys, values = cache.snapshot()
    assert values.shape == (len(keys), 2, 3)


def test_subarray_field() -> None:
    value = np.dtype([("n", "u1"), ("grid", ">f4", (2,)), ("names", "S3", (1, 2))])
    cache = SlabCache(2, "u4", value)
    cache[1] = (1, np.array([0.5, 1.5], "f4"), np.array([[b"a", b"bcd"]]))
    record = cache[1]
    assert record.grid.tolist() == [0.5, 1.5]
    assert not record.grid.flags.writeable
    assert record.names.tolist() == [[b"a", b"bcd"]]
    cache.update_fields(1, grid=np.array([3, 4], "u1"))
    assert record.grid.tolist() == [0.5, 1.5]
    assert cache[1].grid.tolist() == [3.0, 4.0]
    array, _ = cache.get_many([1])
    assert array.dtype == value
    assert array["grid"].tolist() == [[3.0, 4.0]]


def test_integer_range_in_subarrays() -> None:
    cache = SlabCache(1, "u4", ("u1", (2,)))
    for value in ([1, 256], [-1, 0], np.array([0, 300])):
        with pytest.raises(OverflowError):
            cache[1] = value
    assert len(cache) == 0


# -- structured values --------------------------------------------------------------------------

STATE = np.dtype([("last", "u8"), ("count", "u4"), ("pin", "i2")])


def test_ways_to_give_a_record() -> None:
    cache = SlabCache(8, "u4", STATE)
    void = np.array((1, 2, 3), STATE)[()]
    cache[0] = (1, 2, 3)
    assert isinstance(cache[0], Record)
    reordered = np.array((3, 1, 2), [("pin", "i8"), ("last", "i8"), ("count", ">u2")])[()]
    for value in (
        {"pin": 3, "last": 1, "count": 2},
        cache[0],
        void,
        reordered,
        (np.int8(1), Index(2), np.uint64(3)),
    ):
        cache[1] = value
        assert cache[1] == (1, 2, 3)
    other = SlabCache(1, "u4", [("pin", "u1"), ("count", "i8"), ("last", "u4")])
    other[1] = (3, 2, 1)
    cache[2] = other[1]  # by name, not by position
    assert cache[2] == (1, 2, 3)


def test_structured_keys() -> None:
    key = np.dtype([("a", "u1"), ("b", "S3"), ("c", "V2"), ("d", ">i8")])
    cache = SlabCache(4, key, "u1")
    cache[1, b"ab", b"x\0", -5] = 1
    assert list(cache) == [(1, b"ab", b"x\0", -5)]
    assert cache[np.int64(1), bytearray(b"ab"), memoryview(b"x\0"), Index(-5)] == 1
    assert cache[np.array((1, b"ab", b"x\0", -5), key)[()]] == 1
    assert (1, b"ab", b"x\0", -4) not in cache
    assert type(next(iter(cache))[0]) is int
    one = SlabCache(2, [("only", "i4")], "u1")
    one[(-1,)] = 7
    assert list(one) == [(-1,)]


def test_scalar_keys() -> None:
    cache = SlabCache(4, "i8", "u1")
    cache[-(2**63)] = 1
    assert list(cache) == [-(2**63)]
    for key in (np.int64(-(2**63)), Index(-(2**63))):
        assert cache[key] == 1
    texts = SlabCache(4, "S3", "u1")
    texts[b""] = 0
    texts[bytearray(b"ab")] = 1
    assert list(texts) == [b"", b"ab"]
    assert [texts[b""], texts[memoryview(b"ab")], texts[np.bytes_(b"ab")]] == [0, 1, 1]
    texts[b"\0a"] = 2
    assert texts[b"\0a"] == 2
    voids = SlabCache(4, "V3", "u1")
    voids[b"a\0\0"] = 1
    assert list(voids) == [b"a\0\0"]
    assert voids[b"a\0\0"] == voids[np.void(b"a\0\0")] == 1


def test_bytes_keys_that_differ_by_trailing_nul_only_in_arrays() -> None:
    """An S array has lost its trailing NULs already; they are padding there, and no error."""
    cache = SlabCache(4, "S4", "u1")
    cache.put_many(np.array([b"a\0", b"b"], "S4"), [1, 2])
    assert list(cache) == [b"a", b"b"]


@pytest.mark.parametrize("name", sorted(KEY_DTYPES))
def test_key_dtype_is_kept_as_given(name: str) -> None:
    given = np.dtype(KEY_DTYPES[name])
    cache = SlabCache(3, KEY_DTYPES[name], "u1")
    assert cache.key_dtype == given
    assert cache.key_dtype.itemsize == given.itemsize
    assert cache.snapshot()[0].dtype == given


@pytest.mark.parametrize("name", sorted(VALUE_DTYPES))
def test_value_dtype_is_kept_as_given(name: str) -> None:
    given = np.dtype(VALUE_DTYPES[name])
    cache = SlabCache(3, "u4", VALUE_DTYPES[name])
    assert cache.value_dtype == given
    assert cache.value_dtype.itemsize == given.itemsize


def test_field_titles() -> None:
    """Titles are no names: a field with one is still one field."""
    cache = SlabCache(2, "u4", [(("a title", "n"), "u2"), ("m", "i4")])
    cache[1] = (5, -6)
    assert cache[1]._fields == ("n", "m")
    assert cache[1] == (5, -6)
    assert cache.increment(1, "n") == 6


# -- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["u1", "S3", "S255", "V254", [("a", "u8"), ("b", "S247")]])
@pytest.mark.parametrize("value", ["u1", "V3", "S65535", [("a", "u1"), ("b", "V65534")]])
def test_odd_and_extreme_sizes(key: Any, value: Any) -> None:
    cache = SlabCache(5, key, value)
    keys = np.zeros(8, key)
    numbers = keys["a"] if keys.dtype.names else keys
    numbers[...] = (
        np.arange(1, 9)
        .astype("S1" if numbers.dtype.kind == "S" else "u1")
        .view("V1" if numbers.dtype.kind == "V" else f"{'S' if numbers.dtype.kind == 'S' else 'u'}1")
    )
    values = np.frombuffer(np.random.default_rng(1).bytes(8 * np.dtype(value).itemsize), value, count=8)
    assert cache.put_many(keys, values) == 3
    cache._check()
    got, found = cache.get_many(keys)
    assert found.tolist() == [False] * 3 + [True] * 5
    assert [canon(row) for row in got[3:]] == [canon(row) for row in values[3:]]
    assert canon_items(cache.items()) == [
        (canon(a), canon(b)) for a, b in zip(keys[3:], values[3:], strict=True)
    ]


def test_bytes_per_entry() -> None:
    """Capacity and the arena's size: the padding of an aligned dtype costs nothing."""
    packed = SlabCache(10_000, "u8", [("a", "u1"), ("b", "u8")])
    padded = SlabCache(10_000, "u8", np.dtype([("a", "u1"), ("b", "u8")], align=True))
    assert packed.nbytes == padded.nbytes
    assert packed.bytes_per_entry == packed.nbytes / 10_000
    assert 8 + 9 + 8 < packed.bytes_per_entry < 8 + 12 + 8 + 16  # data, links, and the table
    larger = SlabCache(20_000, "u8", [("a", "u1"), ("b", "u8")])
    assert packed.nbytes < larger.nbytes < 2.5 * packed.nbytes
    before = packed.nbytes
    packed.put_many(np.arange(10_000), np.zeros(10_000, packed.value_dtype))
    assert packed.nbytes == before


# -- what construction refuses ------------------------------------------------------------------

BAD_KEYS: list[tuple[str, Any]] = [
    ("float", "f8"),
    ("half", "f2"),
    ("bool", "?"),
    ("datetime", "M8[s]"),
    ("timedelta", "m8[s]"),
    ("none", None),
    ("object", object),
    ("unicode", "U3"),
    ("complex", "c16"),
    ("zero-size bytes", "S0"),
    ("zero-size void", "V0"),
    ("no fields", []),
    ("subarray", ("u4", (2,))),
    ("256 bytes", "S256"),
    ("256 bytes in fields", [("a", "u8"), ("b", "S248")]),
]
BAD_VALUES: list[tuple[str, Any]] = [
    ("object", object),
    ("str", str),
    ("unicode", "U3"),
    ("complex", "c8"),
    ("zero-size bytes", "S0"),
    ("zero-size void", "V0"),
    ("no fields", []),
    ("zero-size subarray", ("u4", (0,))),
    ("65536 bytes", "V65536"),
    ("65536 bytes in fields", [("a", "u8"), ("b", "S65528")]),
    ("subarray of objects", ("O", (2,))),
]
if np.dtype("longdouble").itemsize > 8:
    BAD_KEYS.append(("long double", "longdouble"))
    BAD_VALUES.append(("long double", "longdouble"))


@pytest.mark.parametrize("key", [case[1] for case in BAD_KEYS], ids=[case[0] for case in BAD_KEYS])
def test_key_dtype_refused(key: Any) -> None:
    with pytest.raises(TypeError):
        SlabCache(4, key, "u4")


@pytest.mark.parametrize("value", [case[1] for case in BAD_VALUES], ids=[case[0] for case in BAD_VALUES])
def test_value_dtype_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        SlabCache(4, "u4", value)


BAD_KEY_FIELDS = [object, "U3", "f4", "?", "M8[s]", "m8[s]", "c8", [("x", "u4")], "S0", "V0"]
BAD_VALUE_FIELDS = [object, "U3", "c16", [("x", "u4"), ("y", "u4")], "S0", ("O", (2,))]


@pytest.mark.parametrize("bad", BAD_KEY_FIELDS, ids=str)
def test_key_field_refused_by_name(bad: Any) -> None:
    with pytest.raises(TypeError, match="culprit"):
        SlabCache(4, [("fine", "u4"), ("culprit", bad)], "u4")


@pytest.mark.parametrize("bad", BAD_VALUE_FIELDS, ids=str)
def test_value_field_refused_by_name(bad: Any) -> None:
    spec = ("culprit", *bad) if isinstance(bad, tuple) else ("culprit", bad)
    with pytest.raises(TypeError, match="culprit"):
        SlabCache(4, "u4", [("fine", "u4"), spec])


def test_duplicate_and_overlapping_fields() -> None:
    for last in ([("twice", "u2")], [("other", "u1"), ("twice", "u4")]):
        spec = [("twice", "u4"), *last]
        with pytest.raises(TypeError, match="twice"):
            SlabCache(4, spec, "u4")
        with pytest.raises(TypeError, match="twice"):
            SlabCache(4, "u4", spec)
    union = {"names": ["whole", "half"], "formats": ["u8", "u4"], "offsets": [0, 4]}
    with pytest.raises(TypeError, match="half|whole"):
        SlabCache(4, union, "u4")
    with pytest.raises(TypeError, match="half|whole"):
        SlabCache(4, "u4", union)


def test_the_message_says_what_to_use_instead() -> None:
    for key, hint in (("U8", "S"), ("f8", r"int|u8|i8|S|V"), (object, r"int|u8|i8|S|V")):
        with pytest.raises(TypeError, match=hint):
            SlabCache(4, [("name", key)], "u4")


def test_what_numpy_itself_refuses() -> None:
    for spec in ("nonsense", 5.5, [("a",)]):
        with pytest.raises((TypeError, ValueError)):
            SlabCache(4, spec, "u4")


@pytest.mark.parametrize("capacity", [0, -1, -(2**70), 2**32 - 1, 2**32, 2**64, 2**100])
def test_capacity_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=r"capacity|\d"):
        SlabCache(capacity, "u4", "u4")
    cache = SlabCache(2, "u4", "u4")
    cache[1] = 1
    with pytest.raises(ValueError, match=r"capacity|\d"):
        cache.resize(capacity)
    assert (dict(cache.items()), cache.capacity) == ({1: 1}, 2)


@pytest.mark.parametrize("capacity", [1.0, "4", None, b"4", [4]])
def test_capacity_of_a_wrong_type(capacity: Any) -> None:
    with pytest.raises(TypeError):
        SlabCache(capacity, "u4", "u4")
    cache = SlabCache(2, "u4", "u4")
    with pytest.raises(TypeError):
        cache.resize(capacity)
    assert cache.capacity == 2


def test_capacity_is_anything_with_index() -> None:
    assert SlabCache(np.int16(3), "u4", "u4").capacity == 3
    assert SlabCache(Index(3), "u4", "u4").capacity == 3


def test_memory_that_cannot_be_had_is_refused_at_construction() -> None:
    with pytest.raises(MemoryError):
        SlabCache(2**32 - 2, "V255", "V65535")
    cache = SlabCache(3, "S255", "S65535")
    cache[b"a"] = b"b"
    with pytest.raises(MemoryError):
        cache.resize(2**32 - 2)
    assert cache.capacity == 3
    assert cache[b"a"] == b"b"
    cache._check()


def test_on_evict_must_be_callable() -> None:
    with pytest.raises(TypeError):
        SlabCache(4, "u4", "u4", on_evict=5)
    with pytest.raises(TypeError):
        SlabCache(4, "u4", "u4", print)  # keyword only
    assert SlabCache(4, "u4", "u4").on_evict is None
    assert SlabCache(4, "u4", "u4", on_evict=print).on_evict is print


def test_arguments_by_keyword() -> None:
    cache = SlabCache(capacity=4, key="u4", value="u4")
    assert (cache.capacity, len(cache)) == (4, 0)
    for arguments in ({}, {"capacity": 4}, {"capacity": 4, "key": "u4"}):
        with pytest.raises(TypeError):
            SlabCache(**arguments)
