"""increment and increment_many: each width and sign at its limits, floats, steps of every kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabcache import SlabCache
from support.model import WrapsError, add, canon
from support.strategies import integers_of

NATIVE = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
INTEGERS = [*NATIVE, ">i2", ">i4", ">i8", ">u2", ">u4", ">u8"]
LARGEST_STEP = 2**64 - 1


def number(dtype: Any, start: Any) -> SlabCache:
    cache = SlabCache(2, "u4", dtype)
    cache[1] = start
    return cache


@pytest.mark.parametrize("code", INTEGERS)
@pytest.mark.parametrize("structured", [False, True])
@given(data=st.data())
def test_integers(code: str, structured: bool, data: Any) -> None:
    """As Python adds, or OverflowError and no change; the neighbours are left alone."""
    dtype = np.dtype(code)
    start = data.draw(integers_of(dtype))
    info = np.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    exact = st.sampled_from([low - start, high - start, low - start - 1, high - start + 1])
    by = data.draw(
        st.integers(-3, 3) | exact.filter(lambda step: abs(step) < 2**64)
        | st.integers(-LARGEST_STEP, LARGEST_STEP)
    )  # fmt: skip
    spec = [("before", "u1"), ("n", code), ("after", "V3")] if structured else code
    row = (0xA5, start, b"\xff\x00\xff") if structured else start
    field = ("n",) if structured else ()
    cache = number(spec, row)
    many = number(spec, row)
    try:
        expected = add(start, by, dtype)
    except WrapsError:
        with pytest.raises(OverflowError):
            cache.increment(1, *field, by=by)
        with pytest.raises(OverflowError):
            many.increment_many([1], *field, by=[by])
        assert canon(cache[1]) == canon(many[1]) == canon(row)
        return
    got = cache.increment(1, *field, by=by)
    assert type(got) is int
    assert got == expected
    values, found = many.increment_many([1, 2], *field, by=by)
    assert (values.tolist(), found.tolist(), values.dtype) == ([expected, 0], [True, False], dtype)
    after = (0xA5, expected, b"\xff\x00\xff") if structured else expected
    assert canon(cache[1]) == canon(many[1]) == canon(after)


@pytest.mark.parametrize("code", INTEGERS)
def test_limits(code: str) -> None:
    info = np.iinfo(code)
    low, high = int(info.min), int(info.max)
    for start, by, result in [
        (high, 0, high),
        (high - 1, 1, high),
        (high, 1, None),
        (low, -1, None),
        (low + 1, -1, low),
        (low, high - low, high),
        (high, low - high, low),
        (low, high - low + 1, None),
        (high, low - high - 1, None),
        (0, LARGEST_STEP, 2**64 - 1 if high == 2**64 - 1 else None),
        (0, -LARGEST_STEP, None),
    ]:
        if abs(by) > LARGEST_STEP:
            continue
        cache = number(code, start)
        if result is None:
            with pytest.raises(OverflowError):
                cache.increment(1, by=by)
            assert cache[1] == start
        else:
            assert cache.increment(1, by=by) == result
            assert cache[1] == result


def test_defaults() -> None:
    cache = SlabCache(2, "u4", [("n", "u4"), ("x", "f8")])
    cache[1] = (5, 0.5)
    assert cache.increment(1, "n") == 6
    assert cache.increment(1, "x") == 1.5
    assert cache.increment(1, field="n", by=-2) == 4
    assert cache.increment(1, "x", -0.5) == 1.0
    assert number("u1", 3).increment(1) == 4
    values, found = cache.increment_many([1, 1, 9], "n")
    assert (values.tolist(), found.tolist()) == ([5, 6, 0], [True, True, False])


def test_steps_of_any_integer_type() -> None:
    class Index:
        def __index__(self) -> int:
            return 3

    for by in (np.int8(3), np.uint64(3), np.int64(3), Index()):
        assert number("i2", 4).increment(1, by=by) == 7
        assert number("f8", 0.5).increment(1, by=by) == 3.5
        assert number("u8", 4).increment_many([1], by=by)[0].tolist() == [7]


@pytest.mark.parametrize("code", ["f4", "f8", ">f4", ">f8"])
def test_floats(code: str) -> None:
    cache = number(code, 1.5)
    got = cache.increment(1, by=0.25)
    assert (type(got), got) == (float, 1.75)
    assert cache.increment(1, by=-2) == -0.25
    assert cache.increment(1, by=np.float32(0.5)) == 0.25
    values, found = cache.increment_many([1, 9], by=[0.5, 1.0])
    assert (values.tolist(), found.tolist(), values.dtype) == ([0.75, 0.0], [True, False], code)
    assert cache.increment_many([1, 1], by=np.array([1, 2], "i4"))[0].tolist() == [1.75, 3.75]
    assert cache.increment_many([1], by=np.array([0.25], "f4"))[0].tolist() == [4.0]


@pytest.mark.parametrize("code", ["f2", "f4", "f8"])
def test_floats_that_become_infinite(code: str) -> None:
    largest = float(np.finfo(code).max)
    for start, by in ((largest, largest), (-largest, -largest)):
        cache = number(code, start)
        with pytest.raises(OverflowError):
            cache.increment(1, by=by)
        assert cache[1] == start
        with pytest.raises(OverflowError):
            cache.increment_many([1], by=[by])
        assert (cache[1], cache.stats().updates) == (start, 0)
    assert number(code, largest).increment(1, by=-largest) == 0.0
    assert number(code, largest).increment(1, by=math.inf) == math.inf  # asked for
    assert number(code, math.inf).increment(1, by=-largest) == math.inf
    assert math.isnan(number(code, math.inf).increment(1, by=-math.inf))
    assert math.isnan(number(code, 1.0).increment(1, by=math.nan))
    assert math.isnan(number(code, math.nan).increment(1))


@given(
    start=st.floats(width=32, allow_nan=False, allow_infinity=False),
    by=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_floats_round_as_numpy_does(start: float, by: float) -> None:
    with np.errstate(over="ignore"):
        expected = float(np.float32(start) + np.float32(by))
    cache = number("f4", start)
    if math.isinf(expected):
        with pytest.raises(OverflowError):
            cache.increment(1, by=by)
    else:
        assert canon(cache.increment(1, by=by)) == canon(expected)
        assert canon(cache[1]) == canon(expected)


@pytest.mark.parametrize("kind", ["i1", "u1", "i8", "u8", ">i4", ">u8"])
def test_steps_in_arrays(kind: str) -> None:
    info = np.iinfo(kind)
    steps = np.array([int(info.max), int(info.min), 1, 0], kind)
    cache = SlabCache(4, "u4", "i8")
    cache.put_many(range(4), [0, 0, -5, 7])
    if kind.endswith("u8"):
        with pytest.raises(OverflowError):
            cache.increment_many(range(4), by=steps)
        steps[0] = 2**63 - 1
    values, found = cache.increment_many(range(4), by=steps)
    assert values.tolist() == [int(steps[0]), int(steps[1]), -4, 7]
    assert found.all()


def test_steps_in_odd_layouts() -> None:
    cache = SlabCache(4, "u4", "i8")
    cache.put_many(range(3), [0, 0, 0])
    base = np.arange(6)
    for steps in (base[::2], base[4::-2], np.broadcast_to(np.int16(7), (3,)), (1, 2, 3), range(3)):
        before = [cache.peek(key) for key in range(3)]
        values, _ = cache.increment_many(range(3), by=steps)
        assert values.tolist() == [old + int(by) for old, by in zip(before, steps, strict=True)]
    assert base.tolist() == [0, 1, 2, 3, 4, 5]
    frozen = np.ones(3, "u8")
    frozen.flags.writeable = False
    cache.increment_many(range(3), by=frozen)
    assert cache.increment_many([], by=[])[0].tolist() == []


def test_signed_unsigned_and_mixed_steps() -> None:
    cache = SlabCache(4, "u4", "u8")
    cache.put_many(range(3), [0, 2**64 - 1, 5])
    values, _ = cache.increment_many(range(3), by=[2**64 - 1, -(2**64 - 1), -5])
    assert values.tolist() == [2**64 - 1, 0, 0]
    values, _ = cache.increment_many([1, 1], by=np.array([2**64 - 1, 0], "u8"))
    assert values.tolist() == [2**64 - 1] * 2
    values, _ = cache.increment_many([0, 1], by=np.array([-1, -(2**63)], "i8"))
    assert values.tolist() == [2**64 - 2, 2**63 - 1]


def test_only_the_named_field_changes() -> None:
    dtype = np.dtype([("a", "u1"), ("b", "u1"), ("c", "u1"), ("d", ">u2"), ("e", "f4")])
    cache = SlabCache(3, "u4", dtype)
    cache[1] = (255, 254, 255, 0xFF, 0.5)
    cache[2] = (1, 2, 3, 4, 5)
    assert cache.increment(1, "b") == 255
    assert cache.increment(1, "d") == 0x100
    assert cache[1] == (255, 255, 255, 0x100, 0.5)
    assert cache.peek(2) == (1, 2, 3, 4, 5)
