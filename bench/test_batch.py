"""What does a row of a batch cost, and from how many rows on is a batch worth it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from numpy.typing import NDArray

from .conftest import Clock
from .full import FullCache
from .peers import SlabCachePeer
from .sizes import LARGE, SIZES, SMALL
from .workload import CHUNK_ROWS, Rows, key_columns, values_of

BATCH_ROWS = 1, 4, 16, 64, 256, 1024, CHUNK_ROWS, 16_384, 65_536
FEW_ROWS = 16
ROUNDS = 100  # they are short

Full = Callable[[str, int], FullCache]


def cache_of(full: FullCache) -> Any:
    assert isinstance(full.peer, SlabCachePeer)
    return full.peer.cache


@pytest.mark.parametrize("entries", SIZES)
def test_get_many(clock: Clock, touched: Full, entries: int) -> None:
    full = touched("slabcache", entries)
    clock(
        cache_of(full).get_many,
        lambda: (full.present(CHUNK_ROWS),),
        name="slabcache",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )


@pytest.mark.parametrize("entries", SIZES)
def test_put_many_evicting(clock: Clock, turned_over: Full, entries: int) -> None:
    full = turned_over("slabcache", entries)

    def rows() -> tuple[Rows, Rows]:
        keys = full.absent(CHUNK_ROWS)
        return keys, values_of(keys)

    clock(
        cache_of(full).put_many,
        rows,
        name="slabcache",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )


def by_batches(function: Callable[..., object]) -> Callable[[list[tuple[Rows, ...]]], None]:
    """Call the function for each batch: one round."""

    def loop(batches: list[tuple[Rows, ...]]) -> None:
        for batch in batches:
            function(*batch)

    return loop


def split(rows: int, *columns: NDArray[Any]) -> tuple[list[tuple[NDArray[Any], ...]]]:
    """Batches of so many rows."""
    starts = range(0, len(columns[0]), rows)
    return ([tuple(column[start : start + rows] for column in columns) for start in starts],)


@pytest.mark.parametrize("rows", BATCH_ROWS)
def test_get_many_by_rows(clock: Clock, touched: Full, rows: int) -> None:
    full = touched("slabcache", LARGE)
    operations = max(rows, CHUNK_ROWS)
    clock(
        by_batches(cache_of(full).get_many),
        lambda: split(rows, full.present(operations)),
        name="slabcache",
        entries=LARGE,
        operations=operations,
        rows=rows,
    )


@pytest.mark.parametrize("rows", BATCH_ROWS)
def test_put_many_by_rows(clock: Clock, turned_over: Full, rows: int) -> None:
    full = turned_over("slabcache", LARGE)
    operations = max(rows, CHUNK_ROWS)

    def batches() -> tuple[Any]:
        keys = full.absent(operations)
        return split(rows, keys, values_of(keys))

    clock(
        by_batches(cache_of(full).put_many),
        batches,
        name="slabcache",
        entries=LARGE,
        operations=operations,
        rows=rows,
    )


@pytest.mark.parametrize("entries", [SMALL, LARGE])
def test_scalar_calls(clock: Clock, touched: Full, entries: int) -> None:
    """What the next test is compared with."""
    full = touched("slabcache", entries)
    clock(
        full.peer.hit,
        lambda: key_columns(full.present(CHUNK_ROWS)),
        name="slabcache",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )


@pytest.mark.parametrize("entries", [SMALL, LARGE])
def test_few_rows(clock: Clock, touched: Full, entries: int) -> None:
    """Batches of so few rows that the call itself counts."""
    full = touched("slabcache", entries)
    clock(
        by_batches(cache_of(full).get_many),
        lambda: split(FEW_ROWS, full.present(CHUNK_ROWS)),
        name="slabcache",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )
