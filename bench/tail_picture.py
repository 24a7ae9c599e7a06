"""The picture of `test_latency`: how long a service's requests take, by the share that takes longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from measuring.formats import duration
from measuring.palette import AMBER, BLUE, GREY, ORANGE, PINK, latency_axis, tidy

from .results import Results, Subject
from .sizes import LARGE

#: In the order of their right ends.
LINES = {
    "objects": ("OrderedDict of objects", ORANGE, "-"),
    "cachebox": ("cachebox, flat tuples", PINK, "-"),
    "lru_dict": ("lru-dict, flat tuples", AMBER, "-"),
    "slabcache": ("slabcache", BLUE, "-"),
    "none": ("no cache at all", GREY, "--"),
}
PERCENTILES = {0.3: "50", 1.0: "90", 2.0: "99", 3.0: "99.9", 4.0: "99.99", 5.0: "99.999"}
LONGEST = 5.5  # where the longest request is drawn, which is at no percentile


def draw(results: Results, path: Path) -> None:
    """Draw a PNG, if there was such a test."""
    for facts in results.facts.get(Subject("latency", "slabcache", LARGE), {}).values():
        _draw(facts["tails"], facts["nines"], path)


def _draw(tails: Mapping[str, Mapping[str, Any]], nines: Sequence[float], path: Path) -> None:
    figure = Figure(figsize=(9, 5.4), dpi=160, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    # Beyond the last percentile that has some requests behind it, there is only chance.
    some = [place for place, nine in enumerate(nines) if min(PERCENTILES) <= nine <= max(PERCENTILES)]
    for name, (label, colour, style) in LINES.items():
        if name in tails:
            durations = tails[name]["request_ns"]
            label += f", longest {duration(durations[-1])}"
            line = [durations[place] for place in some]
            axes.plot([nines[place] for place in some], line, style, color=colour, linewidth=2, label=label)
            axes.plot([max(PERCENTILES), LONGEST], [line[-1], durations[-1]], ":", color=colour)
            filled = "full" if style == "-" else "none"  # two of them may coincide
            axes.plot(
                LONGEST, durations[-1], "o", color=colour, fillstyle=filled, markersize=8, clip_on=False
            )
    latency_axis(axes.yaxis)
    axes.set_xticks([*PERCENTILES, LONGEST], [*PERCENTILES.values(), "longest"])
    axes.set_xlim(min(PERCENTILES), LONGEST)
    axes.set_xlabel("percentile of the requests")
    axes.set_ylabel("duration of a request, collections included")
    axes.set_title("A service's requests with its cache full at 1,000,000 entries", loc="left")
    tidy(axes, grid="both")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path)
