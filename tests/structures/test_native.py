"""Tag matching, multiplication, hash and field arithmetic against plain Python."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from slabcache._structures import add, hash_of, match_tags, multiply

words = st.integers(0, 2**64 - 1)
FORMATS = {("i", 1): "b", ("i", 2): "h", ("i", 4): "i", ("i", 8): "q"}
FORMATS |= {("u", size): code.upper() for (_, size), code in FORMATS.items()}


@given(st.binary(min_size=16, max_size=16), st.integers(0, 255))
@example(bytes(range(16)), 0)
@example(b"\x00\x01" * 8, 0)
@example(b"\x80\x00\x7f\xff" * 4, 0x80)
def test_match_tags(tags: bytes, tag: int) -> None:
    assert match_tags(tags, tag) == sum(1 << i for i in range(12) if tags[i] == tag)


@given(st.integers(0, 2**12 - 1), st.integers(0, 255))
def test_match_tags_finds_every_pattern(pattern: int, tag: int) -> None:
    tags = bytes(tag if pattern >> i & 1 else (tag + 1) % 256 for i in range(12)) + bytes([tag] * 4)
    assert match_tags(tags, tag) == pattern


@given(words, words)
def test_multiply(a: int, b: int) -> None:
    assert multiply(a, b) == a * b


def reference_hash(secrets: tuple[int, ...], key: bytes) -> int:
    def fold(a: int, b: int) -> int:
        return (a * b >> 64) ^ (a * b % 2**64)

    state = 0
    if len(key) == 8:
        state = fold(int.from_bytes(key, "little") ^ secrets[0], secrets[1])
    else:
        for start in range(0, len(key), 16):
            chunk = key[start : start + 16].ljust(16, b"\0")
            first, second = struct.unpack("<QQ", chunk)
            state = fold(first ^ secrets[0] ^ state, second ^ secrets[1])
    return fold(state ^ secrets[2], secrets[3])


@given(st.tuples(words, words, words, words), st.binary(min_size=1, max_size=255))
def test_hash(secrets: tuple[int, ...], key: bytes) -> None:
    assert hash_of(secrets, key) == reference_hash(secrets, key)


@given(st.data())
def test_add_to_integers(data: st.DataObject) -> None:
    kind, size = data.draw(st.sampled_from(sorted(FORMATS)))
    low = -(2 ** (8 * size - 1)) if kind == "i" else 0
    high = low + 2 ** (8 * size) - 1
    near = st.one_of(st.integers(low, high), st.sampled_from([low, low + 1, 0, high - 1, high]))
    number = data.draw(near)
    by = data.draw(
        st.one_of(
            near.map(lambda target: target - number),
            st.integers(1 - 2**64, 2**64 - 1),
            st.just(min(high - number + 1, 2**64 - 1)),
        )
    )
    code = "<" + FORMATS[kind, size]
    result = add(kind, struct.pack(code, number), magnitude=abs(by), negative=by < 0)
    if low <= number + by <= high:
        assert result is not None
        assert struct.unpack(code, result) == (number + by,)
    else:
        assert result is None


@given(st.floats(), st.floats())
def test_add_to_doubles(number: float, by: float) -> None:
    result = add("f", struct.pack("<d", number), real=by)
    expected = number + by
    if np.isfinite(number) and np.isfinite(by) and not np.isfinite(expected):
        assert result is None
    else:
        assert result is not None
        np.testing.assert_equal(struct.unpack("<d", result)[0], expected)


@given(st.floats(width=32), st.floats())
def test_add_to_singles(number: float, by: float) -> None:
    result = add("f", struct.pack("<f", number), real=by)
    with np.errstate(over="ignore"):
        expected = np.float32(number + by)
    if np.isfinite(number) and np.isfinite(by) and not np.isfinite(expected):
        assert result is None
    else:
        assert result is not None
        np.testing.assert_equal(np.float32(struct.unpack("<f", result)[0]), expected)


@given(st.floats(width=16), st.floats())
def test_add_to_halves(number: float, by: float) -> None:
    result = add("f", np.float16(number).tobytes(), real=by)
    with np.errstate(over="ignore"):
        expected = np.float16(number + by)
    if np.isfinite(number) and np.isfinite(by) and not np.isfinite(expected):
        assert result is None
    else:
        assert result is not None
        np.testing.assert_equal(np.frombuffer(result, np.float16)[0], expected)


def test_every_half() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    for half in halves[np.isfinite(halves)]:
        assert add("f", half.tobytes(), real=0.0) == np.float16(half + np.float16(0)).tobytes()
        between = float(half) * (1 + 2**-11)  # half-way to the next one: ties go to even
        if 0 < abs(between) < 65520:
            assert add("f", b"\0\0", real=between) == np.float16(between).tobytes()
