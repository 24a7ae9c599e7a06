"""What does one call cost when the key is there?

Both sides of a comparison run the same loop over integers that are made beforehand; the loop and the making
of the key's tuple are in all figures, and `test_loop` says what these two alone cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from measuring.read_states import VALUE
from slabcache import SlabCache

from .clock import Clock
from .full import FullCache
from .peers import INSTALLED, PEERS
from .sizes import LARGE, SMALL, peers_by_size
from .workload import CHUNK_ROWS, draw_keys, key_columns, row_columns

ROUNDS = 100  # where they are short

WRITABLE = [name for name in INSTALLED if PEERS[name].writable]

Touched = Callable[[str, int], FullCache]


@pytest.mark.parametrize(("name", "entries"), peers_by_size(INSTALLED))
def test_hit(clock: Clock, touched: Touched, name: str, entries: int) -> None:
    full = touched(name, entries)
    clock(
        full.peer.hit,
        lambda: key_columns(full.present(CHUNK_ROWS)),
        name=name,
        entries=entries,
        operations=CHUNK_ROWS,
    )


@pytest.mark.parametrize("name", ["dict", "slabcache"])
def test_hit_by_same_objects(clock: Clock, name: str) -> None:
    """The integers of the key are those that the dict holds, so that it need not compare their values."""
    rng = np.random.default_rng()
    columns = row_columns(draw_keys(rng, SMALL))
    peer = PEERS[name](SMALL)
    peer.write(*columns)

    def same_objects() -> tuple[list[int], ...]:
        rows = rng.integers(SMALL, size=CHUNK_ROWS).tolist()
        return tuple([column[row] for row in rows] for column in columns[:2])

    clock(peer.hit, same_objects, name=name, entries=SMALL, operations=CHUNK_ROWS, rounds=ROUNDS)


@pytest.mark.parametrize("entries", [SMALL, LARGE])
@pytest.mark.parametrize("name", INSTALLED)
def test_read(clock: Clock, touched: Touched, name: str, entries: int) -> None:
    full = touched(name, entries)
    clock(
        full.peer.read,
        lambda: key_columns(full.present(CHUNK_ROWS)),
        name=name,
        entries=entries,
        operations=CHUNK_ROWS,
    )


@pytest.mark.parametrize("entries", [SMALL, LARGE])
@pytest.mark.parametrize("name", WRITABLE)
def test_update(clock: Clock, touched: Touched, name: str, entries: int) -> None:
    full = touched(name, entries)
    clock(
        full.peer.write,
        lambda: row_columns(full.present(CHUNK_ROWS)),
        name=name,
        entries=entries,
        operations=CHUNK_ROWS,
    )


def test_loop(clock: Clock, touched: Touched) -> None:
    full = touched("dict", SMALL)

    def loop(users: list[int], channels: list[int]) -> None:
        for user, channel in zip(users, channels, strict=True):
            _ = user, channel

    clock(
        loop,
        lambda: key_columns(full.present(CHUNK_ROWS)),
        name="loop",
        entries=SMALL,
        operations=CHUNK_ROWS,
    )


@pytest.mark.parametrize("name", ["dict", "slabcache"])
def test_hit_of_u8_key(clock: Clock, name: str) -> None:
    rng = np.random.default_rng()
    keys = rng.integers(1 << 63, size=SMALL, dtype=np.uint64)
    cache: Any = {} if name == "dict" else SlabCache(SMALL, key="u8", value=VALUE)
    cache.update(dict.fromkeys(keys.tolist(), (1, 2, 3)))

    def hit(keys: list[int]) -> None:
        for key in keys:
            cache[key]

    clock(
        hit,
        lambda: (keys[rng.integers(SMALL, size=CHUNK_ROWS)].tolist(),),
        name=name,
        entries=SMALL,
        operations=CHUNK_ROWS,
        rounds=ROUNDS,
    )
