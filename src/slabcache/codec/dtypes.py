"""From a dtype to the fields of a packed record: what keys and values may be made of.

Inside the arena a record is packed and in native byte order, whatever padding or byte order the user's
dtype has: equal keys are then equal bytes. `describe` does the translation and refuses what a
fixed-size record without Python objects cannot hold. The codecs that read and write the packed bytes
are in `record.pyx`; the functions at the end of this file serve it where Python or numpy do the work.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.ma import MaskedArray  # here, not lazily: an import in a forked child can wait for ever

__all__ = ["KEY_SIZE_MAX", "VALUE_SIZE_MAX", "Description", "Field", "Role", "describe"]

KEY_SIZE_MAX = 255  # bytes
VALUE_SIZE_MAX = 65_535  # bytes

Role = Literal["key", "value"]

# What to use instead of a kind that is refused, by np.dtype.kind; the other kinds are fine.
_INSTEAD_IN_VALUES = {
    "O": "objects have no fixed size: use S<n> or V<n> for encoded bytes, or numeric fields",
    "U": "text has no fixed size in bytes: use S<n> and encode to UTF-8",
    "T": "text has no fixed size in bytes: use S<n> and encode to UTF-8",
    "c": "use two float fields, one for the real and one for the imaginary part",
}
_INSTEAD_IN_KEYS = _INSTEAD_IN_VALUES | {
    "f": "floats have no exact equality: use an integer, scaled or of the same bits",
    "b": "use u1",
    "M": "use i8 and the time stamp as an integer",
    "m": "use i8 and the duration as an integer",
}
_INSTEAD: dict[Role, dict[str, str]] = {"key": _INSTEAD_IN_KEYS, "value": _INSTEAD_IN_VALUES}

# numpy hands out what is masked, so arrays with a mask are refused wherever they come.
MASKED = "masked arrays are refused; take compressed() or filled() first"

# numpy's own scalar types: a user-defined dtype may call itself of any kind.
_BUILTIN = dict.fromkeys(np.sctypeDict.values())


class Field(NamedTuple):
    """One field of a packed record."""

    name: str  # "" for a scalar dtype
    dtype: np.dtype[Any]  # native byte order; a subarray dtype for a subarray field
    offset: int  # bytes from the start of the packed record
    kind: str  # np.dtype.kind, or "n" for what only numpy encodes
    own_offset: int  # bytes from the start of a record of the user's dtype
    reversed: int  # bytes of its numbers, if the user's dtype has them in the other byte order; or 0


class Description(NamedTuple):
    """A dtype as the user gave it, and the packed record that stands for it."""

    dtype: np.dtype[Any]
    packed: np.dtype[Any]
    names: tuple[str, ...] | None  # None for a scalar dtype
    fields: tuple[Field, ...]


def describe(spec: npt.DTypeLike, role: Role) -> Description:
    """Translate what `numpy.dtype()` accepts; O(fields).

    Raises
    ------
    TypeError
        Naming the field, and what to use instead.

    >>> describe([("user", ">u8"), ("channel", "u4")], "key").packed.itemsize
    12
    >>> describe("U8", "key")
    Traceback (most recent call last):
    ...
    TypeError: key: <U8 is not supported; text has no fixed size in bytes: use S<n> and encode to UTF-8
    """
    dtype = _parse(spec, role)
    names = dtype.names
    if names is None:
        members = [("", dtype, 0)]
    else:
        members = [(name, dtype[name], _offset(dtype, name)) for name in names]
        _refuse_overlap(members, role)
    fields = []
    offset = 0
    for name, member, own_offset in members:
        native = _native(member)
        label = f"{role} field {name!r}" if name else role
        unit = 0 if native == member else native.base.itemsize
        fields.append(Field(name, native, offset, _kind(native, member, role, label), own_offset, unit))
        offset += native.itemsize
    limit = KEY_SIZE_MAX if role == "key" else VALUE_SIZE_MAX
    if offset == 0:
        raise TypeError(f"{role}: {dtype} has no bytes; give it at least one field")
    if offset > limit:
        raise TypeError(
            f"{role}: {offset} bytes packed are more than the {limit} that a {role} can have; "
            "store a digest or a reference instead"
        )
    if names is not None:
        packed = np.dtype([(field.name, field.dtype) for field in fields])
    elif fields[0].dtype.subdtype is not None:
        # An array cannot have a subarray dtype; a record of one field can.
        packed = np.dtype([("value", fields[0].dtype)])
    else:
        packed = fields[0].dtype
    # The user's own object where it is the same: numpy then compares dtypes by identity.
    return Description(dtype, dtype if dtype == packed else packed, names, tuple(fields))


def _parse(spec: npt.DTypeLike, role: Role) -> np.dtype[Any]:
    if spec is None:
        raise TypeError(f"{role}: None is no dtype; name one, for example 'u8'")
    try:
        return np.dtype(spec)
    except (TypeError, ValueError, SyntaxError, KeyError) as error:
        raise TypeError(f"{role}: {spec!r} is not a usable dtype: {error}") from None


def _offset(dtype: np.dtype[Any], name: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def _refuse_overlap(members: list[tuple[str, np.dtype[Any], int]], role: Role) -> None:
    end = 0
    for name, member, offset in sorted(members, key=lambda entry: entry[2]):
        if offset < end:
            raise TypeError(f"{role} field {name!r} overlaps another in memory; give each its own bytes")
        end = offset + member.itemsize


def _native(member: np.dtype[Any]) -> np.dtype[Any]:
    # Dtypes that cannot be swapped are refused later, by kind.
    return member.newbyteorder("=") if member.kind not in "TO" else member


def _kind(native: np.dtype[Any], member: np.dtype[Any], role: Role, label: str) -> str:
    """The codec's kind of a field, or TypeError."""
    # `in` and [] take no lock. `get`, and a set, take one on a free-threaded build, and a child of fork() may
    # find it held by a thread that it does not have.
    base = native.base
    instead = None
    if base.kind in _INSTEAD[role]:
        instead = _INSTEAD[role][base.kind]
    if role == "key" and native.subdtype is not None and base.kind not in _INSTEAD_IN_VALUES:
        instead = "use a field for each element, or V<n>"
    if base.names is not None:
        instead = "records cannot be nested: give each inner field a place of its own"
    elif base.kind == "f" and base.itemsize > 8:
        instead = instead or "use f8"
    elif base.kind in "Mm" and np.datetime_data(base)[0] == "generic":
        instead = instead or f"name its unit: {base.kind}8[s]"
    elif native.itemsize == 0:
        instead = instead or "give it a size of at least one byte"
    elif base.kind not in "iufbSVMm" or base.type not in _BUILTIN:
        instead = instead or "use integers, floats, bool, S<n>, V<n> or datetime64"
    if instead is not None:
        raise TypeError(f"{label}: {member} is not supported; {instead}")
    return "n" if native.subdtype is not None or base.kind in "Mm" else base.kind


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
