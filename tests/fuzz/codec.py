"""Types drawn at random, and rows of them in the three forms that a run needs: the packed bytes that the
model keeps, the objects that scalar calls take, the arrays that batches take.

Packed bytes, in native order and without padding, make a row that compares, hashes, and can be printed and
read back exactly, NaN and times included.
"""

from __future__ import annotations

import collections
import datetime
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np

from slabcache import SlabCache
from support import strategies
from support.model import AbsentError, ModelCache, WrapsError, add, canon, integer_limits

Hook = Callable[[], None]

INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
LONG = datetime.timedelta(microseconds=2**63 - 1)  # numpy takes no longer ones
UNITS = ("Y", "M", "D", "h", "s", "ms", "us", "ns", "25s", "7D")


class Codec:
    """The rows of one dtype, of role "key" or "value"."""

    def __init__(self, spec: Any, role: str) -> None:
        self.spec, self.role = spec, role  # `spec` is what a report prints
        self.dtype = np.dtype(spec)
        self.names = self.dtype.names
        members = [(name, self.dtype[name]) for name in self.names or ()] or [("", self.dtype)]
        self.fields = [(name, member.newbyteorder("=")) for name, member in members]
        self.packed = np.dtype([(name or "value", member) for name, member in self.fields])
        self.size = self.packed.itemsize
        self.offsets = [self.packed.fields[name or "value"][1] for name, _ in self.fields]  # type: ignore[index]
        self.canon = lru_cache(4096)(self._canon)
        self.has_void_arrays = any(m.subdtype is not None and m.base.kind == "V" for _, m in self.fields)
        self.numbers = [at for at, (_, member) in enumerate(self.fields) if member.kind in "iuf"]

    def __repr__(self) -> str:
        return repr(self.spec)

    # ---- rows ------------------------------------------------------------------------------------------

    def draw(self, rng: Random) -> bytes:
        """A row; limits, zeros and NaN often."""
        return b"".join(_draw(rng, member) for _, member in self.fields)

    def _canon(self, row: bytes) -> Any:
        """The row as `model.canon` gives what a look-up returns."""
        items = tuple(canon(item) for item in self.values(row))
        return items if self.names else items[0]

    def values(self, row: bytes) -> list[Any]:
        """The items of a row as numpy gives them."""
        record = np.frombuffer(row, self.packed)[0]
        return [record[name or "value"] for name, _ in self.fields]

    def rows(self, array: np.ndarray) -> list[bytes]:
        """The rows of an array of the user's dtype."""
        packed = np.zeros(len(array), self.packed)
        for name, _ in self.fields:
            packed[name or "value"] = array[name] if name else array
        data = packed.tobytes()
        return [data[start : start + self.size] for start in range(0, len(data), self.size)]

    def array(self, rows: Sequence[bytes]) -> np.ndarray:
        packed = np.frombuffer(b"".join(rows), self.packed)
        array = np.zeros(len(rows), self.dtype)
        for name, _ in self.fields:
            if name:
                array[name] = packed[name]
            else:
                array[...] = packed["value"]
        return array

    # ---- numbers in a row ------------------------------------------------------------------------------

    def number(self, row: bytes, at: int) -> Any:
        return self.values(row)[at].item()

    def with_item(self, row: bytes, at: int, item: Any) -> bytes:
        member = self.fields[at][1]
        with np.errstate(over="ignore"):
            data = np.array(item, member).tobytes()
        start = self.offsets[at]
        return row[:start] + data + row[start + len(data) :]

    def part(self, row: bytes, at: int) -> bytes:
        start = self.offsets[at]
        return row[start : start + self.fields[at][1].itemsize]

    def at(self, name: str | None) -> int:
        return 0 if name is None else self.names.index(name)  # type: ignore[union-attr]

    def has_nan(self, row: bytes) -> bool:
        return any(member.base.kind in "fmM" and (item != item).any()
                   for item, (_, member) in zip(self.values(row), self.fields, strict=True))  # fmt: skip

    # ---- objects for scalar calls ----------------------------------------------------------------------

    def item(self, row: bytes, form: str = "plain", hook: Hook | None = None) -> Any:
        """What a scalar call takes for a row. `hook` is called whenever a call looks into it."""
        items = [
            as_object(item, member, form, hook)
            for item, (_, member) in zip(self.values(row), self.fields, strict=True)
        ]
        if not self.names:
            return items[0]
        if self.role == "value":
            named = dict(zip(self.names, items, strict=True))
            if form == "dict":
                return dict(reversed(named.items()))
            if form == "mapping":
                return Spy(named, hook)
            if form == "record":  # of a cache of the same type
                other = SlabCache(1, "u1", self.dtype)
                other[0] = self.item(row)
                return other[0]
        if form == "void":
            return self.array([row])[0]
        if form == "tuple subclass":
            return Items(items)
        if form == "named tuple":
            backwards = collections.namedtuple("Named", self.names[::-1], rename=False)  # type: ignore[misc]
            return backwards(*items[::-1])
        return tuple(items)


