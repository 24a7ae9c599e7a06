"""A batch equals a loop of the scalar call: results, order, evictions, counters.

Three parties do the same mixed operations: a cache by batches, a cache by scalar calls, and the
model. After each operation all three must look alike. Rows come in every layout that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabcache import SlabCache, SumOverflowError
from support.model import (
    AbsentError,
    ModelCache,
    WrapsError,
    canon,
    canon_items,
    canon_rows,
    to_array,
    zero,
)
from support.strategies import (
    KEY_DTYPES,
    VALUE_DTYPES,
    field_columns,
    integers_of,
    key_dtypes,
    key_layouts,
    keys_of,
    layouts,
    numeric_fields,
    plain,
    read_only,
    repacked,
    reversed_,
    steps_for,
    strided,
    unaligned,
    value_dtypes,
    values_of,
)

PAIR = np.dtype([("user", "u8"), ("channel", "u8")])


class Trio:
    """One cache driven by batches, one by scalar calls, and the model."""

    def __init__(self, capacity: int, key_dtype: np.dtype, value_dtype: np.dtype) -> None:
        self.batch_told: list[Any] = []
        self.batch_calls = 0
        self.loop_told: list[Any] = []
        self.value_dtype = value_dtype
        self.batch = SlabCache(capacity, key_dtype, value_dtype, on_evict=self._on_batch)
        self.loop = SlabCache(capacity, key_dtype, value_dtype, on_evict=self._on_loop)
        self.model = ModelCache(capacity, value_dtype)

    def _on_batch(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.batch_calls += 1
        self.batch_told += zip(canon_rows(keys), canon_rows(values), strict=True)

    def _on_loop(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.loop_told += zip(canon_rows(keys), canon_rows(values), strict=True)

    def assert_alike(self) -> None:
        self.batch._check()
        self.loop._check()
        expected = self.model.items()
        assert canon_items(self.batch.items()) == expected
        assert canon_items(self.loop.items()) == expected
        counts = self.model.stats()
        assert self.batch.stats()._asdict() == counts
        assert self.loop.stats()._asdict() == counts
        evicted = self.model.take_evicted()
        assert self.batch_told == evicted
        assert self.loop_told == evicted
        assert self.batch_calls == (1 if evicted else 0)  # once for the batch, if at all
        self.batch_told, self.loop_told, self.batch_calls = [], [], 0

    def put(self, keys: list, values: list, key_rows: Any, value_rows: Any, tell: bool) -> None:
        for key, value in zip(keys, values, strict=True):
            self.loop[key] = value
        count = self.model.put_many(keys, values)
        if not tell:
            assert self.batch.put_many(key_rows, value_rows) == count
            return
        gone_keys, gone_values = self.batch.put_many(key_rows, value_rows, return_evicted=True)
        assert gone_keys.dtype == self.batch.key_dtype
        assert gone_values.dtype == np.zeros(0, self.value_dtype).dtype
        pairs = list(zip(canon_rows(gone_keys), canon_rows(gone_values), strict=True))
        assert len(pairs) == count
        assert pairs == canon_items(self.model.evicted)

    def read(self, name: str, keys: list, key_rows: Any, out: np.ndarray | None) -> None:
        values, found = getattr(self.batch, f"{name}_many")(key_rows, out=out)
        if out is not None:
            assert values is out
        rows = []
        for key in keys:
            value = getattr(self.loop, name)(key, self)
            missing = value is self
            rows.append((zero(self.value_dtype) if missing else canon(value), not missing))
        assert rows == self.model.get_many(keys, name)
        assert found.dtype == bool
        assert list(zip(canon_rows(values), found.tolist(), strict=True)) == rows

    def ask(self, name: str, keys: list, key_rows: Any) -> None:
        answer = getattr(self.batch, f"{name}_many")(key_rows)
        assert answer.dtype == bool
        expected = [getattr(self.model, name)(key) for key in keys]
        assert answer.tolist() == expected
        one = {
            "contains": self.loop.__contains__,
            "touch": self.loop.touch,
            "delete": lambda key: self.loop.pop(key, self) is not self,
        }[name]
        assert [one(key) for key in keys] == expected

    def increment(self, keys: list, field: str | None, steps: list, key_rows: Any, by: Any) -> None:
        dtype = self.value_dtype if field is None else self.value_dtype[field]
        args = (field,) if field else ()
        wraps = False
        try:
            expected = self.model.increment_many(keys, field, steps)
        except WrapsError as stop:
            wraps, expected = True, stop.rows
        rows = []
        for key, step in zip(keys, steps, strict=True):
            try:
                rows.append((canon(self.loop.increment(key, field, step)), True))
            except KeyError:
                rows.append((zero(dtype), False))
            except OverflowError:
                assert wraps
                break
        assert rows == expected
        if wraps:
            with pytest.raises(SumOverflowError) as told:
                self.batch.increment_many(key_rows, *args, by=by)
            assert told.value.row == len(rows)
            return
        values, found = self.batch.increment_many(key_rows, *args, by=by)
        assert values.dtype == dtype
        assert list(zip(canon_rows(values), found.tolist(), strict=True)) == expected


OPERATIONS = ["put", "put", "get", "peek", "contains", "touch", "delete", "increment"]


@settings(max_examples=5 * settings().max_examples)
@given(data=st.data(), key_dtype=key_dtypes, value_dtype=value_dtypes)
def test_a_batch_equals_a_loop(data: Any, key_dtype: np.dtype, value_dtype: np.dtype) -> None:
    pool = data.draw(st.lists(keys_of(key_dtype), min_size=1, max_size=25), label="pool")
    capacity = data.draw(st.sampled_from([1, 2, 3, 7, 16, 40]), label="capacity")
    some_keys = st.lists(st.sampled_from(pool), max_size=60)
    trio = Trio(capacity, key_dtype, value_dtype)
    fields = numeric_fields(value_dtype)
    for name in data.draw(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=8)):
        keys = data.draw(some_keys, label="keys")
        rows = data.draw(key_layouts(keys, key_dtype), label="key rows")
        if name == "put":
            few = data.draw(st.lists(values_of(value_dtype), min_size=1, max_size=6))
            values = [few[at % len(few)] for at in range(len(keys))]
            value_rows = data.draw(layouts(values, value_dtype), label="value rows")
            trio.put(keys, values, rows.value, value_rows.value, data.draw(st.booleans()))
            value_rows.assert_untouched()
        elif name in ("get", "peek"):
            out = None
            if data.draw(st.booleans(), label="out"):
                out = np.ones(2 * len(keys), value_dtype)[::2]
            trio.read(name, keys, rows.value, out)
        elif name == "increment":
            if not fields:
                continue
            field = data.draw(st.sampled_from(fields))
            one = steps_for(value_dtype if field is None else value_dtype[field])
            steps = data.draw(st.lists(one, min_size=len(keys), max_size=len(keys)))
            trio.increment(keys, field, steps, rows.value, steps)
        else:
            trio.ask(name, keys, rows.value)
        rows.assert_untouched()
        trio.assert_alike()


@given(data=st.data(), dtype=st.sampled_from(["u1", "i2", "u8", "i8"]).map(np.dtype))
def test_increment_many_takes_steps_of_any_integer_type(data: Any, dtype: np.dtype) -> None:
    """Signed, unsigned and mixed steps: arrays when a type holds them all, else a list."""
    keys = data.draw(st.lists(st.integers(0, 9), max_size=40))
    kind = data.draw(st.sampled_from(["i1", "u1", "i8", "u8", ">i8", ">u4", "mixed"]))
    each = st.integers(-300, 300) | st.integers(-(2**64) + 1, 2**64 - 1)
    if kind != "mixed":
        each = integers_of(np.dtype(kind)) | st.integers(0, 3)
    steps = data.draw(st.lists(each, min_size=len(keys), max_size=len(keys)))
    trio = Trio(6, np.dtype("u4"), dtype)
    start = data.draw(st.lists(integers_of(dtype), min_size=6, max_size=6))
    trio.put(list(range(6)), start, list(range(6)), start, False)
    by = steps if kind == "mixed" else np.array(steps, kind)
    trio.increment(keys, None, steps, np.array(keys, "u4"), by)
    trio.assert_alike()


@pytest.mark.parametrize("value_name", sorted(VALUE_DTYPES))
@pytest.mark.parametrize("key_name", sorted(KEY_DTYPES))
def test_large_batch_of_every_type(key_name: str, value_name: str) -> None:
    """Enough rows for the kernels that work in groups and without the GIL, with repeats."""
    key_dtype, value_dtype = np.dtype(KEY_DTYPES[key_name]), np.dtype(VALUE_DTYPES[value_name])
    rng = np.random.default_rng(3)
    keys = distinct_keys(key_dtype, 200)[rng.integers(0, 200, 700)]
    noise = rng.bytes(700 * value_dtype.itemsize)
    raw = np.frombuffer(noise, "u1").reshape(700, value_dtype.itemsize).copy()
    raw &= 1  # valid as a bool, harmless as anything else
    values = np.zeros(700, value_dtype)
    values = raw.view(value_dtype.base).reshape(values.shape)
    model = ModelCache(90, value_dtype)
    cache = SlabCache(90, key_dtype, value_dtype)
    evicted = cache.put_many(keys, values)
    assert evicted == model.put_many(canon_rows(keys), values)
    cache._check()
    assert canon_items(cache.items()) == model.items()
    got, found = cache.get_many(keys)
    assert list(zip(canon_rows(got), found.tolist(), strict=True)) == model.get_many(canon_rows(keys))
    assert canon_items(cache.items()) == model.items()
    assert cache.stats()._asdict() == model.stats()


def distinct_keys(dtype: np.dtype, count: int) -> np.ndarray:
    """Up to `count` distinct keys; fewer where the dtype has fewer, then repeated."""
    if dtype.names is None:
        if dtype.kind in "iu":
            return np.arange(count).astype("u1" if dtype.itemsize == 1 else dtype).astype(dtype)
        width = dtype.itemsize
        texts = [bytes([1 + at % 120, 1 + at // 120])[:width] for at in range(count)]
        return to_array([text.ljust(width, b"x") for text in texts], dtype)
    keys = np.zeros(count, dtype)
    for name in dtype.names:
        keys[name] = distinct_keys(dtype[name], count)
    return keys


# -- layouts, one by one, where an example explains more than a property -------------------------


def pairs(count: int) -> np.ndarray:
    keys = np.zeros(count, PAIR)
    keys["user"], keys["channel"] = np.arange(count), np.arange(count, dtype="u8") * 7 + 2**63
    return keys


@pytest.fixture
def cache() -> SlabCache:
    cache = SlabCache(1000, PAIR, "i8")
    cache.put_many(pairs(500), np.arange(500))
    return cache


LAYOUTS = {
    "plain": plain,
    "strided": strided,
    "reversed": reversed_,
    "read-only": read_only,
    "unaligned": unaligned,
    "padded": lambda array: repacked(array, 3),
    "(n, fields)": lambda array: field_columns(array, "C"),
    "(n, fields) Fortran": lambda array: field_columns(array, "F"),
    "(n, fields) strided": lambda array: strided(field_columns(array, "C").value),
    "(n, fields) reversed": lambda array: reversed_(field_columns(array, "F").value),
    "(n, fields) big-endian": lambda array: plain(field_columns(array, "C").value.astype(">u8")),
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 63, 64, 65, 500])
def test_keys_in_each_layout(cache: SlabCache, layout: str, count: int) -> None:
    keys = LAYOUTS[layout](pairs(count))
    values, found = cache.get_many(keys.value)
    assert found.tolist() == [True] * count
    assert values.tolist() == list(range(count))
    keys.assert_untouched()


def test_padding_bytes_are_no_part_of_a_key() -> None:
    padded = np.dtype({"names": ["a", "b"], "formats": ["u1", "u4"], "offsets": [0, 4]})
    cache = SlabCache(4, padded, "u4")
    keys = np.full(2 * padded.itemsize, 0xFF, "u1").view(padded)
    keys["a"], keys["b"] = [1, 1], [2, 2]
    keys.view("u1")[1] = 0  # the two rows now differ in a padding byte only
    cache.put_many(keys, [10, 20])
    assert len(cache) == 1
    assert cache[1, 2] == 20


def test_broadcast_arrays_are_taken() -> None:
    cache = SlabCache(4, "u8", "i4")
    keys = np.broadcast_to(np.uint64(3), (5,))
    cache.put_many(keys, np.broadcast_to(np.int32(-1), (5,)))
    assert dict(cache.items()) == {3: -1}
    assert cache.stats()[:6] == (0, 0, 1, 4, 0, 0)


def test_fields_go_by_name() -> None:
    """numpy would cast by position, and swap two fields of one type in silence."""
    cache = SlabCache(4, [("a", "u8"), ("b", "u8")], [("x", "i4"), ("y", "i4")])
    cache[1, 2] = (3, 4)
    swapped = np.array([(2, 1)], [("b", "u4"), ("a", "u8")])
    assert cache.contains_many(swapped).tolist() == [True]
    assert swapped[0] in cache
    cache.put_many(swapped, np.array([(40, 30)], [("y", "i2"), ("x", "i8")]))
    assert dict(cache.items()) == {(1, 2): (30, 40)}
    for other in (np.zeros(1, [("c", "u8"), ("b", "u8")]), np.zeros(1, [("a", "u8")])):
        with pytest.raises(TypeError, match="fields"):
            cache.contains_many(other)
        with pytest.raises(TypeError, match="fields"):
            assert other[0] in cache


def test_empty_arrays_of_numpys_default_dtype() -> None:
    cache = SlabCache(4, [("a", "u8"), ("b", "u8")], "i4")
    assert cache.get_many(np.array([]))[0].shape == (0,)
    assert cache.put_many(np.array([]), np.array([])) == 0


@pytest.mark.parametrize("by", [iter([1, 2]), (n for n in (1, 2)), {0: 1, 1: 2}.values(), range(1, 3)])
def test_increments_from_any_iterable(by: Any) -> None:
    cache = SlabCache(4, "u8", "i4")
    cache.update({1: 10, 2: 20})
    assert cache.increment_many([1, 2], by=by)[0].tolist() == [11, 22]


@pytest.mark.parametrize("values", [{7: 70}, {70}, np.ma.masked_array([70], [True]), "7", 70])
def test_what_is_no_sequence_of_values(values: Any) -> None:
    cache = SlabCache(4, "u8", "i4")
    with pytest.raises(TypeError, match="values"):
        cache.put_many([1], values)
    assert len(cache) == 0


def test_out_for_a_single_subarray() -> None:
    cache = SlabCache(4, "u8", ("f4", (3,)))
    cache[1] = [1, 2.5, 3]
    out = np.zeros(3, "f4")
    values, found = cache.get_many(np.array(1, "u8"), out=out)
    assert values is out
    assert (out.tolist(), bool(found)) == ([1, 2.5, 3], True)
    assert cache.get_many(np.array(1, "u8"))[0].tolist() == [1, 2.5, 3]


def test_dtypes_of_the_results() -> None:
    """What comes out has exactly the dtype the user gave, padding and byte order included."""
    key = np.dtype([("a", "u1"), ("b", ">u8")], align=True)
    value = np.dtype({"names": ["x"], "formats": [">i2"], "offsets": [2], "itemsize": 8})
    cache = SlabCache(2, key, value)
    keys, values = cache.put_many([(1, 1), (2, 2), (3, 3)], [(1,), (2,), (3,)], return_evicted=True)
    assert (keys.dtype, values.dtype) == (key, value)
    assert (keys.tolist(), values.tolist()) == ([(1, 1)], [(1,)])
    assert cache.get_many([(1, 1)])[0].dtype == value
    assert cache.peek_many(keys)[0].dtype == value
    assert cache.snapshot()[0].dtype == key
    assert cache.increment_many([(3, 3), (9, 9)], "x")[0].dtype == np.dtype(">i2")
    assert (cache.key_dtype, cache.value_dtype) == (key, value)


def test_missing_rows_are_zero_also_in_out(cache: SlabCache) -> None:
    out = np.full(3, -5)
    values, found = cache.get_many([(0, 0), (1, 2**63 + 7), (5, 5)], out=out)
    assert values is out
    assert out.tolist() == [0, 1, 0]
    assert found.tolist() == [False, True, False]
    assert cache.peek_many([(0, 0)], out=out[2:])[0].tolist() == [0]


def test_out_may_be_a_strided_view(cache: SlabCache) -> None:
    base = np.full(10, -1)
    cache.get_many(pairs(5), out=base[::-2])
    assert base.tolist() == [-1, 4, -1, 3, -1, 2, -1, 1, -1, 0]


def test_out_of_a_subarray_dtype() -> None:
    cache = SlabCache(4, "u2", ("u1", (2,)))
    cache.put_many([1, 2], [[1, 2], [3, 4]])
    out = np.full((3, 2), 9, "u1")
    values, found = cache.get_many([2, 9, 1], out=out)
    assert values is out
    assert out.tolist() == [[3, 4], [0, 0], [1, 2]]
    assert found.tolist() == [True, False, True]


@pytest.mark.parametrize("empty", [[], (), iter(()), np.zeros(0, PAIR), np.zeros((0, 2), "u8")])
def test_empty_batches(cache: SlabCache, empty: Any) -> None:
    if isinstance(empty, Iterator):
        assert cache.contains_many(empty).tolist() == []
        return
    before = cache.stats()
    values, found = cache.get_many(empty)
    assert (values.shape, values.dtype, found.shape, found.dtype) == ((0,), "i8", (0,), bool)
    assert cache.put_many(empty, []) == 0
    gone_keys, gone_values = cache.put_many(empty, [], return_evicted=True)
    assert (gone_keys.shape, gone_keys.dtype, gone_values.shape) == ((0,), PAIR, (0,))
    for name in ("contains", "delete", "touch"):
        answer = getattr(cache, f"{name}_many")(empty)
        assert (answer.shape, answer.dtype) == ((0,), bool)
    assert cache.stats() == before


def test_zero_dimensional_keys(cache: SlabCache) -> None:
    """As a numpy ufunc: a scalar array in, results of shape () out."""
    key = pairs(3)[2:].reshape(())
    values, found = cache.get_many(key)
    assert (np.shape(values), np.shape(found)) == ((), ())
    assert (int(values), bool(found)) == (2, True)
    assert np.shape(cache.contains_many(key)) == ()
    assert np.shape(cache.touch_many(key)) == ()
    assert canon(list(cache)[-1]) == canon(key[()])
    values, found = SlabCache(1, "u4", "u4").get_many(np.array(5, "u4"))
    assert (np.shape(values), np.shape(found), bool(found)) == ((), (), False)
    assert bool(cache.delete_many(key))
    assert len(cache) == 499


def test_integer_keys_of_other_types_go_by_value() -> None:
    cache = SlabCache(8, "u8", "u1")
    cache.put_many(np.array([1, 2, 3], "i1"), np.array([10, 20, 255], "i8"))
    for kind in ("u1", "i2", ">i4", "u8", ">i8"):
        assert cache.get_many(np.array([3, 1], kind))[0].tolist() == [255, 10]
    signed = SlabCache(8, "i2", "i8")
    signed.put_many(np.array([40, 7], "u8"), np.array([2**63 - 1, 0], "u8"))
    assert dict(signed.items()) == {40: 2**63 - 1, 7: 0}


def test_safe_casts_of_values() -> None:
    """Everything that is not an integer goes where numpy casts it safely."""
    keys = np.arange(2)
    for values, dtype in [
        (np.array([0.5, 2], "f4"), "f8"),
        (np.array([1, 2], "i4"), "f8"),
        (np.array([True, False]), "u1"),
        (np.array([b"ab", b"c"]), "S5"),
        (np.array(["2020-01-01", "1969-01-01"], "M8[D]"), "M8[ms]"),
        (np.array([1, 2], "m8[s]"), "m8[ns]"),
    ]:
        cache = SlabCache(2, "u4", dtype)
        cache.put_many(keys, values)
        assert canon_rows(cache.get_many(keys)[0]) == canon_rows(values.astype(dtype))


def test_out_of_range_is_found_before_the_first_row(cache: SlabCache) -> None:
    before = canon_items(cache.items())
    keys = np.arange(2000).reshape(1000, 2)
    keys[999, 1] = -1
    with pytest.raises(OverflowError):
        cache.put_many(keys, np.zeros(1000, "i8"))
    assert canon_items(cache.items()) == before


def test_repeated_keys_in_one_batch() -> None:
    """On a one-entry cache a batch evicts its own rows, in order."""
    cache = SlabCache(1, "u8", "u8")
    keys, values = cache.put_many([1, 2, 2, 1], [10, 20, 21, 11], return_evicted=True)
    assert (keys.tolist(), values.tolist()) == ([1, 2], [10, 21])
    assert dict(cache.items()) == {1: 11}
    assert cache.stats()[:6] == (0, 0, 3, 1, 0, 2)
    assert cache.delete_many([1, 1, 2]).tolist() == [True, False, False]
    assert cache.put_many([5], [0]) == 0
    values, found = cache.increment_many([5, 6, 5], by=[1, 5, 2])
    assert (values.tolist(), found.tolist()) == ([1, 0, 3], [True, False, True])


def test_increment_many_stops_at_the_row_that_would_wrap() -> None:
    """The one exception to 'unchanged': the rows before it are applied, as the loop would."""
    cache = SlabCache(8, "u4", [("n", "u1"), ("rest", "u8")])
    cache.put_many([1, 2, 3], [(254, 1), (254, 2), (254, 3)])
    with pytest.raises(OverflowError):
        cache.increment_many([2, 1, 9, 2, 3], "n", by=[1, 1, 1, 1, 1])
    assert canon_items(cache.items()) == [(3, (254, 3)), (2, (255, 2)), (1, (255, 1))]
    assert cache.stats().updates == 2


def test_large_increment_many_stops_at_its_row() -> None:
    count = 50_000
    cache = SlabCache(count, "u4", "u2")
    cache.put_many(np.arange(count), np.full(count, 65_534))
    steps = np.ones(count, "i8")
    steps[40_000] = 2
    with pytest.raises(OverflowError):
        cache.increment_many(np.arange(count), by=steps)
    values, _ = cache.peek_many(np.arange(count))
    assert np.flatnonzero(values == 65_534).tolist() == list(range(40_000, count))
    assert cache.stats().updates == 40_000
    cache._check()


def test_keys_given_as_records_and_voids() -> None:
    """Rows of a structured array are keys as good as tuples, one by one and in a list."""
    cache = SlabCache(4, PAIR, "u4")
    rows = pairs(3)
    cache.put_many(list(rows), [1, 2, 3])
    assert [cache[row] for row in rows] == [1, 2, 3]
    assert cache.contains_many([rows[0], (1, 2**63 + 7), rows[2]]).tolist() == [True] * 3


def test_values_in_a_list_are_taken_as_the_scalar_call_takes_them() -> None:
    cache = SlabCache(8, "u4", [("a", "u4"), ("b", "f8")])
    cache[0] = (5, 0.5)
    void = np.array((7, 1.5), cache.value_dtype)[()]
    cache.put_many(range(1, 5), [(1, 2), {"b": 3.0, "a": 4}, cache.peek(0), void])
    assert canon_rows(cache.get_many(range(5))[0]) == canon_rows(
        to_array([(5, 0.5), (1, 2.0), (4, 3.0), (5, 0.5), (7, 1.5)], cache.value_dtype)
    )


def test_model_raises_what_stands_for_key_error() -> None:
    """The oracle itself: it would hide bugs if it forgot to refuse."""
    model = ModelCache(1)
    for call in (model.get, model.peek, model.pop):
        with pytest.raises(AbsentError):
            call(1)
    model.put(1, 2**64 - 1)
    with pytest.raises(WrapsError):
        model.increment(1, None, 1)
    assert (model.put(2, 5), model.take_evicted()) == (1, [(1, 2**64 - 1)])


def test_out_of_a_subclass_that_lies() -> None:
    class Lying(np.ndarray):
        shape = (2000,)
        dtype = np.dtype("u8")

    cache = SlabCache(4, "u8", "u8")
    with pytest.raises(TypeError, match="out"):
        cache.get_many(np.ones(2000, "u8"), out=np.zeros(1, "u1").view(Lying))


def test_keys_that_change_while_the_other_arguments_are_read() -> None:
    cache = SlabCache(2000, "u8", "u8")
    keys = np.arange(64, dtype="u8")

    class Values:
        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            keys.resize(8, refcheck=False)
            return np.zeros(64, "u8")

    class By:
        def __index__(self) -> int:
            keys.resize(8, refcheck=False)
            return 1

    with pytest.raises(ValueError, match="match"):
        cache.put_many(keys, Values())
    keys = np.arange(64, dtype="u8")
    with pytest.raises(ValueError, match="changed"):
        cache.increment_many(keys, by=By())
    assert len(cache) == 0
