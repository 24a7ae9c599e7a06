"""`SlabCache`: the core as a complete mapping."""

from __future__ import annotations

import copy
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from slabcache._batch import BatchCore
from slabcache.stats import Stats

__all__ = ["SlabCache"]

Array = np.ndarray[Any, Any]


if TYPE_CHECKING:
    # Type checkers do not know of `register`, at the end of this file.
    class _Mapping(BatchCore, MutableMapping[Any, Any]):
        pass
else:
    _Mapping = BatchCore


class SlabCache(_Mapping):
    """A typed LRU cache whose entries the garbage collector never sees.

    Keys and values are fixed-size records in one arena; the entry used longest ago is evicted when a new
    one finds the cache full. Look-ups and writes are O(1) and allocate nothing but the object they
    return. All memory is reserved here and touched only as the cache fills.

    Parameters
    ----------
    capacity
        Entries at most, 1 to 2**32 - 2.
    key
        What `numpy.dtype()` accepts: an integer type, `S<n>`, `V<n>`, or a structured dtype of those, at
        most 255 bytes.
    value
        Likewise, with floats, bool, datetime64, timedelta64 and subarrays, at most 65,535 bytes.
    on_evict
        Called as `on_evict(keys, values)` with arrays of what was evicted, least recent first, after the
        operation that evicted, with no lock held. What it raises reaches the caller.

    Raises
    ------
    TypeError
        A dtype is not supported; the message names the field and what to use instead.
    ValueError
        The capacity is out of range.
    MemoryError
        The memory cannot be had.

    Thread safety: every method may be called from any thread and is atomic, a batch as a whole; on
    free-threaded builds too. After `fork()` the child has a copy of its own.

    >>> key = [("user", "u8"), ("channel", "u8")]
    >>> cache = SlabCache(2, key=key, value=[("seen", "u8"), ("mentions", "u4")])
    >>> cache[42, 7] = (1001, 0)
    >>> cache.increment((42, 7), "mentions")
    1
    >>> cache[42, 7]
    Record(seen=1001, mentions=1)
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        capacity: int,
        key: npt.DTypeLike,
        value: npt.DTypeLike,
        *,
        on_evict: Callable[[Array, Array], object] | None = None,
    ) -> None:
        super().__init__(capacity, key, value, on_evict)

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
            f"<{type(self).__name__} of {len(self)}/{self.capacity} entries, "
            f"key {self.key_dtype}, value {self.value_dtype}>"
        )

    # ---- mapping ---------------------------------------------------------------------------------------

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
        if isinstance(other, SlabCache) and (self.key_dtype, self.value_dtype) == (
            other.key_dtype,
            other.value_dtype,
        ):
            theirs, found = other.peek_many(keys)
            return bool(found.all()) and np.array_equal(values, theirs)
        look_up = other.peek if isinstance(other, SlabCache) else other.get
        absent = object()
        frozen = SlabCache._from_rows(self.key_dtype, self.value_dtype, len(keys) or 1, keys, values)
        try:
            return all(_equal(value, look_up(key, absent)) for key, value in frozen.items())
        except (TypeError, ValueError, OverflowError):  # a key that the other mapping cannot have
            return False

    # ---- copies ----------------------------------------------------------------------------------------

    @classmethod
    def _from_rows(
        cls, key: np.dtype[Any], value: np.dtype[Any], capacity: int, keys: Array, values: Array
    ) -> Self:
        cache = cls.__new__(cls)
        SlabCache.__init__(cache, capacity, key, value)
        SlabCache.put_many(cache, keys, values)
        return cache

    def copy(self) -> Self:
        """A cache of the same content, order, capacity and types; statistics start anew. O(size).

        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache[1] = 10
        >>> cache.copy() == cache
        True
        """
        copied = type(self)._from_rows(self.key_dtype, self.value_dtype, *self._export())
        if hasattr(self, "__dict__"):  # a subclass has attributes of its own
            copied.__dict__.update(self.__dict__)
        return copied

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = self.copy()
        memo[id(self)] = copied
        if hasattr(self, "__dict__"):
            copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.key_dtype, self.value_dtype, *self._export())
        return type(self)._from_rows, arguments, getattr(self, "__dict__", None) or None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The attributes that a subclass has added."""
        self.__dict__.update(state)


MutableMapping.register(SlabCache)


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        return np.array_equal(mine, theirs)
    return bool(mine == theirs)


class SlabKeys(KeysView[Any]):
    """Keys of a cache."""

    __slots__ = ()
    _mapping: SlabCache

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._mapping)


class SlabValues(ValuesView[Any]):
    """Values of a cache; reading them neither counts nor changes the order."""

    __slots__ = ()
    _mapping: SlabCache

    def __iter__(self) -> Iterator[Any]:
        return self._mapping._iterate(backward=False, with_key=False, with_value=True)

    def __reversed__(self) -> Iterator[Any]:
        return self._mapping._iterate(backward=True, with_key=False, with_value=True)

    def __contains__(self, value: object) -> bool:
        return any(_equal(mine, value) for mine in self)


class SlabItems(ItemsView[Any, Any]):
    """Pairs of a cache; reading them neither counts nor changes the order."""

    __slots__ = ()
    _mapping: SlabCache

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._iterate(backward=False, with_key=True, with_value=True)

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._iterate(backward=True, with_key=True, with_value=True)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        absent = object()
        value = self._mapping.peek(item[0], absent)
        return value is not absent and _equal(value, item[1])