FORMS = (
    "plain",
    "plain",
    "numpy",
    "odd",
    "dict",
    "mapping",
    "void",
    "record",
    "tuple subclass",
    "named tuple",
)


class Items(tuple):
    """A tuple of another type."""

    __slots__ = ()


class Number:
    """Whatever a number is asked for, the hook runs first."""

    def __init__(self, number: Any, hook: Hook | None) -> None:
        self.number, self.hook = number, hook

    def _read(self) -> Any:
        if self.hook:
            self.hook()
        return self.number

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.number!r})"


class Integer(Number):
    def __index__(self) -> int:
        return int(self._read())


class Real(Number):
    def __float__(self) -> float:
        return float(self._read())


class Arrayed(Number):
    """An object that numpy can read."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self._read(), dtype)


class Text(bytes):
    """Bytes that run the hook when they are made plain."""

    hook: Hook | None = None

    def __bytes__(self) -> bytes:
        if self.hook:
            self.hook()
        return bytes.__getitem__(self, slice(None))


class Nested(collections.abc.Sequence):
    """A sequence that runs the hook for each item."""

    def __init__(self, items: Sequence[Any], hook: Hook | None) -> None:
        self.items, self.hook = items, hook

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: Any) -> Any:
        if self.hook:
            self.hook()
        return self.items[at]


class Spy(Mapping):
    """A mapping that runs the hook at each step."""

    def __init__(self, named: dict[str, Any], hook: Hook | None) -> None:
        self.named, self.hook = named, hook

    def __len__(self) -> int:
        return len(self.named)

    def __iter__(self) -> Iterator[str]:
        if self.hook:
            self.hook()
        return iter(self.named)

    def __getitem__(self, name: str) -> Any:
        if self.hook:
            self.hook()
        return self.named[name]


def as_object(item: Any, dtype: np.dtype, form: str, hook: Hook | None) -> Any:
    """One field as an object: of Python's own type, numpy's, or one that runs code."""
    if dtype.subdtype is not None:
        if form == "numpy":
            return np.asfortranarray(item)[..., ::1]
        if form == "odd":
            return Arrayed(item, hook)
        items = _nested(item)
        return items if hook is None else Nested(items, hook)
    if dtype.kind in "mM" and form == "odd":
        time = item.item()
        if isinstance(time, datetime.date) or (isinstance(time, datetime.timedelta) and abs(time) < LONG):
            return time
    if dtype.kind in "mM" or form == "numpy":
        return item
    plain = item.item()
    if hook is not None or form == "odd":
        if dtype.kind in "iu":
            return Integer(plain, hook)
        if dtype.kind == "f":
            return Real(plain, hook)
        if dtype.kind in "SV":
            text = Text(plain)
            text.hook = hook
            return text if hook else bytearray(plain)
    return plain


def _nested(item: Any) -> Any:
    """An array as nested lists; times stay what numpy makes of them."""
    if isinstance(item, np.ndarray):
        return [_nested(part) for part in item]
    return item if item.dtype.kind in "mM" else item.item()


# ---- drawing -------------------------------------------------------------------------------------------


def _draw(rng: Random, dtype: np.dtype) -> bytes:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return b"".join(_draw(rng, base) for _ in range(math.prod(shape)))
    size = dtype.itemsize
    if dtype.kind in "iu":
        low, high = integer_limits(dtype)
        number = rng.choice((low, low + 1, 0, 1, 2, high - 1, high, rng.randint(low, high), rng.randrange(9)))
        return number.to_bytes(size, sys.byteorder, signed=dtype.kind == "i")
    if dtype.kind == "f":
        top = float(np.finfo(dtype).max)
        chosen = rng.choice(
            (0.0, -0.0, 1.5, -2.25, math.inf, -math.inf, math.nan, top, -top, rng.gauss(0, 9))
        )
        return np.array(chosen, dtype).tobytes()
    if dtype.kind == "b":
        return bytes([rng.randrange(2)])
    if dtype.kind == "S":
        text = bytes(rng.choice(b"\0ab\xff") for _ in range(rng.randint(0, min(size, 9)))).rstrip(b"\0")
        return text.ljust(size, b"\0")
    if dtype.kind == "V":
        return rng.choice((bytes(size), rng.randbytes(size)))
    ticks = rng.choice((-(2**63), 0, 1, -1, rng.randrange(2**40), rng.randint(-(2**63), 2**63 - 1)))
    return ticks.to_bytes(8, sys.byteorder, signed=True)


def _draw_plain(rng: Random, role: str) -> Any:
    kinds = "iiiSV" if role == "key" else "iiifbSVMma"
    match rng.choice(kinds):
        case "i":
            return rng.choice("<>") + rng.choice(INTEGERS)
        case "f":
            return rng.choice("<>") + rng.choice(("f2", "f4", "f8"))
        case "b":
            return "?"
        case "S" | "V" as kind:
            sizes = (1, 2, 3, 4, 7, 8, 16, 17, 33, 60) + (300, 2000) * (role == "value")
            return f"{kind}{rng.choice(sizes)}"
        case "M" | "m" as kind:
            return f"{rng.choice('<>')}{kind}8[{rng.choice(UNITS)}]"
    base = _draw_plain(rng, role)
    if isinstance(base, tuple):
        return base
    return (base, rng.choice(((1,), (2,), (3,), (2, 2), (1, 3))))


def draw_spec(rng: Random, role: str) -> Any:
    """What `numpy.dtype()` takes: mostly one plain type, or a record of up to four, packed or not."""
    if rng.random() < 0.5:
        return _draw_plain(rng, role)
    if role == "key" and rng.random() < 0.4:  # an (n, fields) array will do
        plain = rng.choice("<>") + rng.choice(INTEGERS)
        return [(name, plain) for name in "ab"]
    formats = [_draw_plain(rng, role) for _ in range(rng.randint(1, 4))]
    names = rng.sample(["a", "b", "c", "d", "count", "keys", "index"], len(formats))
    if rng.random() < 0.6:
        return [(name, *format_) if isinstance(format_, tuple) else (name, format_)
                for name, format_ in zip(names, formats, strict=True)]  # fmt: skip
    offsets, end = [0] * len(formats), rng.randrange(3)
    for at in rng.sample(range(len(formats)), len(formats)):  # the order in memory is another
        offsets[at] = end
        end += np.dtype(formats[at]).itemsize + rng.randrange(4)
    return {"names": names, "formats": formats, "offsets": offsets, "itemsize": end}


# ---- arrays for batches --------------------------------------------------------------------------------

LAYOUTS: tuple[str, ...] = (
    "plain", "strided", "reversed_", "byte_swapped", "read_only", "unaligned", "repacked", "wide_integers",
    "other_integer_fields", "columns", "list", "iterator", "odd list", "__array__", "subclass", "broadcast",
)  # fmt: skip


class Subclass(np.ndarray):
    """An array of another type."""


def lay_out(codec: Codec, rows: Sequence[bytes], layout: str, hook: Hook | None) -> strategies.Layout:
    """Rows as something a batch takes; where a layout does not suit the type it is a plain array."""
    array = codec.array(rows)
    if layout in ("list", "iterator", "odd list"):
        form = "odd" if layout == "odd list" else "plain"
        items = [codec.item(row, form, hook) for row in rows]
        if layout == "list":
            return strategies.records_list(array, items)
        if layout == "odd list":
            return strategies.Layout("clearing list", Clearing(items, hook), np.zeros(0))
        return strategies.Layout("iterator", _steps(items, hook), np.zeros(0))
    if layout == "__array__":
        return strategies.Layout("__array__", Arrayed(array, hook), array)
    if layout == "subclass":
        return strategies.plain(array.view(Subclass))
    if layout == "broadcast" and len(set(rows)) == 1 and array.ndim == 1:
        return strategies.Layout("broadcast", np.broadcast_to(array[0], array.shape), array)
    integers = codec.names and all(member.kind in "iu" for _, member in codec.fields)
    if layout == "columns" and codec.role == "key" and integers and len({m for _, m in codec.fields}) == 1:
        native = np.zeros(len(rows), codec.packed)
        for name, _ in codec.fields:
            native[name] = array[name]
        return strategies.field_columns(native, "CF"[len(rows) % 2])
    if layout == "wide_integers" and codec.dtype.kind in "iu" and codec.dtype.itemsize < 8:
        return strategies.wide_integers(array)
    if codec.names and layout == "repacked":
        return strategies.repacked(array, len(rows) % 4)
    if codec.names and layout == "other_integer_fields":
        return strategies.other_integer_fields(array)
    if layout in ("strided", "reversed_", "byte_swapped", "read_only", "unaligned"):
        return getattr(strategies, layout)(array)
    return strategies.plain(array)


def _steps(items: Sequence[Any], hook: Hook | None) -> Iterator[Any]:
    for item in items:
        if hook:
            hook()
        yield item


class Clearing(list):
    """A list that clears itself once it is being read."""

    def __init__(self, items: list[Any], hook: Hook | None) -> None:
        super().__init__(items)
        self.hook = hook

    def __iter__(self) -> Iterator[Any]:
        items = list(super().__iter__())
        for item in items:
            self.clear()
            if self.hook:
                self.hook()
            yield item


class Keyed:
    """What `update` takes for a mapping: it has `keys` and `[]`, and no more."""

    def __init__(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        self.pairs = pairs
        self.value: Any = None

    def keys(self) -> Iterator[Any]:
        for key, value in self.pairs:
            self.value = value
            yield key

    def __getitem__(self, key: Any) -> Any:
        return self.value


# ---- the model -----------------------------------------------------------------------------------------


class RowModel(ModelCache):
    """The oracle on packed rows."""

    def __init__(self, capacity: int, keys: Codec, values: Codec) -> None:
        super().__init__(capacity, values.dtype)
        self.key_codec, self.codec = keys, values

    def state(self) -> tuple[Any, ...]:
        return tuple(self.data.items()), self.stats()

    def increment(self, key: bytes, field: str | None, by: Any) -> Any:  # type: ignore[override]
        row, at = self.peek(key), self.codec.at(field)
        new = add(self.codec.number(row, at), by, self.codec.fields[at][1])
        self.put(key, self.codec.with_item(row, at, new))
        return new

    def update_fields(self, key: bytes, **parts: bytes) -> None:  # type: ignore[override]
        row = self.peek(key)
        for name, part in parts.items():
            start = self.codec.offsets[self.codec.at(name)]
            row = row[:start] + part + row[start + len(part) :]
        self.put(key, row)

    def read_rows(self, keys: Sequence[bytes], read: str) -> tuple[list[bytes], list[bool]]:
        values, found = [], []
        for key in keys:
            try:
                values.append(getattr(self, read)(key))
                found.append(True)
            except AbsentError:
                values.append(bytes(self.codec.size))
                found.append(False)
        return values, found

    def increment_rows(
        self, keys: Sequence[bytes], field: str | None, steps: Sequence[Any]
    ) -> tuple[list[Any], list[bool]]:
        """As `increment_many`, and zero where a key is absent."""
        values: list[Any] = []
        for key, by in zip(keys, steps, strict=True):
            try:
                values.append((self.increment(key, field, by), True))
            except AbsentError:
                values.append((0, False))
            except WrapsError:
                raise WrapsError(values) from None
        return [value for value, _ in values], [found for _, found in values]
