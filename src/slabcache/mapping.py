"""What the caches have of a mapping that is plain Python: views, iteration, `update`, comparison."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import TYPE_CHECKING, Any

import numpy as np

from slabcache._base import SlabBase
from slabcache.codec.conversions import equal_arrays
from slabcache.codec.rows import as_rows
from slabcache.errors import UnfitKeyError
from slabcache.stats import Stats

__all__ = ["SlabItems", "SlabKeys", "SlabMapping", "SlabValues"]

Array = np.ndarray[Any, Any]


if TYPE_CHECKING:
    # Type checkers do not know of `MutableMapping.register`. The calls are those of the extension types.
    class _Mapping(SlabBase, MutableMapping[Any, Any]):
        def peek(self, key: Any, default: Any = None) -> Any: ...
        def peek_many(self, keys: Any) -> tuple[Array, Array]: ...
else:
    _Mapping = object


class SlabMapping(_Mapping):
    """Mixed into a class whose look-ups and writes are those of an extension type."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    # ---- what it is ----------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Entries at most."""
        return self.stats().capacity

    @property
    def key_dtype(self) -> np.dtype[Any]:
        """The dtype of keys, as given."""
        return self._key_schema.dtype

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The dtype of values, as given."""
        return self._value_schema.dtype

    def stats(self) -> Stats:
        """Counts since construction or `reset_stats()`, and the size. O(1).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache[1] = 10
        >>> cache.get(1), cache.get(2)
        (10, None)
        >>> cache.stats().hit_ratio
        0.5
        """
        return Stats(*self._stats())

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {self.stats().size}/{self.capacity} entries, "
            f"key {self.key_dtype}, value {self.value_dtype}>"
        )

    # ---- mapping ---------------------------------------------------------------------------------------

    def __missing__(self, key: Any) -> Any:
        """What `[]` gives for an absent key; KeyError, unless a subclass has something else."""
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        """Keys from least to most recent. RuntimeError after a change of content or order."""
        return self._iterate(backward=False, with_key=True, with_value=False)

    def __reversed__(self) -> Iterator[Any]:
        return self._iterate(backward=True, with_key=True, with_value=False)

    def keys(self) -> SlabKeys:
        """A view of the keys, from least to most recent."""
        return SlabKeys(self)

    def values(self) -> SlabValues:
        """A view of the values, from least to most recent."""
        return SlabValues(self)

    def items(self) -> SlabItems:
        """A view of `(key, value)` pairs, from least to most recent.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(4, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> list(cache.items()), list(reversed(cache.items()))
        ([(1, 10), (2, 20)], [(2, 20), (1, 10)])
        """
        return SlabItems(self)

    def update(self, other: Any = (), /) -> None:  # type: ignore[override]
        """`cache[key] = value` for each item of a mapping or of an iterable of pairs. O(items).

        Stops at the first item that raises; the items before it stay.
        """
        if other is self:
            return
        pairs: Iterable[Any] = other
        if isinstance(other, Mapping):
            pairs = other.items()
        elif hasattr(other, "keys"):
            pairs = ((key, other[key]) for key in other.keys())  # noqa: SIM118 - not a Mapping
        for key, value in pairs:
            self[key] = value

    def __eq__(self, other: object) -> bool:
        """Whether the other mapping has the same keys with equal values, in any order. O(size)."""
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        _, keys, values = self._export()
        if len(other) != len(keys):
            return False
        mine = as_rows(self._value_schema, values)
        if isinstance(other, SlabMapping) and (self.key_dtype, self.value_dtype) == (
            other.key_dtype,
            other.value_dtype,
        ):
            theirs, found = other.peek_many(keys)
            return bool(found.all()) and self._equal_rows(mine, as_rows(self._value_schema, theirs))
        look_up = other.peek if isinstance(other, SlabMapping) else other.get
        absent = object()
        decoded_keys = self._key_schema.decode_rows(as_rows(self._key_schema, keys))
        try:
            for key, value in zip(decoded_keys, self._value_schema.decode_rows(mine), strict=True):
                if not _equal(value, look_up(key, absent)):
                    return False
            return True
        except (TypeError, ValueError, OverflowError):  # a key that the other mapping cannot have
            return False

    def _equal_rows(self, mine: Array, theirs: Array) -> bool:
        """Packed values of the same types. Equal bytes are equal, NaN too; others may be, as 0.0 and -0.0."""
        raw = f"V{mine.itemsize}"
        differ = np.ascontiguousarray(mine).view(raw) != np.ascontiguousarray(theirs).view(raw)
        if not differ.any():
            return True
        decode_rows = self._value_schema.decode_rows
        return all(map(_equal, decode_rows(mine[differ]), decode_rows(theirs[differ])))


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        return equal_arrays(mine, theirs)
    return bool(mine == theirs)


class SlabKeys(KeysView[Any]):
    """Keys of a cache."""

    __slots__ = ()
    _mapping: SlabMapping

    def __contains__(self, key: object) -> bool:
        """As for the keys of a dict: what no key can be is not among them."""
        try:
            return key in self._mapping
        except UnfitKeyError:
            return False

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._mapping)


class SlabValues(ValuesView[Any]):
    """Values of a cache; reading them neither counts nor changes the order."""

    __slots__ = ()
    _mapping: SlabMapping

    def __iter__(self) -> Iterator[Any]:
        return self._mapping._iterate(backward=False, with_key=False, with_value=True)

    def __reversed__(self) -> Iterator[Any]:
        return self._mapping._iterate(backward=True, with_key=False, with_value=True)

    def __contains__(self, value: object) -> bool:
        return any(_equal(mine, value) for mine in self)


class SlabItems(ItemsView[Any, Any]):
    """Pairs of a cache; reading them neither counts nor changes the order."""

    __slots__ = ()
    _mapping: SlabMapping

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._iterate(backward=False, with_key=True, with_value=True)

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._iterate(backward=True, with_key=True, with_value=True)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        absent = object()
        try:
            value = self._mapping.peek(item[0], absent)
        except UnfitKeyError:
            return False
        return value is not absent and _equal(value, item[1])
