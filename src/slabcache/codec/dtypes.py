"""From a dtype to the fields of a packed record: what keys and values may be made of.

Inside the arena a record is packed and in native byte order, whatever padding or byte order the user's
dtype has: equal keys are then equal bytes. `describe` does the translation and refuses what a
fixed-size record without Python objects cannot hold, text and objects among it, with a word on what to use
instead.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

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
