"""The oracle: a plain `OrderedDict` cache that every property test compares the real one with.

It is as slow and as simple as can be. It takes keys and values that are already what their dtype
holds (an int in range, bytes of the right length, a tuple in field order), so it knows nothing of
checks and conversions: those are the subject of test_errors and test_types. A batch is a loop, by
definition. The order of the dictionary is the order of recency, least recent first.

`canon` brings whatever comes out of the cache (Record, void, numpy scalar, bytes) into one
comparable form, so that NaN equals NaN, 0.0 differs from -0.0 and True differs from 1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

COUNTS = ("hits", "misses", "insertions", "updates", "deletions", "evictions")


class AbsentError(Exception):
    """The model's KeyError."""


class WrapsError(Exception):
    """The model's OverflowError; `rows` holds what a batch had done before."""

    def __init__(self, rows: Sequence[Any] = ()) -> None:
        super().__init__("would wrap")
        self.rows = list(rows)


def canon(value: Any) -> Any:
    """`value` in a form that compares by content and by kind of number."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return (value.dtype.kind, np.datetime_data(value.dtype), int(value.astype("i8")))
    if isinstance(value, np.void):
        names = value.dtype.names
        return value.tobytes() if names is None else tuple(canon(value[name]) for name in names)
    if isinstance(value, np.ndarray):
        return ("array", value.shape, tuple(canon(item) for item in value.ravel()))
    if isinstance(value, bool | np.bool_):
        return ("bool", bool(value))
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return ("float", repr(float(value)))
    if isinstance(value, bytes):
        return bytes(value)
    if value is None or isinstance(value, str):
        return value
    return tuple(canon(item) for item in value)  # a tuple, a list, or a Record


def canon_rows(array: np.ndarray) -> list[Any]:
    """Each row of an array that a batch gave back, in canonical form."""
    return [canon(row) for row in array]


def canon_items(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Pairs of key and value in canonical form, order kept."""
    return [(canon(key), canon(value)) for key, value in pairs]


def to_array(items: Sequence[Any], dtype: Any) -> np.ndarray:
    """The array of `dtype` with these normalised rows; padding bytes are zero."""
    dtype = np.dtype(dtype)
    array = np.zeros(len(items), dtype)
    names = dtype.names

    def assign(column: np.ndarray, kind: str, row: int, item: Any) -> None:
        column[row] = np.void(item) if kind == "V" and isinstance(item, bytes) else item

    for row, item in enumerate(items):
        if names is None:
            assign(array, array.dtype.kind, row, item)
        else:
            for name, part in zip(names, item, strict=True):
                assign(array[name], dtype[name].kind, row, part)
    return array


def zero(dtype: Any) -> Any:
    """What a missing row of `values` holds, in canonical form."""
    return canon_rows(np.zeros(1, dtype))[0]


