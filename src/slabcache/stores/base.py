"""What a `WriteBehindCache` asks of the store behind it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Store"]

Array = np.ndarray[Any, Any]


@runtime_checkable
class Store(Protocol):
    """Rows of fixed types, found by their keys.

    All calls take arrays whose keys are distinct, of the store's dtypes. They may come from several threads
    at the same time; but `save_many` and `delete_many` come from one thread only, one after the other. A call
    that raises may have taken place in part, and is repeated until it succeeds: both must be idempotent.

    A store refuses rows that it will never take, or can never give, by raising `slabcache.RowsRejected`, and
    by nothing else. Every other exception, those of its own mistakes included, means that the same call may
    succeed later: no row is given up for it.

    Calls may come from a finalizer or a signal handler in the middle of another call of the same thread, or
    from a thread that such a one waits for. So hold no lock of Python's while Python code runs.

    Three attributes are optional:

    closed
        Whether `close()` has been called: then no cache is made on the store.

    identity
        Something hashable that two stores have in common if they keep the same rows: the same table of the
        same database. A second open cache on the same rows is refused by it.
    null_value
        What a field reads as that the database has nothing for, such as a column added later: a value of
        `value_dtype`, of which each field is taken. It may be assigned before the first load; a cache with a
        `default` assigns that.
    """

    @property
    def key_dtype(self) -> np.dtype[Any]:
        """The dtype of keys."""
        ...

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The dtype of values."""
        ...

    def load_many(self, keys: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """`(values, found)`: n values, whatever they are where not found, and n bools.

        `RowsRejected` where a row is there that no value of `value_dtype` can hold.
        """
        ...

    def save_many(self, keys: Array, values: Array) -> None:
        """Create or overwrite n rows. They are stored for good when it returns.

        `RowsRejected` where some of them will never be stored; none or some of the others may be by then.
        """
        ...

    def delete_many(self, keys: Array) -> None:
        """Delete those of n rows that there are; for good when it returns."""
        ...

    def close(self) -> None:
        """Give connections back. Called once, after everything else but loads that outlast `load_timeout`, or
        the timeout of the cache's `close()`: these may be under way."""
        ...
