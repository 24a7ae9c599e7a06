"""What pickles name, besides the public classes. It stays where it is, whatever else moves."""

from __future__ import annotations

import copyreg
from typing import Any

import numpy as np

from slabcache.codec.record import Record, dtype_and_items, restored

__all__ = ["record_from"]


def record_from(dtype: np.dtype[Any], items: tuple[Any, ...]) -> Record:
    """A Record from the dtype of its value and its items."""
    return restored(dtype, items)


def _reduce(record: Record) -> tuple[Any, ...]:
    return record_from, dtype_and_items(record)


copyreg.pickle(Record, _reduce)
