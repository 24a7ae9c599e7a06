"""What does a store behind the cache cost its callers, and how much does it absorb?

Each call is measured with the plain cache and with one in front of a store, both with the same keys, all of
which are in memory. The entries are clean when a test begins, and the first writes of its rounds make them
dirty; nothing is written behind meanwhile, as the flusher's time is not the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from measuring.read_states import Rows, values_of

from .behind import WriteBehindPeer, absorb
from .clock import Clock, Keep
from .full import FullCache
from .peers import SlabCachePeer
from .sizes import LARGE, SMALL
from .workload import CHUNK_ROWS, key_columns, row_columns

ROUNDS = 100  # they are short
SECONDS, QUICK_SECONDS = 4.0, 0.2

KINDS = {"slabcache": SlabCachePeer, "write_behind": WriteBehindPeer}

Measure = Callable[[Callable[[FullCache], Callable[..., object]], Callable[[Rows], tuple[Any, ...]]], None]


@pytest.fixture(params=[SMALL, LARGE])
def entries(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


@pytest.fixture(params=KINDS)
def measure(
    request: pytest.FixtureRequest, clock: Clock, cut: Callable[[int], int], keep: Keep, entries: int
) -> Measure:
    """Times `call(full)` with the arguments that are made of keys that are there."""
    kind: str = request.param
    seed = request.config.option.seed
    full = keep(kind, entries, lambda: FullCache(KINDS[kind], cut(entries), seed))
    if kind == "write_behind":
        full.slabcache.flush()

    def run(
        call: Callable[[FullCache], Callable[..., object]], arguments: Callable[[Rows], tuple[Any, ...]]
    ) -> None:
        clock(
            call(full),
            lambda: arguments(full.present(CHUNK_ROWS)),
            name=kind,
            entries=entries,
            operations=CHUNK_ROWS,
            rounds=ROUNDS,
        )

    return run


def test_behind_hit(measure: Measure) -> None:
    measure(lambda full: full.peer.hit, key_columns)


def test_behind_get_many(measure: Measure) -> None:
    measure(lambda full: full.slabcache.get_many, lambda keys: (keys,))


def test_behind_write(measure: Measure) -> None:
    measure(lambda full: full.peer.write, row_columns)


def test_behind_put_many(measure: Measure) -> None:
    measure(lambda full: full.slabcache.put_many, lambda keys: (keys, values_of(keys)))


def test_behind_increment_many(measure: Measure) -> None:
    measure(lambda full: full.slabcache.increment_many, lambda keys: (keys, "mention_count"))


@pytest.mark.parametrize("call", ["increment_many", "increment"])
def test_absorbed(
    record: Callable[..., None], cut: Callable[[int], int], request: pytest.FixtureRequest, call: str
) -> None:
    """Increments while a store that takes 2 ms a batch is written behind, and the memory that takes."""
    option = request.config.option
    seconds = QUICK_SECONDS if option.quick else SECONDS
    record(absorb, call, cut(LARGE), seconds, option.seed, name=call, entries=LARGE)
