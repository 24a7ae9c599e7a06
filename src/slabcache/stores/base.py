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

    A row that can never be stored, or never be loaded, is refused with `slabcache.RowsRejected`,
    `ValueError`, `TypeError` or `OverflowError`. Every other exception means that the same call may succeed
    later.
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
        """`(values, found)`: n values, whatever they are where not found, and n bools."""
        ...

    def save_many(self, keys: Array, values: Array) -> None:
        """Create or overwrite n rows. They are stored for good when it returns."""
        ...

    def delete_many(self, keys: Array) -> None:
        """Delete those of n rows that there are; for good when it returns."""
        ...

    def close(self) -> None:
        """Give connections back. Called once, after everything else."""
        ...
