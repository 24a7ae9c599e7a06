"""What numpy and Python convert for the codec: arrays and items that no loop in C takes. Without any loss.

The codec itself (record.pyx) calls it for fields of times and of arrays, and for rows of numpy's.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.ma import MaskedArray  # here, not lazily: an import in a forked child can wait for ever

__all__ = [
    "MASKED",
    "RowTypes",
    "convert",
    "decode_numpy",
    "encode_numpy",
    "equal_arrays",
    "fill_column",
    "flat_items",
    "named_items",
    "plain_array",
    "refuse_bool_keys",
    "structured_rows",
]

Array = np.ndarray[Any, Any]

# numpy hands out what is masked, so arrays with a mask are refused wherever they come.
MASKED = "masked arrays are refused; take compressed() or filled() first"


class RowTypes(Protocol):
    """What a `Schema` says of its rows."""

    role: Any
    packed: np.dtype[Any]
    names: tuple[str, ...] | None

    def label(self, position: int) -> str: ...


# ---- arrays, items by name, and nested ones -------------------------------------------------------------


def plain_array(source: object, label: str) -> np.ndarray[Any, Any]:
    """`source` as an array of numpy's own class; TypeError where it has a mask."""
    array = np.asanyarray(source)
    if isinstance(array, MaskedArray):
        raise TypeError(f"{label}: {MASKED}")
    return np.asarray(array)


def named_items(item: object) -> dict[str, Any] | None:
    """The fields of a named tuple or dataclass by name, or None; O(fields)."""
    if isinstance(item, tuple):
        names = getattr(type(item), "_fields", None)
        return dict(zip(names, item, strict=True)) if isinstance(names, tuple) else None
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return None


def flat_items(items: object, shape: tuple[int, ...], label: str) -> list[object]:
    """The items of nested sequences or arrays of that shape; O(items). numpy would unmask masked ones."""
    parts = [items]
    for length in shape:
        below: list[object] = []
        for part in parts:
            row = _row_of(part, length, label)
            if row is None:
                raise ValueError(f"{label}: the items do not have the shape {shape}")
            below += row
        parts = below
    return parts


def _row_of(part: object, length: int, label: str) -> list[object] | None:
    """The items of a sequence or array of that length; None for whatever else."""
    if not isinstance(part, Sequence) and hasattr(part, "__array__"):
        part = np.atleast_1d(plain_array(part, label))
    if not isinstance(part, (Sequence, np.ndarray)) or isinstance(part, (str, bytes, bytearray)):
        return None
    row = list(islice(part, length + 1))
    return row if len(row) == length else None


# ---- what only numpy encodes: datetime64, timedelta64 and subarrays ---------------------------------

# Kinds of array that a kind of field takes, where the cast is safe: those the scalar call takes too.
_TAKEN_FROM = {"f": "fiub", "b": "b", "S": "S", "V": "VS", "M": "M", "m": "m", "i": "b", "u": "b"}

_TIME_TYPES = {"M": np.datetime64, "m": np.timedelta64}