def integer_limits(dtype: np.dtype) -> tuple[int, int]:
    """Least and greatest integer of an integer dtype."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


class ModelCache:
    """LRU cache on an OrderedDict, with the counters of the real one."""

    def __init__(self, capacity: int, value_dtype: Any = "u8") -> None:
        self.capacity = capacity
        self.value_dtype = np.dtype(value_dtype)
        self.data: OrderedDict[Hashable, Any] = OrderedDict()
        self.evicted: list[tuple[Hashable, Any]] = []  # all that was evicted, in order
        self.reset_stats()

    # -- what a test looks at -------------------------------------------------------------------

    def items(self) -> list[tuple[Any, Any]]:
        """Canonical pairs from least to most recent."""
        return canon_items(self.data.items())

    def stats(self) -> dict[str, int]:
        counts = {name: getattr(self, name) for name in COUNTS}
        return counts | {"size": len(self.data), "capacity": self.capacity}

    def reset_stats(self) -> None:
        self.hits = self.misses = self.insertions = 0
        self.updates = self.deletions = self.evictions = 0

    def take_evicted(self) -> list[tuple[Any, Any]]:
        """Canonical pairs evicted since the last time this was asked."""
        evicted, self.evicted = self.evicted, []
        return canon_items(evicted)

    # -- the scalar calls -----------------------------------------------------------------------

    def _shrink(self) -> int:
        count = 0
        while len(self.data) > self.capacity:
            self.evicted.append(self.data.popitem(last=False))
            self.evictions += 1
            count += 1
        return count

    def put(self, key: Hashable, value: Any) -> int:
        """`cache[key] = value`; the number of entries evicted."""
        if key in self.data:
            self.updates += 1
        else:
            self.insertions += 1
        self.data[key] = value
        self.data.move_to_end(key)
        return self._shrink()

    def get(self, key: Hashable) -> Any:
        """`cache[key]`: raises AbsentError."""
        if key not in self.data:
            self.misses += 1
            raise AbsentError
        self.hits += 1
        self.data.move_to_end(key)
        return self.data[key]

    def peek(self, key: Hashable) -> Any:
        if key not in self.data:
            raise AbsentError
        return self.data[key]

    def contains(self, key: Hashable) -> bool:
        return key in self.data

    def touch(self, key: Hashable) -> bool:
        if key in self.data:
            self.data.move_to_end(key)
        return key in self.data

    def pop(self, key: Hashable) -> Any:
        if key not in self.data:
            raise AbsentError
        self.deletions += 1
        return self.data.pop(key)

    def delete(self, key: Hashable) -> bool:
        try:
            self.pop(key)
        except AbsentError:
            return False
        return True

    def popitem(self) -> tuple[Hashable, Any]:
        if not self.data:
            raise AbsentError
        self.deletions += 1
        return self.data.popitem(last=False)

    def setdefault(self, key: Hashable, default: Any) -> Any:
        try:
            return self.get(key)
        except AbsentError:
            self.put(key, default)
            return default

    def clear(self) -> None:
        self.deletions += len(self.data)
        self.data.clear()

    def resize(self, capacity: int) -> int:
        self.capacity = capacity
        return self._shrink()

    def update_fields(self, key: Hashable, **fields: Any) -> None:
        names = self.value_dtype.names or ()
        record = dict(zip(names, self.peek(key), strict=True)) | fields
        self.put(key, tuple(record[name] for name in names))

    def increment(self, key: Hashable, field: str | None, by: Any) -> Any:
        """The new value of the number; raises AbsentError or WrapsError, nothing changed."""
        old = self.peek(key)
        names = self.value_dtype.names
        dtype = self.value_dtype if field is None else self.value_dtype[field]
        at = None if field is None or names is None else names.index(field)
        new = add(old if at is None else old[at], by, dtype)
        self.put(key, new if at is None else (*old[:at], new, *old[at + 1 :]))
        return new

    # -- batches: each a loop, by definition ----------------------------------------------------

    def get_many(self, keys: Iterable[Hashable], read: str = "get") -> list[tuple[Any, bool]]:
        """Canonical value and found for each key; `read` is "get" or "peek"."""
        rows = []
        for key in keys:
            try:
                rows.append((canon(getattr(self, read)(key)), True))
            except AbsentError:
                rows.append((zero(self.value_dtype), False))
        return rows

    def put_many(self, keys: Iterable[Hashable], values: Iterable[Any]) -> int:
        return sum(self.put(key, value) for key, value in zip(keys, values, strict=True))

    def increment_many(
        self, keys: Iterable[Hashable], field: str | None, steps: Iterable[Any]
    ) -> list[tuple[Any, bool]]:
        """Canonical new value and found for each key; WrapsError carries the rows done before."""
        dtype = self.value_dtype if field is None else self.value_dtype[field]
        rows: list[tuple[Any, bool]] = []
        for key, by in zip(keys, steps, strict=True):
            try:
                rows.append((canon(self.increment(key, field, by)), True))
            except AbsentError:
                rows.append((zero(dtype), False))
            except WrapsError:
                raise WrapsError(rows) from None
        return rows


def add(old: Any, by: Any, dtype: np.dtype) -> Any:
    """`old + by` as a field of this dtype holds it; raises WrapsError."""
    if dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            new = float(np.dtype(dtype).type(float(old) + float(by)))
        if np.isinf(new) and np.isfinite(old) and np.isfinite(by):
            raise WrapsError
        return new
    low, high = integer_limits(dtype)
    if not low <= old + by <= high:
        raise WrapsError
    return old + by
