"""The picture: p99 and maximum of the latency per window of time, the heartbeat and the flat line."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from measuring.formats import duration
from measuring.palette import BLUE, GREY, INK, ORANGE, latency_axis, tidy

from .contenders import CONTENDERS
from .report import Conditions
from .service import Run
from .summary import Summary, Windows, full_collections, windows

#: The panels below the main one, row by row; the last place is for the legend.
OTHERS = ("thresholds", "ballast", "freeze", "tuples", "lru_dict", "lru_freeze", "floor")
PANELS_IN_ROW = 4

#: A collection or rehash that took longer than this, in nanoseconds, is marked.
MARKED = 10_000_000


def draw(
    path: Path,
    runs: Mapping[str, Run],
    summaries: Mapping[str, Summary],
    conditions: Conditions,
    window_count: int,
) -> None:
    """Draw a PNG: heartbeat and flat line above, the other contenders below, all on the same axes."""
    series = {name: windows(run, conditions.interval, window_count) for name, run in runs.items()}
    figure = Figure(figsize=(11, 8.4), dpi=160, facecolor="white")
    grid = figure.add_gridspec(
        3,
        PANELS_IN_ROW,
        height_ratios=(2.2, 1, 1),
        left=0.08,
        right=0.985,
        top=0.855,
        bottom=0.065,
        hspace=0.52,
        wspace=0.07,
    )
    main = figure.add_subplot(grid[0, :])
    _set_axes(main, series)
    for name, colour in (("objects", ORANGE), ("slabcache", BLUE)):
        _draw_series(main, series[name], colour, 2)
        _mark_collections(main, runs[name], colour)
    _label_main(main, summaries)
    _draw_panels(figure, grid, main, series, runs, summaries)
    _write_titles(figure, series["objects"], summaries, conditions)
    figure.savefig(path)


def _draw_panels(
    figure: Figure,
    grid: GridSpec,
    main: Axes,
    series: Mapping[str, Windows],
    runs: Mapping[str, Run],
    summaries: Mapping[str, Summary],
) -> None:
    """The small panels: each of the other contenders, with slabcache's p99 to compare."""
    for position, name in enumerate(OTHERS):
        row, column = divmod(position, PANELS_IN_ROW)
        axes = figure.add_subplot(grid[row + 1, column], sharex=main, sharey=main)
        colour = GREY if name == "floor" else ORANGE
        _draw_series(axes, series[name], colour, 1.3)
        _mark_collections(axes, runs[name], colour)
        axes.plot(series["slabcache"].time, series["slabcache"].p99, color=BLUE, linewidth=1)
        axes.set_title(
            f"{CONTENDERS[name].label}\nlongest pause {duration(summaries[name].longest_working)}",
            fontsize=9.5,
            loc="left",
            color=INK,
        )
        axes.tick_params(labelleft=column == 0, labelbottom=position + PANELS_IN_ROW > len(OTHERS) - 1)
    legend = figure.add_subplot(grid[2, PANELS_IN_ROW - 1])
    legend.set_axis_off()
    explained = (
        "line: p99\nshade: up to the maximum\n▼ collection over 10 ms\n\nblue in each panel:\nslabcache's p99"
    )
    legend.text(0.1, 0.95, explained, va="top", fontsize=9.5, color=GREY, linespacing=1.45)


def _set_axes(axes: Axes, series: Mapping[str, Windows]) -> None:
    """Logarithmic latency, the same for all panels, with units on the ticks."""
    latency_axis(axes.yaxis)
    lowest = min(part.p99.min() for part in series.values())
    highest = max(part.maximum.max() for part in series.values())
    axes.set_ylim(lowest / 3, highest * 5)
    axes.set_xlim(0, series["objects"].time[-1] + series["objects"].time[0])
    axes.set_ylabel("latency of a request", color=INK)
    axes.set_xlabel("seconds since the first request", color=INK, labelpad=1)


def _draw_series(axes: Axes, part: Windows, colour: str, width: float) -> None:
    """The p99 as a line, and a shade from it up to the maximum."""
    axes.fill_between(part.time, part.p99, part.maximum, color=colour, alpha=0.25, linewidth=0)
    axes.plot(part.time, part.p99, color=colour, linewidth=width, solid_joinstyle="round")
    tidy(axes)


def _mark_collections(axes: Axes, run: Run, colour: str) -> None:
    """A triangle above each long full collection."""
    full = full_collections(run)
    long = full[full[:, 1] - full[:, 0] > MARKED]
    above = axes.get_xaxis_transform()
    axes.plot(long[:, 0] / 1e9, [0.96] * len(long), "v", color=colour, markersize=4, transform=above)


def _label_main(axes: Axes, summaries: Mapping[str, Summary]) -> None:
    """Name the two lines, and the rehash when there is one."""
    for name, who, height, colour in (
        ("objects", "Python objects in an OrderedDict", 1.02, ORANGE),
        ("slabcache", "slabcache", 0.035, BLUE),
    ):
        summary = summaries[name]
        times = (
            f"{summary.full_collections} full collections, {duration(summary.collecting)} in the collector"
        )
        axes.text(0.006, height, f"{who}: {times}", transform=axes.transAxes, color=colour, fontweight="bold")
    objects = summaries["objects"]
    if objects.longest_quiet > MARKED:
        axes.text(
            objects.quiet_at / 1e9,
            0.955,
            "the dict\nis rehashed ",
            transform=axes.get_xaxis_transform(),
            color=ORANGE,
            fontsize=9,
            ha="right",
            va="center",
        )


def _write_titles(
    figure: Figure, part: Windows, summaries: Mapping[str, Summary], conditions: Conditions
) -> None:
    objects, slab = (duration(summaries[name].longest_working) for name in ("objects", "slabcache"))
    disturbed = summaries["slabcache"].longest > 3 * summaries["slabcache"].longest_working
    remark = (
        "The machine was busy with other work meanwhile, and the lines show it: repeat this on a quiet one."
        if disturbed
        else "Pauses in words are without the time that the system gave to other processes; "
        "the lines have it in them."
    )
    figure.text(
        0.015,
        0.96,
        f"Longest pause: {objects} with a cache of Python objects, {slab} with slabcache",
        fontsize=15,
        fontweight="bold",
        color=INK,
    )
    figure.text(
        0.015,
        0.918,
        f"Read States: {conditions.entries:,} entries, {conditions.rate:,.0f} requests a second, one "
        f"process, Python {platform.python_version()}; windows of {2e3 * part.time[0]:.0f} ms.\n{remark}",
        fontsize=10.5,
        color=GREY,
        va="center",
        linespacing=1.4,
    )
