"""Does the cost grow faster than that of memory itself?

The other suites measure each cache at each size. Here is the yardstick: reads from as many bytes as slabcache
takes for as many entries, all in random order, by two programs:

* dependent: a pointer chase, a loop in C over a cycle that visits each cache line once. Each read has to wait
  for the one before, as the steps of one look-up have to.
* independent: `numpy.take` of rows of 48 bytes, a slot's size. The processor overlaps them, as a batch can.
"""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from .clock import Clock, Keep
from .sizes import SIZES
from .workload import CHUNK_ROWS

ROW = np.dtype("V48")
LINE_BYTES = 64
ENTRY_BYTES = 56  # of slabcache, about
ROUNDS = 100

SOURCE = """
#include <stddef.h>
#include <stdint.h>

/* Follow the links from one cell to the next, so many steps far. */
uint64_t chase(const uint64_t *cells, uint64_t cell, size_t steps)
{
    while (steps--)
        cell = cells[cell];
    return cell;
}
"""


@pytest.fixture(scope="session")
def chase(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int, int], int]:
    """The function above, built by the compiler that builds extension modules."""
    folder: Path = tmp_path_factory.mktemp("chase")
    (folder / "chase.c").write_text(SOURCE)
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    subprocess.run(
        [*compiler, "-O2", "-shared", "-fPIC", "-o", "chase.so", "chase.c"], cwd=folder, check=True
    )
    function = ctypes.CDLL(str(folder / "chase.so")).chase
    function.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t]
    function.restype = ctypes.c_uint64
    return function


@pytest.mark.parametrize("entries", SIZES)
def test_dependent_read(
    clock: Clock, keep: Keep, cut: Callable[[int], int], chase: Callable[[int, int, int], int], entries: int
) -> None:
    rng = np.random.default_rng()
    lines = cut(entries) * ENTRY_BYTES // LINE_BYTES
    words = LINE_BYTES // 8

    def cycle() -> NDArray[np.uint64]:
        cells = np.zeros(lines * words, np.uint64)
        order = rng.permutation(lines) * words
        cells[order] = np.roll(order, -1)
        return cells

    cells = keep("cycle", entries, cycle)
    clock(
        chase,
        lambda: (cells.ctypes.data, int(rng.integers(lines)) * words, CHUNK_ROWS),
        name="dependent read",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )


def take(clock: Clock, keep: Keep, row_count: int, entries: int) -> None:
    rng = np.random.default_rng()
    rows = keep("rows", entries, lambda: np.frombuffer(rng.bytes(row_count * ROW.itemsize), ROW).copy())
    clock(
        np.take,
        lambda: (rows, rng.integers(row_count, size=CHUNK_ROWS)),
        name="numpy.take",
        entries=entries,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )


@pytest.mark.parametrize("entries", SIZES)
def test_take(clock: Clock, keep: Keep, cut: Callable[[int], int], entries: int) -> None:
    take(clock, keep, cut(entries), entries)


@pytest.mark.parametrize("entries", SIZES)
@pytest.mark.usefixtures("turned_over")
def test_take_among_evictions(clock: Clock, keep: Keep, cut: Callable[[int], int], entries: int) -> None:
    """The same once more, at the time at which evictions are measured."""
    take(clock, keep, cut(entries), entries)
