"""A round made of several batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

Batch = tuple[NDArray[Any], ...]


def by_batches(function: Callable[..., object]) -> Callable[[list[Batch]], None]:
    """Call the function for each batch: one round."""

    def loop(batches: list[Batch]) -> None:
        for batch in batches:
            function(*batch)

    return loop


def batches_of(rows: int, *columns: NDArray[Any]) -> tuple[list[Batch]]:
    """Batches of so many rows."""
    starts = range(0, len(columns[0]), rows)
    return ([tuple(column[start : start + rows] for column in columns) for start in starts],)
