"""What does a write cost that has to evict?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .clock import Clock
from .full import FullCache
from .peers import EVICTING
from .sizes import peers_by_size
from .workload import CHUNK_ROWS, row_columns


@pytest.mark.parametrize(("name", "entries"), peers_by_size(EVICTING))
def test_evicting_write(
    clock: Clock, turned_over: Callable[[str, int], FullCache], name: str, entries: int
) -> None:
    full = turned_over(name, entries)
    clock(
        full.peer.write,
        lambda: row_columns(full.absent(CHUNK_ROWS)),
        name=name,
        entries=entries,
        operations=CHUNK_ROWS,
    )
