"""From rows of numpy to the columns of a database table, and back.

A store keeps one column for each field of its key and value dtypes. `columns_of` lists them; each `Column`
turns one field of an array of rows into a list of the plain Python objects that a database driver binds,
and such a list back into a field. Nothing is done row by row in Python.

What a driver sees:

    field                       driver            note
    u1 u2 u4, i1 i2 i4 i8       int
    u8                          int, signed       two's complement: 2**63 and above are negative numbers
    f2 f4 f8                    float             exact
    bool                        bool
    S<n>                        bytes             without trailing NUL bytes, as numpy gives them
    V<n>                        bytes             always n of them
    datetime64, timedelta64     int               the count of units; NaT is the least integer
    subarray                    bytes             its elements in C order, little-endian on every machine
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from slabcache.codec.dtypes import Description, Field, Role, describe

__all__ = ["Column", "ColumnKind", "as_bytes", "as_text", "check_rows", "columns_of", "quote"]

Array = np.ndarray[Any, Any]

ColumnKind = Literal["integer", "unsigned64", "float", "bool", "text", "raw", "time", "array"]

# By np.dtype.kind; u8 and subarrays are told apart by more than that.
_KINDS: dict[str, ColumnKind] = {
    "i": "integer",
    "u": "integer",
    "f": "float",
    "b": "bool",
    "S": "text",
    "V": "raw",
    "M": "time",
    "m": "time",
}

# What a driver may give back. numpy would take more: text that looks like a number, or half of 1.5.
_TAKEN: dict[ColumnKind, set[type]] = {
    "integer": {int},
    "unsigned64": {int},
    "float": {float, int},
    "bool": {bool, int},
    "text": {bytes, str},
    "raw": {bytes},
    "time": {int},
    "array": {bytes},
}


class Column(NamedTuple):
    """One field of a key or value dtype, as a column of a table.

    >>> _, (seen, name) = columns_of("u4", [("seen", "u8"), ("name", "S4")])
    >>> rows = np.array([(1, b"ann"), (2**64 - 1, b"")], [("seen", "u8"), ("name", "S4")])
    >>> seen.to_driver(rows), name.to_driver(rows)
    ([1, -1], [b'ann', b''])
    """

    name: str
    dtype: np.dtype[Any]  # of the field, in native byte order; a subarray dtype for a subarray field
    kind: ColumnKind

    def field_of(self, rows: Array) -> Array:
        """This field of each row, as numpy has it: a view of `rows`, of the user's dtype or the packed one.

        >>> key, _ = columns_of([("user", "u8"), ("channel", "u4")], "u4")
        >>> key[1].field_of(np.zeros(2, [("user", "u8"), ("channel", "u4")]))
        array([0, 0], dtype=uint32)
        """
        return rows if rows.dtype.names is None else rows[self.name]

    def to_driver(self, rows: Array) -> list[Any]:
        """This field of each row, as objects for a driver; O(rows).

        `rows` is a one-dimensional array of the user's dtype or of the packed one, of any stride. Where the
        user's dtype is itself a subarray, it has shape (n, *subarray).

        >>> key, _ = columns_of("u2", "u4")
        >>> key[0].to_driver(np.arange(3, dtype="u2"))
        [0, 1, 2]
        """
        part = self.field_of(rows)
        if self.kind in ("unsigned64", "time"):
            part = part.astype(self.dtype, copy=False).view("i8")
        elif self.kind == "array":
            part = self._elements_joined(part)
        return part.tolist()  # type: ignore[no-any-return]

    def from_driver(self, items: list[Any], target: Array, *, null_is_nan: bool = False) -> None:
        """Fill this field of each row of `target` with what a driver gave back; O(rows).

        `target` is as the rows of `to_driver`, one row for each item; other fields and padding stay as they
        are. None leaves the field as it is; or, with `null_is_nan`, for databases that have no NaN, makes it
        NaN in a column of floats. Text is taken as its bytes in UTF-8 by a column of S<n>.

        Raises
        ------
        ValueError
            An item is not what this column stores, as somebody else may have written it.

        >>> key, _ = columns_of("u2", "u4")
        >>> rows = np.zeros(2, "u2")
        >>> key[0].from_driver([7, 8], rows)
        >>> rows
        array([7, 8], dtype=uint16)
        >>> key[0].from_driver([7, -1], rows)
        Traceback (most recent call last):
        ...
        ValueError: column 'key': -1 is out of range for uint16
        """
        if len(items) != len(target):
            raise ValueError(f"column {self.name!r}: {len(items)} items are not {len(target)} rows")
        if not items:
            return
        types = set(map(type, items))
        there: Any = ...  # the rows that have a value
        if type(None) in types:
            types.remove(type(None))
            if null_is_nan and self.kind == "float":
                items = [np.nan if item is None else item for item in items]
            else:
                there = np.array([item is not None for item in items])
                items = [item for item in items if item is not None]
        strange = types - _TAKEN[self.kind]
        if strange:
            names = " and ".join(sorted(kind.__name__ for kind in strange))
            raise ValueError(f"column {self.name!r} holds {names}, which is not {self.dtype}")
        if self.kind == "text" and str in types:
            items = [as_bytes(item) for item in items]
        try:
            if items:
                self.field_of(target)[there] = self._decoded(items)
        except (ValueError, ArithmeticError) as error:
            raise ValueError(f"column {self.name!r}: {error}") from None

    def _decoded(self, items: list[Any]) -> Array:
        count = len(items)
        match self.kind:
            case "unsigned64" | "time":
                return np.fromiter(items, "i8", count).view(self.dtype)
            case "integer":
                return _narrowed(np.fromiter(items, "i8", count), self.dtype)
            case "float":
                with np.errstate(over="raise"):
                    return np.array(items, "f8").astype(self.dtype)
            case "bool":
                return np.fromiter(items, "?", count)
            case "text":
                longest, room = max(map(len, items)), self.dtype.itemsize
                if longest > room:
                    raise ValueError(f"{longest} bytes are more than the {room} of {self.dtype}")
                return np.array(items, self.dtype)
            case _:
                return self._split(items)

    def _elements_joined(self, part: Array) -> Array:
        """(n, *shape) as n pieces of raw bytes."""
        little = np.ascontiguousarray(part, self._little_endian())
        return little.reshape(len(part), self._count()).view(f"V{self.dtype.itemsize}")[:, 0]

    def _split(self, items: list[Any]) -> Array:
        """Pieces of bytes, each the size of this field."""
        size = self.dtype.itemsize
        sizes = set(map(len, items))
        if sizes != {size}:
            raise ValueError(f"{max(sizes - {size})} bytes are not the {size} of {self.dtype}")
        elements = np.frombuffer(b"".join(items), self._little_endian())
        return elements.reshape(len(items), *self.dtype.shape)

    def _little_endian(self) -> np.dtype[Any]:
        return self.dtype.base.newbyteorder("<")

    def _count(self) -> int:
        return int(np.prod(self.dtype.shape))


def columns_of(key: npt.DTypeLike, value: npt.DTypeLike) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """The columns of the key and those of the value; O(fields).

    A dtype that is not structured is one column, called `key` or `value`.

    Raises
    ------
    TypeError
        A dtype that no cache can have, as `SlabCache` says it.
    ValueError
        Two columns would have the same name, or one has a name that no table can have.

    >>> keys, values = columns_of([("user", "u8"), ("channel", "u8")], "u4")
    >>> [column.name for column in keys + values]
    ['user', 'channel', 'value']
    >>> columns_of("u8", [("Key", "u4")])
    Traceback (most recent call last):
    ...
    ValueError: value field 'Key': the key has a column of that name; rename one (databases ignore case)
    """
    taken: dict[str, Role] = {}
    return _columns(key, "key", taken), _columns(value, "value", taken)


def check_rows(rows: Array, wanted: Description, role: Role) -> None:
    """TypeError unless `rows` is what a store of these keys or values takes: an array of n rows of the user's
    dtype or of the packed one; O(1)."""
    base, shape = wanted.dtype.subdtype or (wanted.dtype, ())
    is_packed = rows.dtype == wanted.packed and rows.ndim == 1
    if not is_packed and not (rows.dtype == base and rows.ndim >= 1 and rows.shape[1:] == shape):
        raise TypeError(
            f"{role}s must be a one-dimensional array of {wanted.dtype}, not one of {rows.dtype} and "
            f"shape {rows.shape}"
        )


def quote(name: str) -> str:
    """`name` as an identifier in SQL or CQL, whatever characters it has.

    Raises
    ------
    ValueError
        It is empty, has a NUL character, or is not valid Unicode.

    >>> print(quote('say "hi"'))
    "say ""hi\"""
    """
    if not name:
        raise ValueError("a name is empty; tables and columns need one")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {name!r} is not valid Unicode; use another") from None
    if "\0" in name:
        raise ValueError(f"the name {name!r} has a NUL character; use another")
    return '"' + name.replace('"', '""') + '"'


def as_text(item: bytes) -> str | bytes:
    """The text that these bytes are in UTF-8, or where they are none the bytes themselves.

    >>> as_text(b"ann"), as_text(b"\\xff")
    ('ann', b'\\xff')
    """
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item


def as_bytes(item: str | bytes) -> bytes:
    """What `as_text` was made of."""
    return item if isinstance(item, bytes) else item.encode(errors="surrogateescape")


def _columns(spec: npt.DTypeLike, role: Role, taken: dict[str, Role]) -> tuple[Column, ...]:
    columns = []
    for field in describe(spec, role).fields:
        name = field.name or role
        label = f"{role} field {field.name!r}" if field.name else role
        try:
            quote(name)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from None
        other = taken.get(name.lower())
        if other is not None:
            raise ValueError(
                f"{label}: the {other} has a column of that name; rename one (databases ignore case)"
            )
        taken[name.lower()] = role
        columns.append(Column(name, field.dtype, _kind_of(field)))
    return tuple(columns)


def _kind_of(field: Field) -> ColumnKind:
    if field.dtype.subdtype is not None:
        return "array"
    if field.kind == "u" and field.dtype.itemsize == 8:
        return "unsigned64"
    return _KINDS[field.dtype.kind]


def _narrowed(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """Integers in a dtype of at most 8 bytes, by value."""
    if dtype.itemsize < 8:
        limits = np.iinfo(dtype)
        for extreme in (numbers.min(), numbers.max()):
            if not limits.min <= extreme <= limits.max:
                raise ValueError(f"{extreme} is out of range for {dtype}")
    return numbers.astype(dtype)
