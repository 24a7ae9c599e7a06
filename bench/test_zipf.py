"""What does a cache cost that is read through: got from, and on a miss loaded and put into?

A load is the making of a value, which takes little time; with a real store behind it, the ratio of hits
decides. That of an exact LRU is known, and those that claim to be one are held to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from measuring.read_states import Rows, values_of

from .peers import EVICTING, PEERS, SlabCachePeer
from .sizes import LARGE
from .workload import CHUNK_ROWS, chunks, key_columns
from .zipf import Zipf, draw, exact_misses, warm_up

ROUNDS, QUICK_ROUNDS = 64, 4
MEDIUM = 100_000
SKEWS = 0.6, 0.8, 0.99, 1.2
#: All skews where it is quick, and the usual one where memory is slow.
CASES = [*((MEDIUM, skew) for skew in SKEWS), (LARGE, 0.99)]
FEW_ROWS = 64
#: Their policies are not that of an exact LRU: moka orders its reads later, theine keeps what is frequent.
OTHER_POLICIES = "moka", "theine"
#: An OrderedDict is read through in the same way, whatever its values are.
NAMES = [name for name in EVICTING if name != "objects"]

Stream = Callable[[int, float], Zipf]


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> Stream:
    """Draws that depend on size, skew and seed alone."""
    option = request.config.option
    rounds = QUICK_ROUNDS if option.quick else ROUNDS
    return lambda entries, skew: draw(entries, skew, rounds * CHUNK_ROWS, option.seed)


def measure(
    benchmark: BenchmarkFixture,
    read: Callable[..., int],
    arguments: Iterator[tuple[object, ...]],
    rounds: int,
) -> int:
    """Time the reads of each of the arguments. How many keys were not there."""
    misses = []
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda *columns: misses.append(read(*columns)), setup=lambda: (next(arguments), {}), rounds=rounds
    )
    return sum(misses)


@pytest.mark.parametrize(("entries", "skew"), CASES)
@pytest.mark.parametrize("name", NAMES)
def test_read_through(
    benchmark: BenchmarkFixture,
    stream: Stream,
    cut: Callable[[int], int],
    name: str,
    entries: int,
    skew: float,
) -> None:
    zipf = stream(cut(entries), skew)
    peer = PEERS[name](cut(entries))
    warm_up(peer, zipf)
    total = len(zipf.measured)
    columns = (key_columns(keys) for keys in chunks(zipf.measured))
    misses = measure(benchmark, peer.read_through, columns, total // CHUNK_ROWS)
    benchmark.extra_info.update(
        name=name, entries=entries, skew=skew, operations=CHUNK_ROWS, hit_ratio=1 - misses / total
    )
    exact = exact_misses(cut(entries), zipf)
    benchmark.extra_info["exact_hit_ratio"] = 1 - exact / total
    if name not in OTHER_POLICIES:
        assert misses == exact


@pytest.mark.parametrize("rows", [FEW_ROWS, CHUNK_ROWS])
@pytest.mark.parametrize(("entries", "skew"), CASES)
def test_read_through_by_batch(
    benchmark: BenchmarkFixture,
    stream: Stream,
    cut: Callable[[int], int],
    entries: int,
    skew: float,
    rows: int,
) -> None:
    """A batch gets all of its keys before it puts any, so its misses are not quite those of single calls."""
    zipf = stream(cut(entries), skew)
    peer = SlabCachePeer(cut(entries))
    warm_up(peer, zipf)
    get_many, put_many = peer.cache.get_many, peer.cache.put_many

    def read_through(batches: list[Rows]) -> int:
        misses = 0
        for keys in batches:
            _, found = get_many(keys)
            missing = keys[~found]
            put_many(missing, values_of(missing))
            misses += len(missing)
        return misses

    total = len(zipf.measured)
    batches = ((np.split(keys, CHUNK_ROWS // rows),) for keys in chunks(zipf.measured))
    misses = measure(benchmark, read_through, batches, total // CHUNK_ROWS)
    benchmark.extra_info.update(
        name="slabcache",
        entries=entries,
        skew=skew,
        rows=rows,
        operations=CHUNK_ROWS,
        hit_ratio=1 - misses / total,
    )
