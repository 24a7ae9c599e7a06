"""The pictures of docs/benchmarks.md, drawn from the results."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from measuring.palette import (
    AMBER,
    ASH,
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    PURPLE,
    SKY,
    tidy,
)

from . import tail_picture
from .peers import EVICTING, INSTALLED, PEERS
from .results import Results, Subject
from .sizes import LARGE, SIZES

#: Lines differ by their marks as well.
STYLES = {
    "slabcache": (BLUE, "o"),
    "dict": (BLACK, "s"),
    "cachebox": (PINK, "^"),
    "lru_dict": (AMBER, "v"),
    "lru_cache": (GREEN, "D"),
    "ordered_dict": (ORANGE, "P"),
    "objects": (BROWN, "*"),
    "cachetools": (PURPLE, "X"),
    "moka": (SKY, "<"),
    "theine": (ASH, ">"),
}
DATA_BYTES = 36
LINE_HEIGHT = 0.036  # of a label, as a share of the height of the axes

Line = tuple[list[float], list[float]]
Label = tuple[tuple[float, float], str, str]  # the end of a line, its name and colour


def draw(results: Results, folder: Path) -> None:
    """Draw all for which there are results."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_scaling(results, folder / "bench-scaling.png")
    draw_batch_rows(results, folder / "bench-batch-rows.png")
    draw_memory(results, folder / "bench-memory.png")
    tail_picture.draw(results, folder / "bench-latency.png")


def draw_scaling(results: Results, path: Path) -> None:
    """Cost of a call against size, hits and evictions side by side, and that of memory itself."""
    figure = Figure(figsize=(11, 5.6), dpi=160, facecolor="white", layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, test, title, names in (
        (panels[0], "hit", "a hit", INSTALLED),
        (panels[1], "evicting_write", "a write that evicts", EVICTING),
    ):
        labels: list[Label] = []
        for name, (colour, mark) in STYLES.items():
            line = line_by_size(results, test, name) if name in names else ([], [])
            if line[0]:
                width = 2.6 if name == "slabcache" else 1.4
                axes.plot(*line, color=colour, marker=mark, markersize=5, linewidth=width)
                labels.append(((line[0][-1], line[1][-1]), PEERS[name].label, colour))
        memory = line_by_size(results, "dependent_read", "dependent read")
        if memory[0]:
            axes.plot(*memory, color=GREY, linestyle="--", linewidth=1.4)
            labels.append(((memory[0][-1], memory[1][-1]), "one dependent read\nof memory", GREY))
        axes.set(xscale="log", yscale="log", xlabel="entries")
        plain_numbers(axes, [10, 100, 1_000, 10_000])
        axes.set_title(f"ns for {title}", loc="left", color=INK)
        label_ends(axes, labels)
    figure.savefig(path)


def line_by_size(results: Results, test: str, name: str) -> Line:
    known = {entries: results.ns(Subject(test, name, entries)) for entries in SIZES}
    points = [(entries, figure.value) for entries, figure in known.items() if figure]
    return [entries for entries, _ in points], [value for _, value in points]


def label_ends(axes: Axes, labels: list[Label]) -> None:
    """Names beside the right ends of lines, each moved up where the one below is too near."""
    places = axes.transScale + axes.transLimits
    below = -1.0
    for end, text, colour in sorted(labels, key=lambda label: label[0][1]):
        lines = 1 + text.count("\n")
        height = max(places.transform(end)[1], below + LINE_HEIGHT * (1 + lines) / 2)
        below = height + LINE_HEIGHT * (lines - 1) / 2
        axes.annotate(
            text,
            end,
            xytext=(1.04, height),
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def draw_batch_rows(results: Results, path: Path) -> None:
    """Rows a second against the rows of a batch, with the scalar calls as the level to beat."""
    figure = Figure(figsize=(8, 5), dpi=160, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    labels: list[Label] = []
    for test, scalar, label, colour, mark in (
        ("get_many_by_rows", "hit", "get_many", STYLES["slabcache"][0], "o"),
        ("put_many_by_rows", "evicting_write", "evicting put_many", STYLES["ordered_dict"][0], "s"),
    ):
        times = {subject.rows: results.ns(subject) for subject in results.times if subject.test == test}
        points = sorted((rows, 1e3 / figure.value) for rows, figure in times.items() if rows and figure)
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=colour, marker=mark, linewidth=2)
        labels.append((points[-1], label, colour))
        level = results.ns(Subject(scalar, "slabcache", LARGE))
        if level:
            axes.axhline(1e3 / level.value, color=colour, linestyle="--", linewidth=1.2)
            name = "cache[a, b]" if scalar == "hit" else "evicting cache[a, b] = value"
            labels.append(((points[-1][0], 1e3 / level.value), name, colour))
    axes.set(xscale="log", xlabel="rows of a batch", ylabel="million rows a second")
    axes.set_ylim(bottom=0)
    plain_numbers(axes, None)
    label_ends(axes, labels)
    axes.set_title("Throughput of slabcache at 1,000,000 entries, one thread", loc="left", color=INK)
    figure.savefig(path)


def draw_memory(results: Results, path: Path) -> None:
    """Bytes an entry, the fewest on top, and how many of them are data."""
    known = {
        name: results.fact(Subject("footprint", name, LARGE), "entry_resident_bytes") for name in EVICTING
    }
    bars = sorted(((figure.value, name) for name, figure in known.items() if figure), reverse=True)
    figure = Figure(figsize=(8, 0.42 * len(bars) + 1.2), dpi=160, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    places = range(len(bars))
    values = [value for value, _ in bars]
    ours, others = STYLES["slabcache"][0], "#B8B8B8"
    colours = [ours if name == "slabcache" else others for _, name in bars]
    axes.barh(places, values, color=colours, height=0.7)
    axes.axvline(DATA_BYTES, color=INK, linewidth=1)
    axes.annotate(
        f"{DATA_BYTES} bytes of data",
        (DATA_BYTES, 1),
        xycoords=("data", "axes fraction"),
        fontsize=9,
        xytext=(4, 2),
        textcoords="offset points",
        color=INK,
    )
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, f" {value:,.0f}", verticalalignment="center", color=INK)
    axes.set_yticks(places, [PEERS[name].label for _, name in bars])
    axes.tick_params(length=0)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.set_title("Bytes an entry, 1,000,000 entries", loc="left", color=INK, pad=18)
    figure.savefig(path)


def plain_numbers(axes: Axes, y_ticks: list[int] | None) -> None:
    """Numbers instead of powers of ten, and only as many lines as one needs."""
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    if y_ticks:
        axes.set_yticks(y_ticks, [f"{tick:,}" for tick in y_ticks])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelleft=True)
    axes.xaxis.set_minor_locator(NullLocator())
    tidy(axes, grid="both")


def short(value: float, _: object = None) -> str:
    return f"{value / 1e6:,.0f} M" if value >= 1e6 else f"{value:,.0f}"
