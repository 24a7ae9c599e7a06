"""The colours of pictures, and how their axes look."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from measuring.formats import duration

__all__ = [
    *("AMBER", "ASH", "BLACK", "BLUE", "BROWN", "GREEN", "ORANGE", "PINK", "PURPLE", "SKY"),
    *("GREY", "INK", "RULE", "latency_axis", "tidy"),
]

# Okabe and Ito's, which colour-blind readers can tell apart: slabcache is blue, Python objects are orange.
BLUE, ORANGE, AMBER, GREEN, SKY, PINK, BLACK = (
    *("#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7"),
    "#000000",
)
# For pictures that need more of them.
BROWN, PURPLE, ASH = "#7A3600", "#8C6BB1", "#7F7F7F"
# Words, remarks, lines of a grid, the edges of axes.
INK, GREY, RULE, EDGE = "#222222", "#666666", "#E4E4E4", "#AAAAAA"


def tidy(axes: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """Thin lines behind the data, no frame above and to the right."""
    axes.grid(axis=grid, color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(EDGE)
    axes.tick_params(colors=INK, labelsize=9, length=3)


def latency_axis(axis: Axis) -> None:
    """Logarithmic nanoseconds, with units on the ticks."""
    axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
