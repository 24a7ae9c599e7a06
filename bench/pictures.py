"""The pictures of docs/benchmarks.md, drawn from the results."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from . import tail_picture
from .peers import EVICTING, INSTALLED, PEERS
from .results import Results, Subject
from .sizes import LARGE, SIZES

#: Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ by their marks as well.
STYLES = {
    "slabcache": ("#0072B2", "o"),
    "dict": ("#000000", "s"),
    "cachebox": ("#CC79A7", "^"),
    "lru_dict": ("#E69F00", "v"),
    "lru_cache": ("#009E73", "D"),
    "ordered_dict": ("#D55E00", "P"),
    "cachetools": ("#8C6BB1", "X"),
    "moka": ("#56B4E9", "<"),
    "theine": ("#7F7F7F", ">"),
}
INK, GREY, RULE = "#222222", "#666666", "#E4E4E4"
DATA_BYTES = 36
LABEL_DISTANCE = 1.13  # the factor between two labels on a logarithmic axis, at least

Line = tuple[list[float], list[float]]


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
        labels = []
        for name, (colour, mark) in STYLES.items():
            line = line_by_size(results, test, name) if name in names else ([], [])
            if line[0]:
                width = 2.6 if name == "slabcache" else 1.4
                axes.plot(*line, color=colour, marker=mark, markersize=5, linewidth=width)
                labels.append((line, PEERS[name].label, colour))
        memory = line_by_size(results, "dependent_read", "dependent read")
        if memory[0]:
            axes.plot(*memory, color=GREY, linestyle="--", linewidth=1.4)
            labels.append((memory, "one dependent read\nof memory", GREY))
        axes.set(xscale="log", yscale="log", xlabel="entries")
        plain_numbers(axes, [10, 100, 1_000, 10_000])
        axes.set_title(f"ns for {title}", loc="left", color=INK)
        label_ends(axes, labels)
    figure.savefig(path)


def line_by_size(results: Results, test: str, name: str) -> Line:
    known = {entries: results.ns(Subject(test, name, entries)) for entries in SIZES}
    points = [(entries, figure.value) for entries, figure in known.items() if figure]
    return [entries for entries, _ in points], [value for _, value in points]


def label_ends(axes: Axes, labels: list[tuple[Line, str, str]]) -> None:
    """A name at the right end of each line, moved up where the one below is too near."""
    right = max(line[0][-1] for line, _, _ in labels) if labels else 1
    below = 0.0
    for line, text, colour in sorted(labels, key=lambda label: label[0][1][-1]):
        end = line[0][-1], line[1][-1]
        height = max(end[1], below * LABEL_DISTANCE)
        below = height * (LABEL_DISTANCE if "\n" in text else 1)
        axes.annotate(
            text,
            end,
            xytext=(right * 1.5, height),
            color=colour,
            fontsize=9,
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def draw_batch_rows(results: Results, path: Path) -> None:
    """Rows a second against the rows of a batch, with the scalar calls as the level to beat."""
    figure = Figure(figsize=(8, 5), dpi=160, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for test, scalar, label, colour, mark in (
        ("get_many_by_rows", "hit", "get_many", STYLES["slabcache"][0], "o"),
        ("put_many_by_rows", "evicting_write", "evicting put_many", STYLES["ordered_dict"][0], "s"),
    ):
        times = {subject.rows: results.ns(subject) for subject in results.times if subject.test == test}
        points = sorted((rows, 1e3 / figure.value) for rows, figure in times.items() if rows and figure)
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=colour, marker=mark, linewidth=2)
        end_of_line(axes, points[-1], label, colour)
        level = results.ns(Subject(scalar, "slabcache", LARGE))
        if level:
            axes.axhline(1e3 / level.value, color=colour, linestyle="--", linewidth=1.2)
            name = "cache[a, b]" if scalar == "hit" else "evicting cache[a, b] = value"
            end_of_line(axes, (points[-1][0], 1e3 / level.value), name, colour)
    axes.set(xscale="log", xlabel="rows of a batch", ylabel="million rows a second")
    axes.set_ylim(bottom=0)
    plain_numbers(axes, None)
    axes.set_title("Throughput of slabcache at 1,000,000 entries, one thread", loc="left", color=INK)
    figure.savefig(path)


def end_of_line(axes: Axes, end: tuple[float, float], text: str, colour: str) -> None:
    axes.annotate(
        text,
        end,
        xytext=(10, 0),
        textcoords="offset points",
        color=colour,
        verticalalignment="center",
        annotation_clip=False,
    )


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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if y_ticks:
        axes.set_yticks(y_ticks, [f"{tick:,}" for tick in y_ticks])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelleft=True)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
