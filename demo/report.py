"""The table, what a reader must know to trust it, and the raw results."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from measuring.formats import duration
from measuring.machine import machine

from .contenders import CONTENDERS
from .service import BATCH, CYCLE_EVERY, Run
from .summary import Summary, windows

#: Above this share of its time at work, a contender mostly measures the queue before it.
OVERLOAD = 0.9

PACKAGES = "slabcache", "lru-dict"  # what is compared
WIDTH = 122
LABEL_WIDTH = 23
COLUMNS = (  # two lines of heading, width
    ("requests", "/ s", 9),
    ("latency", "p50", 8),
    ("", "p99", 8),
    ("", "p99.9", 8),
    ("", "p99.99", 8),
    ("longest", "pause", 8),
    ("longest", "working", 8),
    ("pauses", "> 1 ms", 7),
    ("longest", "no GC", 8),
    ("in the", "GC", 8),
    ("full", "GCs", 5),
    ("bytes", "/ entry", 8),
    ("hit", "ratio", 7),
)


class AnswersDifferError(Exception):
    """The contenders did not serve the same records: the comparison is void."""


@dataclass(frozen=True)
class Conditions:
    """What all runs had in common. interval: nanoseconds between requests; steal: share of CPU time."""

    entries: int
    interval: int
    description: list[str]
    timer_cost: float
    steal: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return 1e9 / self.interval


def check_answers(runs: Mapping[str, Run]) -> None:
    """Raise unless all caches served the same records in the same order, with the same misses."""
    answers = {name: (run.misses, run.digest) for name, run in runs.items() if CONTENDERS[name].caches}
    if len(set(answers.values())) > 1:
        raise AnswersDifferError(f"the caches gave different answers (misses, digest): {answers}")


def table(summaries: Mapping[str, Summary]) -> str:
    """One line for each contender."""
    first, second, _ = zip(*COLUMNS, strict=True)
    lines = [_row("", first), _row("", second), "-" * WIDTH]
    for name, summary in summaries.items():
        caches = CONTENDERS[name].caches
        cells = [
            f"{summary.throughput:,.0f}",
            *(duration(percentile) for percentile in summary.percentiles),
            duration(summary.longest),
            duration(summary.longest_working),
            str(summary.pauses),
            duration(summary.longest_quiet),
            duration(summary.collecting),
            str(summary.full_collections),
            f"{summary.bytes_per_entry:,.0f}" if caches else "-",
            f"{summary.hit_ratio:.4f}" if caches else "-",
        ]
        lines.append(_row(CONTENDERS[name].label, cells))
    return "\n".join(lines)


def footer(conditions: Conditions, runs: Mapping[str, Run], summaries: Mapping[str, Summary]) -> str:
    """What was measured, how, and on what."""
    switches = [run.involuntary_switches for run in runs.values()]
    caches = sum(contender.caches for contender in CONTENDERS.values())
    lines = [
        f"Same requests in the same order: the {caches} caches are checked to have served the same "
        "records, with the same hits and misses.",
        *conditions.description,
        f"{conditions.entries:,} entries; {conditions.rate:,.0f} requests a second, one in ten a write; "
        f"garbage in bursts of {BATCH:,} requests, a reference cycle in one of {CYCLE_EVERY}. What is "
        "imported is frozen out of the collector's sight in all runs.",
        "Latency: from when a request was due, so waiting behind a pause counts. Pause: from when it "
        "could start (due, and the one before it done) to its end. Working: the longest without the time "
        "the system gave to others; the rest is the machine. Requests / s: per second of work.",
        "Longest no GC: the longest working pause with no collection in it, such as a rehash. Bytes / "
        "entry: growth of resident memory, from before the fill to the end.",
        "Full GCs: due when a quarter as much is new as is tracked already. With little tracked they come "
        "often, and have little to walk.",
        f"Timer: {conditions.timer_cost:.0f} ns a call; each latency has one in it. The system took the "
        f"processor away {min(switches)} to {max(switches)} times a run; steal {conditions.steal:.1%}.",
        machine(*PACKAGES),
    ]
    lines += [
        f"CAUTION: {CONTENDERS[name].label} was busy {summary.load:.0%} of the time, so its latency is "
        "mostly queueing. Lower --rate to see the pauses alone."
        for name, summary in summaries.items()
        if summary.load > OVERLOAD
    ]
    lines += [
        f"NOTE: {CONTENDERS[name].label}: no full collection fell into this run. It is put off, not made "
        "shorter."
        for name, summary in summaries.items()
        if summaries["floor"].full_collections and not summary.full_collections
    ]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def takeaway(summaries: Mapping[str, Summary]) -> str:
    """One sentence, made of the figures alone."""
    objects, slab, floor = (summaries[name] for name in ("objects", "slabcache", "floor"))
    others = [name for name, contender in CONTENDERS.items() if contender.caches and name != "slabcache"]
    # A full collection put off beyond the end of the run is none avoided.
    others = [name for name in others if summaries[name].full_collections] or others
    best = min(others, key=lambda name: summaries[name].longest_working)
    sentence = (
        f"Longest pause (by the clock / working): {_pauses(objects)} with Python objects, "
        f"{_pauses(summaries[best])} with the best of the others ({CONTENDERS[best].label}), "
        f"{_pauses(slab)} with slabcache, {_pauses(floor)} with no cache at all. An entry takes "
        f"{objects.bytes_per_entry:.0f}, {summaries[best].bytes_per_entry:.0f} and "
        f"{slab.bytes_per_entry:.0f} bytes."
    )
    return textwrap.fill(sentence, WIDTH)


def write_raw(
    path: Path,
    conditions: Conditions,
    runs: Mapping[str, Run],
    summaries: Mapping[str, Summary],
    window_count: int,
) -> None:
    """Write all figures, the series behind the picture and each collection as JSON, in nanoseconds."""
    contenders: dict[str, Any] = {}
    for name, run in runs.items():
        series = windows(run, conditions.interval, window_count)
        contenders[name] = {
            "label": CONTENDERS[name].label,
            "summary": asdict(summaries[name]),
            "requests": len(run.ended),
            "misses": run.misses,
            "digest": run.digest,
            "involuntary_switches": run.involuntary_switches,
            "windows": {key: values.tolist() for key, values in asdict(series).items()},
            "collections": [run.collections[i : i + 3].tolist() for i in range(0, len(run.collections), 3)],
        }
    document = {"machine": machine(*PACKAGES), "conditions": asdict(conditions), "contenders": contenders}
    path.write_text(json.dumps(document, indent=1) + "\n")


def timer_cost() -> float:
    """What reading the clock costs: the median of two calls back to back, in nanoseconds."""
    differences = []
    for _ in range(10_001):
        first = perf_counter_ns()
        differences.append(perf_counter_ns() - first)
    return statistics.median(differences)


def cpu_times() -> tuple[int, int]:
    """Ticks stolen by the hypervisor, and all ticks, since the start; zeros where nothing tells."""
    try:
        ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0, 0
    return ticks[7], sum(ticks)


def _pauses(summary: Summary) -> str:
    return f"{duration(summary.longest)} / {duration(summary.longest_working)}"


def _row(label: str, cells: Iterable[str]) -> str:
    return label.ljust(LABEL_WIDTH) + "".join(
        cell.rjust(width) for cell, (_, _, width) in zip(cells, COLUMNS, strict=True)
    )
