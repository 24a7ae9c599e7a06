"""What is the longest that anyone waits, and for what?

`test_collector` compares the collector's time in a service with a huge cache and in the same service without
one; `test_latency` takes the latency of a service's requests with each of some caches; `test_stall` looks for
writes that wait for a table to be rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from measuring.turns import take_turns

from .peers import EVICTING, MISSING
from .sizes import HUGE, LARGE
from .stall import stalls
from .tail import MIX, NINES, SINGLES, SLICE
from .tail_caches import CACHES

#: With the batches among them, these are ten million operations and some.
REQUESTS = 40 * SLICE
LATENCY_REQUESTS = 10 * SLICE
LARGER = 4_000_000
#: The others at this size would take as long again, to show the same.
LARGER_PEERS = "ordered_dict", "lru_dict", "cachebox", "slabcache"

Serve = Callable[[list[str], int, int, int], list[dict[str, Any]]]


@pytest.fixture
def serve(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Serve:
    """What services saw that took turns: one for each cache, with the same requests."""
    option = request.config.option

    def run(caches: list[str], entries: int, requests: int, kinds: int) -> list[dict[str, Any]]:
        requests = SLICE if option.quick else requests
        commands = [("bench.tail", cache, entries, requests, option.seed, kinds) for cache in caches]
        tails: list[dict[str, Any]] = benchmark.pedantic(  # type: ignore[no-untyped-call]
            take_turns, (commands,), rounds=1
        )
        benchmark.extra_info["tails"] = dict(zip(caches, tails, strict=True))
        return tails

    return run


def test_collector(benchmark: BenchmarkFixture, serve: Serve, cut: Callable[[int], int]) -> None:
    none, memory, full = serve(["none", "memory", "slabcache"], cut(HUGE), REQUESTS, len(MIX))
    benchmark.extra_info.update(
        name="slabcache",
        entries=HUGE,
        ratio=_by_slice(full, none),
        ratio_to_memory=_by_slice(full, memory),
        longest=full["operation"]["working"] / full["collection"]["working"],
    )


def _by_slice(one: dict[str, Any], other: dict[str, Any]) -> float:
    """How many times as long the collector took, as the median over slices of the same requests."""
    pairs = zip(one["collecting"], other["collecting"], strict=True)
    return float(median(ours / theirs for ours, theirs in pairs))


def test_latency(benchmark: BenchmarkFixture, serve: Serve, cut: Callable[[int], int]) -> None:
    caches = [name for name in CACHES if name != "memory" and name not in MISSING]
    serve(caches, cut(LARGE), LATENCY_REQUESTS, SINGLES)
    benchmark.extra_info.update(name="slabcache", entries=LARGE, nines=NINES)


@pytest.mark.parametrize(
    ("name", "entries"),
    [(name, LARGE) for name in EVICTING] + [(name, LARGER) for name in EVICTING if name in LARGER_PEERS],
)
def test_stall(
    record: Callable[..., None],
    cut: Callable[[int], int],
    request: pytest.FixtureRequest,
    name: str,
    entries: int,
) -> None:
    record(stalls, name, cut(entries), request.config.option.seed, name=name, entries=entries)
