"""Figures as Markdown: times, verdicts on slabcache, gaps and collections, what a policy keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

from bench.bars import verdict
from measuring.pages import table

BATCH, SCALAR = "slabcache batch", "slabcache scalar"
MAP_LIST = "go map-list"
QUICK_CACHE = "quick_cache"
LRU, LRU_FX = "lru", "lru-fx"
LABELS = {
    BATCH: "slabcache, batches",
    SCALAR: "slabcache, scalar calls",
    MAP_LIST: "Go, map and list",
    LRU: "Rust, lru",
    LRU_FX: "Rust, lru with rustc-hash",
    QUICK_CACHE: "Rust, quick_cache",
}
BAR_FROM = 100_000  # entries: the bars are about caches of this size and larger
QUICK_CACHE_BAR_FROM = 10_000_000
OPERATIONS = {"hit": "hit", "write": "evicting write"}

Line = dict[str, Any]  # one object that a program printed, with its `subject` and `repeat`


@dataclass(frozen=True)
class Claim:
    """`ours` is faster than `theirs`: the ratio of times is to be at most `bar`, if any, better `aim`."""

    operation: str
    ours: str
    theirs: str
    bar: float | None
    aim: float
    entries_from: int = BAR_FROM


CLAIMS = [
    *[Claim("hit", BATCH, theirs, 1.0, 0.5) for theirs in (MAP_LIST, LRU, LRU_FX)],
    Claim("hit", BATCH, QUICK_CACHE, 1.0, 0.5, QUICK_CACHE_BAR_FROM),
    *[Claim("write", BATCH, theirs, 1.0, 0.5) for theirs in (MAP_LIST, LRU, LRU_FX, QUICK_CACHE)],
    *[Claim(operation, SCALAR, MAP_LIST, None, 1.0) for operation in OPERATIONS],
]


class Figures:
    """Medians over the repeats of all lines; `rows` are behind each time."""

    def __init__(self, lines: Iterable[Line], rows: int) -> None:
        self.lines = list(lines)
        self.rows = rows
        self.subjects = [name for name in LABELS if any(line["subject"] == name for line in self.lines)]
        self.sizes = sorted({line["entries"] for line in self.lines})

    def median(self, subject: str, operation: str, entries: int, name: str, unit: float) -> float | None:
        """Of the figure of that name, in a unit; None where it is not known."""
        wanted = subject, operation, entries
        known = [
            line[name] / unit
            for line in self.lines
            if (line["subject"], line["operation"], line["entries"]) == wanted and line.get(name) is not None
        ]
        return median(known) if known else None

    def row_ns(self, subject: str, operation: str, entries: int) -> float | None:
        return self.median(subject, operation, entries, "cpu_ns", self.rows)


def report(figures: Figures) -> list[str]:
    """All tables, without the notes."""
    return [*_times(figures), "", *_verdicts(figures), "", *_gaps(figures), *_policies(figures)]


def _times(figures: Figures) -> list[str]:
    columns = [(operation, entries) for operation in OPERATIONS for entries in figures.sizes]
    header = ["ns an operation", *[f"{OPERATIONS[operation]}, {_size(n)}" for operation, n in columns]]
    rows = [
        [LABELS[name], *[_cell(figures.row_ns(name, *it)) for it in columns]] for name in figures.subjects
    ]
    return table(header, rows)


def _verdicts(figures: Figures) -> list[str]:
    """The worst ratio of each claim over the sizes that it is about."""
    rows = []
    for claim in CLAIMS:
        ratios = list(_ratios(figures, claim))
        if ratios:
            worst, entries = max(ratios)
            what = [LABELS[claim.ours], OPERATIONS[claim.operation], LABELS[claim.theirs]]
            limits = ["-" if claim.bar is None else f"{claim.bar:.2f}", f"{claim.aim:.2f}"]
            found = verdict(worst, claim.bar, claim.aim)
            rows.append([*what, f"{worst:.2f} at {_size(entries)}", *limits, found])
    return table(["what", "operation", "against", "worst ratio", "bar", "aim", "verdict"], rows)


def _ratios(figures: Figures, claim: Claim) -> Iterable[tuple[float, int]]:
    for entries in figures.sizes:
        ours = figures.row_ns(claim.ours, claim.operation, entries)
        theirs = figures.row_ns(claim.theirs, claim.operation, entries)
        if entries >= claim.entries_from and ours and theirs:
            yield ours / theirs, entries


def _gaps(figures: Figures) -> list[str]:
    """How long the program of each subject stands still, and what its collector takes, if it has one."""
    header = [
        "while everything is replaced once",
        "entries",
        "longest gap between writes, ms",
        "longest pause of the collector, ms",
        "a full collection, ms",
        "CPU of that on all cores, ms",
    ]
    rows = []
    for name, entries in product(figures.subjects, figures.sizes):
        cells = [
            figures.median(name, "turnover", entries, "longest_gap_ns", 1e6),
            figures.median(name, "turnover", entries, "longest_pause_ns", 1e6),
            figures.median(name, "collection", entries, "wall_ns", 1e6),
            figures.median(name, "collection", entries, "process_cpu_ns", 1e6),
        ]
        if name != BATCH:  # a call is all that it can be interrupted between
            rows.append([LABELS[name], f"{entries:,}", *map(_cell, cells)])
    return table(header, rows)


def _policies(figures: Figures) -> list[str]:
    """What is no LRU need not keep what an LRU keeps, and then it has less to do."""
    lines = []
    for entries in figures.sizes:
        hits = figures.median(QUICK_CACHE, "hit", entries, "found", figures.rows)
        kept = figures.median(QUICK_CACHE, "write", entries, "found", min(figures.rows, entries))
        if hits is not None and kept is not None:
            lines.append(
                f"- {_size(entries)} entries: {hits:.1%} of the keys read, {kept:.1%} of the latest written"
            )
    return ["", "What quick_cache, which is no LRU, had:", "", *lines] if lines else []


def _cell(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.{2 if figure < 1 else 1 if figure < 10 else 0}f}"


def _size(entries: int) -> str:
    """10 M for ten million."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if entries >= unit and entries % unit == 0:
            return f"{entries // unit} {letter}"
    return f"{entries:,}"