def encode_numpy(dtype: np.dtype[Any], item: object, label: str) -> bytes:
    """The packed bytes of one field of kind "n"."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        array = plain_array(item, label)
        if array.dtype.kind in "OU":
            raise TypeError(f"{label}: {type(item).__name__} is not an array of {base}")
        if array.shape != shape:
            raise ValueError(f"{label}: shape {array.shape} is not {shape}")
        return convert(array, base, label).tobytes()
    time = _time_of(dtype.kind, item, label)
    if not isinstance(time, _TIME_TYPES[dtype.kind]):
        raise TypeError(f"{label}: {type(item).__name__} is not a {dtype}")
    return _exact_times(np.asarray(time), dtype, label).tobytes()


def _time_of(kind: str, item: Any, label: str) -> object:
    """numpy's time for an object that stands for one; any other object as it is.

    Those of pandas are objects of `datetime` as well, but have nanoseconds, which they tell by a method.
    """
    if isinstance(item, np.generic):
        return item
    if getattr(item, "tzinfo", None) is not None:
        raise ValueError(f"{label}: {item} has a time zone, datetime64 has none; convert it to naive UTC")
    if kind == "M":
        if hasattr(item, "to_datetime64"):
            return item.to_datetime64()
        return np.datetime64(item) if isinstance(item, datetime.date) else item
    if hasattr(item, "to_timedelta64"):
        return item.to_timedelta64()
    if hasattr(item, "to_datetime64") and np.isnat(item.to_datetime64()):
        return np.timedelta64("NaT", "s")  # the NaT of pandas stands for both
    return _timedelta64(item, label) if isinstance(item, datetime.timedelta) else item


def _timedelta64(item: datetime.timedelta, label: str) -> np.timedelta64:
    """Exact, in the largest unit that will do. numpy takes microseconds, which wrap in silence."""
    unit, size = "us", datetime.timedelta(microseconds=1)
    if not item.microseconds:
        unit, size = "s", datetime.timedelta(seconds=1)
    elif not item.microseconds % 1000:
        unit, size = "ms", datetime.timedelta(milliseconds=1)
    try:
        return np.timedelta64(item // size, unit)  # type: ignore[call-overload, no-any-return]
    except OverflowError:
        raise ValueError(f"{label}: {item} is out of range for a timedelta64") from None


def decode_numpy(dtype: np.dtype[Any], packed: bytes) -> Any:
    """The object that the packed bytes of one field of kind "n" stand for."""
    if dtype.subdtype is None:
        return np.frombuffer(packed, dtype)[0]
    base, shape = dtype.subdtype
    return np.frombuffer(packed, base).reshape(shape)  # read-only, as bytes are


def convert(array: np.ndarray[Any, Any], dtype: np.dtype[Any], label: str) -> np.ndarray[Any, Any]:
    """`array` in `dtype`, without any loss: integers by value, all else by a safe cast that the
    scalar call would take too.

    Raises
    ------
    OverflowError
        An integer is out of range.
    ValueError
        A time is out of the range of the field's unit.
    TypeError
        The cast is not safe.
    """
    source = array.dtype
    if source == dtype:
        return array
    if source.kind in "iu" and dtype.kind in "iu":
        if not np.can_cast(source, dtype, "safe") and array.size:
            array = array.copy()  # another thread may write to the caller's between check and cast
            limits = np.iinfo(dtype)
            for extreme in (int(array.min()), int(array.max())):
                if not int(limits.min) <= extreme <= int(limits.max):
                    raise OverflowError(
                        f"{label}: {extreme} is out of range for {dtype} ({limits.min} to {limits.max})"
                    )
        return array.astype(dtype)
    if source.kind in _TAKEN_FROM.get(dtype.kind, "") and np.can_cast(source, dtype, "safe"):
        if dtype.kind in "Mm":
            return _exact_times(array, dtype, label)
        if dtype.kind != "V":
            return array.astype(dtype)
        if source.itemsize == dtype.itemsize and source.names is None:
            return _full_bytes(array, dtype, label)
    raise TypeError(f"{label}: an array of {source} cannot be taken as {dtype} without loss")


def _full_bytes(array: np.ndarray[Any, Any], dtype: np.dtype[Any], label: str) -> np.ndarray[Any, Any]:
    """Bytes of S<n> as V<n>, after a look at their last ones: a NUL there is padding, as numpy has it."""
    rows = array.astype(dtype)  # before the look: another thread may write to the caller's
    if array.dtype.kind == "S" and not rows.view(("u1", dtype.itemsize))[..., -1].all():
        raise ValueError(
            f"{label}: bytes in the array are fewer than {dtype.itemsize}; make it one of {dtype}"
        )
    return rows


def _exact_times(array: np.ndarray[Any, Any], dtype: np.dtype[Any], label: str) -> np.ndarray[Any, Any]:
    """Times in the unit of `dtype`. numpy's own cast rounds in silence; out of range it wraps in silence up
    to version 2.4 and raises from 2.5 on."""
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{label}: {array.dtype} has no fixed length in {dtype}")  # a year in days
    try:
        times = array.astype(dtype)
        exact = np.array_equal(times.astype(array.dtype).astype("i8"), array.astype("i8"))
    except OverflowError:
        exact = False
    if not exact:
        raise ValueError(f"{label}: {array} has no exact value in {dtype}")
    return times


def equal_arrays(mine: Any, theirs: Any) -> bool:
    """Whether two items, of which one at least is an array, are equal; what cannot be compared is not."""
    try:
        return np.array_equal(mine, theirs)
    except (TypeError, ValueError):  # numpy does not compare V<n> with bytes
        pass
    try:
        return bool(np.asarray(mine, object).tolist() == np.asarray(theirs, object).tolist())
    except (TypeError, ValueError):
        return False


# ---- rows of another structured dtype -----------------------------------------------------------------


def structured_rows(schema: RowTypes, source: Array) -> Array:
    """Rows of another structured dtype, field by field. By name, as the scalar call takes a record: numpy
    would cast by position, and swap two fields in silence."""
    theirs, ours = source.dtype.names or (), schema.names or ()
    if set(theirs) != set(ours):
        raise TypeError(
            f"{schema.role}s: the fields {theirs} are not the fields {ours}; rename or select them"
        )
    rows = np.empty(source.shape, schema.packed)
    for position, name in enumerate(ours):
        fill_column(schema, rows[name], source[name], position)
    return rows


def fill_column(schema: RowTypes, target: Array, column: Array, position: int) -> None:
    label = schema.label(position)
    refuse_bool_keys(schema, column, label)
    if column.shape != target.shape:
        raise TypeError(f"{label}: elements of shape {column.shape[1:]} are not {target.shape[1:]}")
    target[...] = convert(column, target.dtype, label)


def refuse_bool_keys(schema: RowTypes, column: Array, label: str) -> None:
    if schema.role == "key" and column.dtype.kind == "b":
        raise TypeError(f"{label}: an array of bool is not one of integer keys")
