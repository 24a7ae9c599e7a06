"""From how many rows on is a batch worth it?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from measuring.read_states import values_of

from .batches import Batch, batches_of, by_batches
from .clock import Clock
from .full import FullCache
from .sizes import LARGE
from .workload import CHUNK_ROWS

BATCH_ROWS = 1, 4, 16, 64, 256, 1024, CHUNK_ROWS, 16_384, 65_536

Full = Callable[[str, int], FullCache]


@pytest.mark.parametrize("rows", BATCH_ROWS)
def test_get_many_by_rows(clock: Clock, touched: Full, rows: int) -> None:
    full = touched("slabcache", LARGE)
    operations = max(rows, CHUNK_ROWS)
    clock(
        by_batches(full.slabcache.get_many),
        lambda: batches_of(rows, full.present(operations)),
        name="slabcache",
        entries=LARGE,
        operations=operations,
        rows=rows,
    )


@pytest.mark.parametrize("rows", BATCH_ROWS)
def test_put_many_by_rows(clock: Clock, turned_over: Full, rows: int) -> None:
    full = turned_over("slabcache", LARGE)
    operations = max(rows, CHUNK_ROWS)

    def batches() -> tuple[list[Batch]]:
        keys = full.absent(operations)
        return batches_of(rows, keys, values_of(keys))

    clock(
        by_batches(full.slabcache.put_many),
        batches,
        name="slabcache",
        entries=LARGE,
        operations=operations,
        rows=rows,
    )
