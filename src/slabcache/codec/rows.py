"""From what a caller passes to a batch call to packed rows, and back to arrays of the caller's dtype.

Arrays of the packed dtype never come here: the core takes them as they are, at any stride. Everything
is checked, and copied where it must be, before the first row of the cache is touched; inputs are never
modified.
"""

from __future__ import annotations

import array
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.ma import MaskedArray  # here, not lazily: an import in a forked child can wait for ever

from slabcache.codec.conversions import convert, fill_column, plain_array, refuse_bool_keys, structured_rows
from slabcache.codec.record import DELTA_DTYPE, Record, Schema

Array = np.ndarray[Any, Any]

__all__ = ["as_deltas", "as_rows", "first_of_each", "from_rows", "out_array", "write_rows"]


def as_rows(schema: Schema, source: object) -> Array:
    """`source` as a one-dimensional array of `schema.packed`; a view of it where that is enough.

    A zero-dimensional array is one row. Whatever is no array is taken item by item, as the scalar call
    takes it.
    """
    if not isinstance(source, (np.ndarray, np.generic)) and not _is_array_like(source):
        return schema.encode_rows(_items(source, f"{schema.role}s", ordered=schema.role == "value"))
    if schema.names is not None and _has_names(source):
        source = source.to_records(index=False)  # type: ignore[attr-defined]
    rows = source if type(source) is np.ndarray else plain_array(source, f"{schema.role}s")
    if rows.shape == (0,) and rows.dtype == np.float64:
        return np.empty(0, schema.packed)  # what numpy makes of an empty list
    if schema.packed.names is None:
        rows = _plain_rows(schema, rows)
    elif schema.names is None:
        rows = _subarray_rows(schema, rows)
    elif rows.dtype.names is None:
        rows = _matrix_rows(schema, rows)
    elif rows.dtype != schema.packed:
        rows = structured_rows(schema, rows)
    if rows.ndim == 0:
        rows = rows.reshape(1)
    if rows.ndim != 1:
        raise ValueError(f"{schema.role}s must be a one-dimensional array, not one of shape {rows.shape}")
    return rows


def from_rows(schema: Schema, rows: Array) -> Array:
    """Packed rows as an array of the user's dtype; `rows` itself where the two are equal."""
    if schema.packed is schema.dtype:
        return rows
    return schema.unpack(rows)


def write_rows(schema: Schema, rows: Array, target: Array) -> None:
    """Fill `target`, an array of the user's dtype, with packed rows; padding bytes stay as they are."""
    if schema.names is not None:
        for name in schema.names:
            target[name] = rows[name]
    elif schema.packed.names is not None:
        target[...] = rows["value"]
    else:
        target[...] = rows


def as_deltas(schema: Schema, position: int, by: object, count: int) -> Array:
    """What `increment_many` adds to each row: one struct for all rows, or one for each."""
    field = schema.dtypes[position]
    if not isinstance(by, np.ndarray) and not _is_array_like(by):
        if isinstance(by, Iterable):
            return _matching(schema.deltas_of(position, _items(by, "by", ordered=True)), count)
        return schema.deltas_of(position, (by,))
    source = plain_array(by, "by")
    if source.ndim == 0:
        return schema.deltas_of(position, (source[()],))
    deltas = np.zeros(source.shape, DELTA_DTYPE)
    if field.kind == "f":
        deltas["real"] = convert(source, np.dtype("f8"), "by")
    elif source.dtype.kind == "i":
        deltas["negative"] = source < 0
        # Two's complement: the negated smallest integer is its own magnitude when read as unsigned.
        deltas["magnitude"] = np.abs(source.astype("i8")).view("u8")
    elif source.dtype.kind == "u":
        deltas["magnitude"] = source
    else:
        raise TypeError(
            f"by: an array of {source.dtype} is not one of integers, as {schema.label(position)} is"
        )
    return _matching(deltas, count)


