"""What does a row of a batch cost?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from measuring.read_states import Rows, values_of

from .batches import batches_of, by_batches
from .clock import Clock
from .full import FullCache
from .sizes import LARGE, SIZES, SMALL
from .workload import CHUNK_ROWS, key_columns

FEW_ROWS = 16
ROUNDS = 100  # they are short

Full = Callable[[str, int], FullCache]


@pytest.mark.parametrize("entries", SIZES)
def test_get_many(clock: Clock, touched: Full, entries: int) -> None:
    full = touched("slabcache", entries)
    clock(
        full.slabcache.get_many,
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
        full.slabcache.put_many,
        rows,
        name="slabcache",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
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
        by_batches(full.slabcache.get_many),
        lambda: batches_of(FEW_ROWS, full.present(CHUNK_ROWS)),
        name="slabcache",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )
