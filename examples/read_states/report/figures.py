"""From results to numbers, and the bars with their verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from measuring.formats import duration
from read_states.load.histograms import add_up, percentile, share_above
from read_states.load.results import CacheRun, Results, Sample, ServiceRun
from read_states.load.schedule import FAN_OUTS, Kind

__all__ = [
    "Bar",
    "FanOutChance",
    "bars",
    "count",
    "fan_out_chances",
    "latency",
    "of_turns",
    "over_time",
]

SLAB, TWIN = "slabcache", "objects"
PERCENTILES = (50.0, 99.0, 99.9, 100.0)
STALL = 100_000_000  # nanoseconds: from here on a person feels it
EMPTY_FACTOR = 1.5  # p99.9 of a full cache, beside that of an empty one
PAUSE_FACTOR = 1.5  # the same for the longest pause of the collector
TWIN_FACTOR = 0.5  # p99.9 beside the twin's
BYTES = 56  # a record: 70 % of the 80 bytes of the struct in the story


@dataclass(frozen=True)
class Bar:
    """What was demanded, what came out, and what else is to be seen beside it."""

    demand: str
    outcome: str
    beside: str
    held: bool

    @property
    def verdict(self) -> str:
        return "held" if self.held else "missed"


@dataclass(frozen=True)
class FanOutChance:
    """Chances that the slowest of `calls` is slow.

    beyond: than the p99 of single calls, measured; `independent` is the same, were they independent.
    stalled: than STALL, measured on one instance. spread: were each call answered by another instance.
    """

    calls: int
    fan_outs: int
    beyond: float
    independent: float
    stalled: float
    spread: float
    median: float


def latency(run: ServiceRun, kinds: Iterable[str] = Kind) -> Any:
    """The histogram of all requests of some kinds."""
    chosen = set(kinds)
    return add_up(code for second in run.timeline for kind, code in second.items() if kind in chosen)


def over_time(run: ServiceRun) -> list[list[float]]:
    """PERCENTILES of each second, in nanoseconds."""
    histograms = [add_up(second.values()) for second in run.timeline]
    return [[percentile(histogram, percent) for percent in PERCENTILES] for histogram in histograms]


def of_turns(run: CacheRun, percent: float) -> float:
    """The median of its turns, in nanoseconds: what disturbs the machine for a while is in few of them."""
    return statistics.median(percentile(add_up([turn]), percent) for turn in run.working)


def count(run: ServiceRun, name: str) -> float:
    """By how much a figure of the service grew during the load."""
    return run.samples[-1].metrics.get(name, 0.0) - run.samples[0].metrics.get(name, 0.0)


def hit_ratio(before: Sample, after: Sample) -> float:
    """Which part of what was asked for was in memory: in a full cache, each record that was not evicts one.

    The two services do not count hits in the same way: slabcache leaves out those of mentions.
    """
    name = "slabcache_evictions_total"
    loaded = after.metrics.get(name, 0.0) - before.metrics.get(name, 0.0)
    return 1 - loaded / max(after.asked - before.asked, 1)


def collecting(run: ServiceRun) -> float:
    """Nanoseconds in the collector during the load."""
    return 1e9 * sum(
        count(run, f"read_states_gc_pause_seconds_sum{{{generation}}}") for generation in range(3)
    )


def longest_pause(run: ServiceRun) -> float:
    """Of the collector, since the process began, in nanoseconds."""
    return 1e9 * run.samples[-1].metrics.get("read_states_gc_longest_pause_seconds", 0.0)


def bytes_in_service(run: ServiceRun) -> float:
    """Growth of resident memory while the service was filled, for each record."""
    before, after = run.empty.metrics, run.samples[0].metrics
    name = "process_resident_memory_bytes"
    return (after.get(name, 0.0) - before.get(name, 0.0)) / max(after.get("slabcache_size", 0.0), 1.0)


def long_collection(run: CacheRun) -> int:
    """The third longest: what disturbs the machine is in one or two, a cache to walk in each full one."""
    return min(sorted(run.pauses)[-3:], default=0)


def fan_out_chances(run: ServiceRun) -> list[FanOutChance]:
    calls = latency(run, [Kind.CALL])
    stalled, p99 = share_above(calls, STALL), percentile(calls, 99)
    chances = []
    for width in FAN_OUTS:
        slowest = [fan_out.slowest for fan_out in run.fan_outs if fan_out.calls == width]
        if slowest:
            chances.append(
                FanOutChance(
                    width,
                    len(slowest),
                    sum(time > p99 for time in slowest) / len(slowest),
                    1 - 0.99**width,
                    sum(time > STALL for time in slowest) / len(slowest),
                    1 - (1 - stalled) ** width,
                    statistics.median(slowest),
                )
            )
    return chances


def bars(results: Results) -> list[Bar]:
    slab, twin = results.services[SLAB], results.services[TWIN]
    full, empty, objects = (results.caches[name] for name in ("full", "empty", "twin"))
    here, there, beside = (of_turns(run, 99.9) for run in (full, empty, objects))
    pause, empty_pause, twin_pause = (long_collection(run) for run in (full, empty, objects))
    rate, twin_rate = (statistics.median(run.throughput) for run in (slab, twin))
    slow, twin_slow = (percentile(latency(run), 99.9) for run in (slab, twin))
    size, twin_size = (run.growth / run.entries for run in (full, objects))
    return [
        Bar(
            f"Without HTTP: p99.9 of a call with {full.entries:,} records at most {EMPTY_FACTOR} times that "
            "of a cache that is all but empty",
            f"{duration(here)}; {duration(there)} when empty: {here / there:.2f} times; medians of "
            f"{len(full.working)} turns",
            f"twin, {objects.entries:,} records: {duration(beside)}",
            here <= EMPTY_FACTOR * there,
        ),
        Bar(
            "Without HTTP: no pause that the collector makes because of the cache: the third longest at "
            f"most {PAUSE_FACTOR} times that with an empty one, and no object more for it to walk",
            f"{duration(pause)} and {full.tracked:,} objects; when empty {duration(empty_pause)} and "
            f"{empty.tracked:,}",
            f"twin: {duration(twin_pause)}; {objects.tracked:,} objects",
            pause <= PAUSE_FACTOR * empty_pause and full.tracked <= empty.tracked + full.entries // 10_000,
        ),
        Bar(
            "Through HTTP: throughput not below the twin's",
            f"{rate:,.0f} requests a second",
            f"twin: {twin_rate:,.0f}",
            rate >= twin_rate,
        ),
        Bar(
            f"Through HTTP: p99.9 with {results.conditions.capacity:,} records at most half of the twin's",
            f"{duration(slow)}: {slow / twin_slow:.2f} of it",
            f"twin: {duration(twin_slow)}",
            slow <= TWIN_FACTOR * twin_slow,
        ),
        Bar(
            f"Memory: at most {BYTES} bytes a record, all included",
            f"{size:.1f} bytes; {full.filled / full.entries:.1f} before the first write",
            f"twin: {twin_size:.0f} bytes; {objects.filled / objects.entries:.0f} before",
            size <= BYTES,
        ),
    ]
