"""Hypothesis strategies: dtypes, keys, values, and the many layouts one list of rows can have.

Keys and values come out normalised, as `model.ModelCache` wants them. `Layout` turns a list of them
into something a batch call takes, and can tell afterwards whether the call has modified it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.model import integer_limits, to_array

PADDED_KEY = {
    "names": ["a", "b"],
    "formats": ["u1", "i8"],
    "offsets": [3, 8],
    "itemsize": 24,
}
REORDERED = {"names": ["x", "y"], "formats": ["u4", ">u2"], "offsets": [4, 0], "itemsize": 10}

KEY_DTYPES: dict[str, Any] = {
    **{code: code for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")},
    "big-endian u4": ">u4",
    "big-endian i8": ">i8",
    "S1": "S1",
    "S7": "S7",
    "V3": "V3",
    "V16": "V16",
    "pair of u8": [("user", "u8"), ("channel", "u8")],
    "pair of big-endian i4": [("user", ">i4"), ("channel", ">i4")],
    "three u2": [("a", "u2"), ("b", "u2"), ("c", "u2")],
    "one field": [("only", "i4")],
    "mixed": [("a", "i2"), ("b", "S3"), ("c", "V2"), ("d", ">u8")],
    "aligned": np.dtype([("a", "u1"), ("b", "u8"), ("c", "i2")], align=True),
    "padded": PADDED_KEY,
    "fields out of order": REORDERED,
    "255 bytes": [("a", "u8"), ("b", "S247")],
}

VALUE_DTYPES: dict[str, Any] = {
    **{code: code for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")},
    **{code: code for code in ("f2", "f4", "f8", ">f8", ">i2", "?", "S1", "S5", "V1", "V5")},
    "datetime": "M8[ms]",
    "timedelta": "m8[25s]",
    "big-endian datetime": ">M8[D]",
    "subarray": ("i4", (2, 3)),
    "read state": [("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u8")],
    "every kind": [
        ("number", "i4"),
        ("small", "u1"),
        ("real", "f4"),
        ("flag", "?"),
        ("text", "S4"),
        ("raw", "V3"),
        ("when", "M8[us]"),
        ("delay", "m8[ns]"),
        ("grid", "u2", (2, 2)),
        ("wide", ">f8"),
    ],
    "aligned": np.dtype([("a", "u1"), ("b", "f8"), ("c", "i2")], align=True),
    "fields out of order": REORDERED,
    "one field": [("only", "u2")],
}


def dtype_of(mapping: dict[str, Any]) -> st.SearchStrategy[np.dtype]:
    return st.sampled_from(sorted(mapping)).map(lambda name: np.dtype(mapping[name]))


key_dtypes = dtype_of(KEY_DTYPES)
value_dtypes = dtype_of(VALUE_DTYPES)


def integers_of(dtype: np.dtype) -> st.SearchStrategy[int]:
    """Integers of the dtype, its limits and small ones often."""
    low, high = integer_limits(dtype)
    near = [number for number in (low, low + 1, -1, 0, 1, 2, high - 1, high) if low <= number]
    return st.sampled_from(near) | st.integers(low, high)


def atoms_of(dtype: np.dtype, *, is_key: bool) -> st.SearchStrategy[Any]:
    """Values of one field, normalised."""
    size = dtype.itemsize
    match dtype.kind:
        case "i" | "u":
            return integers_of(dtype)
        case "S":
            return st.binary(max_size=size).map(lambda text: text.rstrip(b"\0"))
        case "V" if dtype.subdtype is None:
            return st.binary(min_size=size, max_size=size)
        case "f" if not is_key:
            return st.floats(width=8 * size)
        case "b" if not is_key:
            return st.booleans()
        case "m" | "M" if not is_key:
            native = dtype.newbyteorder("=")
            ticks = st.integers(-(2**63), 2**63 - 1)  # the least one is NaT
            return ticks.map(lambda tick: np.array(tick, "i8").view(native)[()])
        case "V" if not is_key:
            base, shape = dtype.subdtype
            count = int(np.prod(shape))
            flat = st.lists(atoms_of(base, is_key=False), min_size=count, max_size=count)
            return flat.map(lambda items: to_array(items, base).reshape(shape))
    raise AssertionError(f"no strategy for {dtype}")


def rows_of(dtype: np.dtype, *, is_key: bool) -> st.SearchStrategy[Any]:
    if dtype.names is None:
        return atoms_of(dtype, is_key=is_key)
    return st.tuples(*(atoms_of(dtype[name], is_key=is_key) for name in dtype.names))


def keys_of(dtype: np.dtype) -> st.SearchStrategy[Any]:
    return rows_of(dtype, is_key=True)


def values_of(dtype: np.dtype) -> st.SearchStrategy[Any]:
    return rows_of(dtype, is_key=False)


def numeric_fields(dtype: np.dtype) -> list[str | None]:
    """What `increment` may name: fields of integers or floats; None for a scalar."""
    if dtype.names is None:
        return [None] if dtype.kind in "iuf" else []
    return [name for name in dtype.names if dtype[name].kind in "iuf"]


def steps_for(dtype: np.dtype) -> st.SearchStrategy[Any]:
    """`by` for a number of this dtype: mostly small, sometimes enough to wrap."""
    if dtype.kind == "f":
        return st.integers(-4, 4) | st.integers(-8, 8).map(lambda halves: halves / 2)
    low, high = integer_limits(dtype)
    return st.integers(-3, 3) | st.integers(low - high, high - low)


class Layout:
    """One way to hand rows to a batch call, with a copy of the memory behind it."""

    def __init__(self, name: str, value: Any, base: np.ndarray | None = None) -> None:
        self.name = name
        self.value = value
        self._base = value if base is None else base
        self._copy = self._image()

    def _image(self) -> Any:
        return self._base.tobytes() if isinstance(self._base, np.ndarray) else list(self._base)

    def assert_untouched(self) -> None:
        assert self._image() == self._copy, f"the call has modified its {self.name} input"

    def __repr__(self) -> str:
        return f"Layout({self.name}: {self.value!r})"


def plain(array: np.ndarray) -> Layout:
    return Layout("plain", array)


def strided(array: np.ndarray) -> Layout:
    base = np.repeat(array, 3, axis=0)
    return Layout("strided", base[1::3], base)


def reversed_(array: np.ndarray) -> Layout:
    base = array[::-1].copy()
    return Layout("reversed", base[::-1], base)


def byte_swapped(array: np.ndarray) -> Layout:
    return Layout("byte-swapped", array.astype(array.dtype.newbyteorder("S")))


def read_only(array: np.ndarray) -> Layout:
    array = array.copy()
    array.flags.writeable = False
    return Layout("read-only", array)


def unaligned(array: np.ndarray) -> Layout:
    buffer = np.zeros(array.nbytes + 1, "u1")
    buffer[1:] = np.frombuffer(array.tobytes(), "u1")
    view = buffer[1:].view(array.dtype) if array.size else array[:0]
    return Layout("unaligned", view.reshape(array.shape), buffer)


def repacked(array: np.ndarray, offset: int) -> Layout:
    """The same fields in the same order, wide apart, with junk in the padding."""
    names = list(array.dtype.names or ())
    formats = [array.dtype[name] for name in names]
    offsets, end = [], offset
    for part in formats:
        offsets.append(end)
        end += part.itemsize + offset
    spec = {"names": names, "formats": formats, "offsets": offsets, "itemsize": end + 1}
    base = np.full(len(array) * (end + 1), 0xA5, "u1")
    wide = base.view(np.dtype(spec))
    for name in names:
        wide[name] = array[name]
    return Layout("padded", wide, base)


def records_list(array: np.ndarray, items: Sequence[Any]) -> Layout:
    return Layout("list", list(items))


def generator(array: np.ndarray, items: Sequence[Any]) -> Layout:
    return Layout("iterator", iter(list(items)), np.zeros(0))


def wide_integers(array: np.ndarray) -> Layout:
    """Integers as another integer type that holds them all."""
    negative = array.size > 0 and int(array.min()) < 0
    return Layout("other integers", array.astype("i8" if negative or not array.size else "u8"))


def field_columns(array: np.ndarray, order: str) -> Layout:
    """A structured array of equal integer fields as an (n, fields) array."""
    names = array.dtype.names or ()
    columns = np.empty((len(array), len(names)), array.dtype[0], order=order)
    for at, name in enumerate(names):
        columns[:, at] = array[name]
    return Layout(f"(n, fields) {order}", columns)


def other_integer_fields(array: np.ndarray) -> Layout:
    """Each integer field as another integer type that holds its values."""
    names = array.dtype.names or ()
    spec = []
    for name in names:
        field = array.dtype[name]
        if field.kind == "u" and field.itemsize < 8:
            spec.append((name, "i8"))
        elif field.kind == "i":
            spec.append((name, ">i8"))
        else:
            spec.append((name, field))
    wide = np.zeros(len(array), spec)
    for name in names:
        wide[name] = array[name]
    return Layout("other integer fields", wide)


@st.composite
def layouts(draw: Callable[..., Any], items: Sequence[Any], dtype: np.dtype) -> Layout:
    """Some layout of these normalised rows that the cache must take for them."""
    array = to_array(items, dtype)
    kinds: list[Callable[[], Layout]] = [
        lambda: plain(array),
        lambda: strided(array),
        lambda: reversed_(array),
        lambda: byte_swapped(array),
        lambda: read_only(array),
        lambda: unaligned(array),
        lambda: records_list(array, items),
        lambda: generator(array, items),
    ]
    names = dtype.names
    if names is None:
        if dtype.kind in "iu":
            kinds.append(lambda: wide_integers(array))
    elif dtype.isbuiltin == 0:
        kinds.append(lambda: repacked(array, draw(st.integers(0, 3))))
        kinds.append(lambda: other_integer_fields(array))
    return draw(st.sampled_from(kinds))()


@st.composite
def key_layouts(draw: Callable[..., Any], keys: Sequence[Any], dtype: np.dtype) -> Layout:
    """As `layouts`, and (n, fields) arrays where the fields are equal integers."""
    names = dtype.names
    if names and dtype[0].kind in "iu" and all(dtype[name] == dtype[0] for name in names):
        columns = draw(st.sampled_from(["", "C", "F", "wide"]))
        if columns == "wide":
            array = field_columns(to_array(keys, dtype), "C").value
            return strided(wide_integers(array).value)
        if columns:
            return field_columns(to_array(keys, dtype), columns)
    return draw(layouts(keys, dtype))