def _matching(deltas: Array, count: int) -> Array:
    if deltas.shape != (count,):
        raise ValueError(f"by: shape {deltas.shape} does not match the {count} keys")
    return deltas


def _is_array_like(source: object) -> bool:
    return not isinstance(source, Record) and (
        hasattr(source, "__array__")
        or hasattr(source, "__array_interface__")
        or isinstance(source, (memoryview, array.array))
    )


def _has_names(source: object) -> bool:
    """Whether a table, as of pandas, names its columns; as an array it would go by position."""
    columns = getattr(source, "columns", None)
    return (
        columns is not None and hasattr(source, "to_records") and all(isinstance(it, str) for it in columns)
    )


def _items(source: object, role: str, *, ordered: bool) -> tuple[object, ...]:
    # Iterating over text gives characters. Over a mapping or set it gives keys, in an order of its own.
    strings = isinstance(source, (str, bytes, bytearray))
    unordered = ordered and isinstance(source, (Mapping, Set))
    if strings or unordered or not isinstance(source, Iterable):
        kind = type(source).__name__
        raise TypeError(f"{role} must be an array or a sequence, not {kind}")
    return tuple(source)


def _plain_rows(schema: Schema, source: Array) -> Array:
    """Rows of a dtype that is neither structured nor a subarray."""
    refuse_bool_keys(schema, source, schema.role)
    return convert(source, schema.packed, schema.role)


def _subarray_rows(schema: Schema, source: Array) -> Array:
    """Rows of a value that is itself a subarray: (n, *shape) becomes n records of one field."""
    base, shape = schema.dtypes[0].subdtype  # type: ignore[misc]
    outer = source.shape[: source.ndim - len(shape)]
    if source.shape != outer + shape:
        raise ValueError(
            f"{schema.role}s must have shape (n, {', '.join(map(str, shape))}), not {source.shape}"
        )
    rows = np.empty(outer, schema.packed)
    rows["value"] = convert(source, base, schema.role)
    return rows


def _matrix_rows(schema: Schema, source: Array) -> Array:
    """Rows of a structured key of equal integer fields, given as an (n, fields) array of integers."""
    field = schema.dtypes[0]
    count = len(schema.dtypes)
    if schema.role != "key" or field.kind not in "iu" or any(other != field for other in schema.dtypes):
        raise TypeError(f"{schema.role}s: an array of {source.dtype} is not one of the dtype {schema.dtype}")
    if source.ndim != 2 or source.shape[1] != count:
        raise ValueError(f"keys must have shape (n, {count}) or be of the key dtype, not {source.shape}")
    if source.dtype == field and source.strides[1] == field.itemsize:
        return source.view(schema.packed)[:, 0]
    rows = np.empty(len(source), schema.packed)
    for position, name in enumerate(schema.names or ()):
        fill_column(schema, rows[name], source[:, position], position)
    return rows


def out_array(schema: Schema, out: object, outer: tuple[int, ...]) -> Array:
    """`out` as a plain array, after checking that it can take the values of keys of shape `outer`."""
    if not isinstance(out, np.ndarray) or isinstance(out, MaskedArray):
        raise TypeError(f"out must be an array of the value dtype, not {type(out).__name__}")
    out = np.ndarray.view(out, np.ndarray)  # a subclass may say anything about itself
    base, shape = schema.dtype.subdtype or (schema.dtype, ())
    if out.dtype != base:
        raise TypeError(f"out must be an array of {base}, not of {out.dtype}")
    if out.shape != outer + shape:
        raise ValueError(f"out must have shape {outer + shape}, not {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    return out


def first_of_each(keys: Array) -> npt.NDArray[np.uint8]:
    """For each of n packed keys whether it is the first of its kind."""
    packed = np.ascontiguousarray(keys).view(f"V{keys.itemsize}").tolist()
    backwards = zip(range(len(packed) - 1, -1, -1), reversed(packed), strict=True)
    first = np.zeros(len(packed), np.uint8)
    first[list({key: row for row, key in backwards}.values())] = 1
    return first
