"""The pictures, as SVG that goes into a page: orange is the twin, blue is slabcache, in all of them."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from measuring.formats import duration
from measuring.palette import BLUE, GREY, INK, ORANGE, latency_axis, tidy
from read_states.load.histograms import add_up, distribution, share_above
from read_states.load.results import CacheRun, Results, Sample, ServiceRun
from read_states.load.schedule import Kind
from read_states.report.figures import (
    BYTES,
    SLAB,
    STALL,
    TWIN,
    bytes_in_service,
    fan_out_chances,
    hit_ratio,
    latency,
    over_time,
)

__all__ = ["draw_all"]

COLOURS = {SLAB: BLUE, TWIN: ORANGE}
NAMES = {SLAB: "slabcache", TWIN: "OrderedDict of objects"}
ORDER = (TWIN, SLAB)  # the later one is drawn above
WIDE, HALF = (10.6, 3.7), (5.2, 3.4)


def draw_all(results: Results) -> dict[str, str]:
    """Each picture by its name."""
    pictures = {
        "time": _over_time(results.services),
        "distribution": _distribution(results.services),
        "fan_out": _fan_out(results.services),
        "memory": _memory(results),
        "pauses": _pauses(results.services),
        "hits": _hits(results.services),
        "writes": _writes(results.services),
        "calls": _calls(results.caches),
    }
    return {name: _svg(figure, name) for name, figure in pictures.items()}


def _over_time(services: dict[str, ServiceRun]) -> Figure:
    figure = Figure(figsize=(WIDE[0], 4.6))
    axes = figure.add_subplot()
    for name in ORDER:
        p50, p99, p999, longest = (list(values) for values in zip(*over_time(services[name]), strict=True))
        seconds = [second + 0.5 for second in range(len(p50))]
        colour = COLOURS[name]
        axes.fill_between(seconds, p99, longest, color=colour, alpha=0.16, linewidth=0)
        axes.plot(seconds, longest, color=colour, linewidth=1, alpha=0.7, marker=".", markersize=3)
        axes.plot(seconds, p999, color=colour, linewidth=1.2, linestyle=(0, (4, 1.5)))
        axes.plot(seconds, p99, color=colour, linewidth=2.2, label=NAMES[name])
        axes.plot(seconds, p50, color=colour, linewidth=1.4, linestyle=(0, (1, 1.5)))
    latency_axis(axes.yaxis)
    _label(axes, "seconds of load", "latency")
    axes.set_xlim(0, max(len(run.timeline) for run in services.values()))
    for style, width, label in (
        ("-", 1, "maximum, at the edge of the shade"),
        ((0, (4, 1.5)), 1.2, "p99.9"),
        ("-", 2.2, "p99"),
        ((0, (1, 1.5)), 1.4, "median"),
    ):
        axes.plot([], [], color=GREY, linestyle=style, linewidth=width, label=label)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper center", ncols=6, frameon=False, fontsize=9)
    figure.subplots_adjust(left=0.075, right=0.99, top=0.9, bottom=0.11)
    return figure


def _distribution(services: dict[str, ServiceRun]) -> Figure:
    """Latency by percentile; each nine takes as much room as the one before."""
    figure = Figure(figsize=WIDE)
    axes = figure.add_subplot()
    rarest = 1.0
    for name in ORDER:
        slower, values = distribution(latency(services[name]))
        rarest = min([rarest, *(share for share in slower if share > 1e-9)])
        shares = [max(share, rarest / 2) for share in slower]
        axes.plot(shares, values, color=COLOURS[name], linewidth=2.2, label=NAMES[name])
    axes.set_xscale("log")
    axes.set_xlim(1, rarest / 2)
    axes.xaxis.set_major_locator(LogLocator(numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * (1 - share):.6g} %"))
    latency_axis(axes.yaxis)
    _label(axes, "of all requests were as fast as this, or faster", "latency")
    axes.legend(frameon=False, fontsize=10, loc="lower right")
    figure.subplots_adjust(left=0.075, right=0.98, top=0.97, bottom=0.14)
    return figure


def _fan_out(services: dict[str, ServiceRun]) -> Figure:
    """Chance of a stall by the number of calls: the arithmetic as lines, what was measured as dots."""
    figure = Figure(figsize=(WIDE[0], 4.8))
    axes = figure.add_subplot()
    widths = range(1, 101)
    axes.plot(widths, [1 - 0.99**n for n in widths], color=GREY, linestyle="--", label="1 - 0.99ⁿ")
    for name in ORDER:
        stalled = share_above(latency(services[name], [Kind.CALL]), STALL)
        axes.plot(
            widths,
            [1 - (1 - stalled) ** n for n in widths],
            color=COLOURS[name],
            linewidth=2.2,
            label=f"{NAMES[name]}: each call answered by another instance, {stalled:.2%} of them stalled",
        )
        chances = fan_out_chances(services[name])
        axes.plot(
            [chance.calls for chance in chances],
            [chance.stalled for chance in chances],
            "o",
            color=COLOURS[name],
            clip_on=False,
            label=f"{NAMES[name]}: measured, all calls to one instance",
        )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    _label(axes, "calls of a client that starts", f"slowest takes over {duration(STALL)}")
    axes.set_xlim(0, 101)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
    figure.subplots_adjust(left=0.075, right=0.98, top=0.7, bottom=0.12)
    return figure


def _memory(results: Results) -> Figure:
    full, twin = results.caches["full"], results.caches["twin"]
    rows = [
        (f"slabcache, {full.entries:,} records", full.growth / full.entries, BLUE),
        (f"objects, {twin.entries:,} records", twin.growth / twin.entries, ORANGE),
        ("slabcache, service just filled", bytes_in_service(results.services[SLAB]), BLUE),
        ("objects, service just filled", bytes_in_service(results.services[TWIN]), ORANGE),
    ]
    figure = Figure(figsize=HALF)
    axes = figure.add_subplot()
    labels, sizes, colours = zip(*reversed(rows), strict=True)
    bars = axes.barh(labels, sizes, color=colours, height=0.6)
    axes.bar_label(bars, [f"{size:.0f}" for size in sizes], padding=4, color=INK, fontsize=10)
    axes.axvline(BYTES, color=INK, linestyle="--", linewidth=1)
    axes.text(BYTES, 1.01, f"{BYTES} bytes", transform=axes.get_xaxis_transform(), ha="center", fontsize=9)
    _label(axes, "bytes a record", "")
    axes.set_xlim(0, 1.15 * max(sizes))
    figure.subplots_adjust(left=0.38, right=0.97, top=0.92, bottom=0.15)
    return figure


def _pauses(services: dict[str, ServiceRun]) -> Figure:
    """How many pauses of the collector were how long, during the load."""
    figure = Figure(figsize=HALF)
    axes = figure.add_subplot()
    for offset, name in ((-0.2, SLAB), (0.2, TWIN)):
        labels, counts = pause_counts(services[name])
        places = [place + offset for place in range(len(labels))]
        bars = axes.bar(places, counts, width=0.38, color=COLOURS[name], label=NAMES[name])
        axes.bar_label(bars, [f"{count:.0f}" if count else "" for count in counts], fontsize=8, color=INK)
        axes.set_xticks(range(len(labels)), labels)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, 2 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _label(axes, "pause of the collector, up to", "how many")
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    figure.subplots_adjust(left=0.15, right=0.98, top=0.92, bottom=0.2)
    return figure


def pause_counts(run: ServiceRun) -> tuple[list[str], list[float]]:
    """Pauses by their length, of all generations."""
    prefix = "read_states_gc_pause_seconds_bucket"
    first, last = run.samples[0].metrics, run.samples[-1].metrics
    totals: dict[float, float] = {}
    for name, value in last.items():
        if name.startswith(prefix):
            edge = float(name.removesuffix("}").rpartition("{")[2].replace("+Inf", "inf"))
            totals[edge] = totals.get(edge, 0.0) + value - first.get(name, 0.0)
    edges = sorted(totals)
    labels = ["more" if edge == float("inf") else duration(edge * 1e9).replace(" ", "\n") for edge in edges]
    return labels, [totals[edge] - (totals[edges[i - 1]] if i else 0) for i, edge in enumerate(edges)]


def _hits(services: dict[str, ServiceRun]) -> Figure:
    figure, axes = _samples(services, hit_ratio, "of the records asked for in memory")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    return figure


def _writes(services: dict[str, ServiceRun]) -> Figure:
    def rows(before: Sample, after: Sample) -> float:
        name = "slabcache_flushed_rows_total"
        return (after.metrics[name] - before.metrics[name]) / max(after.at - before.at, 0.1)

    figure, axes = _samples(services, rows, "rows written to the database a second")
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


def _samples(
    services: dict[str, ServiceRun],
    measure: Callable[[Sample, Sample], float],
    label: str,
) -> tuple[Figure, Axes]:
    """A figure between each two looks at the services, over time."""
    figure = Figure(figsize=HALF)
    axes = figure.add_subplot()
    for name in ORDER:
        samples = services[name].samples
        values = [measure(before, after) for before, after in itertools.pairwise(samples)]
        edges = [sample.at for sample in samples]
        axes.stairs(values, edges, color=COLOURS[name], linewidth=2, label=NAMES[name], baseline=None)
    _label(axes, "seconds of load", label)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.subplots_adjust(left=0.16, right=0.98, top=0.96, bottom=0.15)
    return figure, axes


def _calls(caches: dict[str, CacheRun]) -> Figure:
    """Time of a call without HTTP, by percentile."""
    figure = Figure(figsize=WIDE)
    axes = figure.add_subplot()
    rarest = 1.0
    for name, colour, style in (("twin", ORANGE, "-"), ("full", BLUE, "-"), ("empty", INK, "--")):
        run = caches[name]
        slower, values = distribution(add_up(run.working))
        shown = [(share, value) for share, value in zip(slower, values, strict=True) if share > 1e-9]
        rarest = min(rarest, shown[-1][0])
        label = f"{run.label}: {run.entries:,} records"
        axes.plot(*zip(*shown, strict=True), color=colour, linestyle=style, linewidth=2, label=label)
    axes.set_xscale("log")
    axes.set_xlim(1, rarest / 2)
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * (1 - share):.6g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    latency_axis(axes.yaxis)
    _label(axes, "of all calls were as fast as this, or faster", "processor's time of a call")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    figure.subplots_adjust(left=0.075, right=0.98, top=0.97, bottom=0.14)
    return figure


def _label(axes: Axes, below: str, beside: str) -> None:
    axes.set_xlabel(below, color=INK, labelpad=3)
    axes.set_ylabel(beside, color=INK)
    tidy(axes)


def _svg(figure: Figure, name: str) -> str:
    """The picture as an element of HTML; its name keeps its identifiers apart from those of the others."""
    output = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(output, format="svg", transparent=True, metadata={"Date": None})
    svg = output.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)  # as wide as the page lets it be
    return re.sub(r'<g id="[^"]*"', "<g", svg)
