"""What the suites share: options, the order of the tests, full caches, the clock.

A ratio compares two tests, so their rounds must fall on the same minutes of the machine: each test comes in
several turns, and all tests of a size take their first turn before any takes its second. Rounds are short,
which makes their median blind to what now and then interrupts one. Rounds before the first that counts bring
back what the tests between have driven out of the processor's caches.

Peers that evict have processes of their own, as the objects that they free are holes in the memory of whoever
comes next: fresh integers are then scattered over all of it, and cost a cache miss each.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from measuring.processes import isolated

from .clock import Clock, Keep
from .full import FullCache
from .peers import MISSING, PEERS

QUICK_TURNS = 1
QUICK_ENTRIES = 10_000


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench")
    group.addoption("--quick", action="store_true", help="small caches, few rounds: does it run?")
    group.addoption("--turns", type=int, default=4, help="of each test, unless the run is quick")
    group.addoption("--seed", type=int, default=0, help="of all that is drawn")
    group.addoption(
        "--peers", default=",".join(PEERS), help="measure these alone, by their names in bench/peers.py"
    )


def pytest_report_header() -> list[str]:
    return [f"{PEERS[name].label} is not installed and left out" for name in MISSING]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "turn" in metafunc.fixturenames:
        option = metafunc.config.option
        metafunc.parametrize("turn", range(QUICK_TURNS if option.quick else option.turns))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Size by size, evictions last, turn by turn; peers that are not wanted left out.

    What is not about one peer belongs to slabcache.
    """
    wanted = set(config.option.peers.split(","))

    def parameters(item: pytest.Item) -> dict[str, Any]:
        return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}

    def place(item: pytest.Item) -> tuple[int, bool, int]:
        given = parameters(item)
        evicting = "turned_over" in getattr(item, "fixturenames", ())
        return given.get("entries", 0), evicting, given.get("turn", 0)

    items[:] = sorted(
        (item for item in items if parameters(item).get("name", "slabcache") in wanted), key=place
    )


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    versions = machine_info["versions"] = {}
    packages = [peer.package for peer in PEERS.values() if peer.package]
    for package in ["numpy", "pytest-benchmark", *packages]:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)


@pytest.fixture(scope="session", autouse=True)
def _no_collector() -> Iterator[None]:
    """The collector's cost is a question of its own; here it would fall on whoever happens to be measured."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def cut(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """A number of entries as it is, or small for a quick run."""
    quick = request.config.option.quick
    return lambda entries: min(entries, QUICK_ENTRIES) if quick else entries


@pytest.fixture(scope="session")
def keep() -> Keep:
    return Keep()


@pytest.fixture
def touched(
    request: pytest.FixtureRequest, cut: Callable[[int], int], keep: Keep
) -> Callable[[str, int], FullCache]:
    """A full cache whose entries have been read in random order."""
    seed = request.config.option.seed
    return lambda name, entries: keep(name, entries, lambda: FullCache(PEERS[name], cut(entries), seed))


@pytest.fixture
def turned_over(touched: Callable[[str, int], FullCache]) -> Callable[[str, int], FullCache]:
    """A full cache of which everything has been replaced since it was read in random order."""

    def get(name: str, entries: int) -> FullCache:
        full = touched(name, entries)
        full.turn_over()
        return full

    return get


@pytest.fixture
def clock(benchmark: BenchmarkFixture, turn: int, request: pytest.FixtureRequest) -> Clock:
    return Clock(benchmark, turn, request.config.option.quick)


@pytest.fixture
def record(benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Record facts that are no times. The function has measured them in a process of its own."""

    def run(function: Callable[..., dict[str, Any]], *arguments: Any, **facts: object) -> None:
        figures = benchmark.pedantic(isolated, (function, *arguments), rounds=1)
        benchmark.extra_info.update(figures, **facts)

    return run
