"""`SlabCache`: the core as a complete mapping."""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from slabcache._batch import BatchCore
from slabcache.mapping import SlabMapping

__all__ = ["SlabCache"]

Array = np.ndarray[Any, Any]


class SlabCache(BatchCore, SlabMapping):
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

    def __init__(
        self,
        capacity: int,
        key: npt.DTypeLike,
        value: npt.DTypeLike,
        *,
        on_evict: Callable[[Array, Array], object] | None = None,
    ) -> None:
        super().__init__(capacity, key, value, on_evict)

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
        return self._copy(self.__getstate__())

    def _copy(self, state: Any) -> Self:
        copied = type(self)._from_rows(self.key_dtype, self.value_dtype, *self._export())
        if state is not None:
            copied.__setstate__(state)
        return copied

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = self._copy(None)
        memo[id(self)] = copied  # before the attributes, which may lead back here
        state = copy.deepcopy(self.__getstate__(), memo)
        if state is not None:
            copied.__setstate__(state)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.key_dtype, self.value_dtype, *self._export())
        return type(self)._from_rows, arguments, self.__getstate__()

    def __setstate__(self, state: Any) -> None:
        """The attributes that a subclass has added, as `__getstate__` gave them."""
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        if attributes:
            self.__dict__.update(attributes)
        for name, item in (slots or {}).items():
            setattr(self, name, item)


MutableMapping.register(SlabCache)
