"""What the suites have measured: reads pytest-benchmark's files and answers with medians and ratios."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

#: By the names of their files, bench/test_*.py.
SUITES = sorted(path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py"))
NOTE = "run.json"


class Subject(NamedTuple):
    """What was measured: a test, the cache or yardstick, the size, the rows of a batch."""

    test: str
    name: str
    entries: int
    rows: int | None = None
    skew: float | None = None


class Turn(NamedTuple):
    """When it was measured. Figures of one turn come from nearly the same time."""

    number_of_pass: int
    turn: int


@dataclass(frozen=True)
class Figure:
    """The median over all turns, and the range of the medians of the passes."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """What the runner did. It takes note of it in the folder of its results, when all is done."""

    quick: bool
    passes: int
    suites: list[str]
    commands: list[list[str]]

    def write(self, folder: Path) -> None:
        (folder / NOTE).write_text(json.dumps(asdict(self), indent=1))


class Results:
    """All figures of a run, and what was run, if it came to its end."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("pass-*.json"))}
        if not self.files:
            raise FileNotFoundError(f"there are no results in {folder}: run python -m bench")
        note = folder / NOTE
        self.run = Run(**json.loads(note.read_text())) if note.exists() else None
        self.times: dict[Subject, dict[Turn, float]] = defaultdict(dict)
        self.facts: dict[Subject, dict[Turn, dict[str, Any]]] = defaultdict(dict)
        for stem, file in self.files.items():
            number_of_pass = int(stem.split("-")[1])
            for benchmark in file["benchmarks"]:
                self._add(number_of_pass, benchmark)

    @property
    def machine(self) -> dict[str, Any]:
        """Processor, system, interpreter, versions, as noted by pytest-benchmark and the conftest."""
        first: dict[str, Any] = next(iter(self.files.values()))
        return {**first["machine_info"], "commit": first["commit_info"], "date": first["datetime"]}

    def _add(self, number_of_pass: int, benchmark: dict[str, Any]) -> None:
        info = benchmark["extra_info"]
        if "name" not in info:
            return
        test = benchmark["name"].partition("[")[0].removeprefix("test_")
        subject = Subject(test, info["name"], info["entries"], info.get("rows"), info.get("skew"))
        turn = Turn(number_of_pass, info.get("turn", 0))
        self.facts[subject][turn] = info
        if "operations" in info:
            self.times[subject][turn] = benchmark["stats"]["median"] / info["operations"] * 1e9

    def ns(self, subject: Subject, unit: float = 1) -> Figure | None:
        """Nanoseconds an operation, or another unit."""
        return _summary(self.times.get(subject, {}), unit)

    def fact(self, subject: Subject, what: str, unit: float = 1) -> Figure | None:
        """A figure that is no time of a round."""
        facts = self.facts.get(subject, {})
        return _summary({turn: info[what] for turn, info in facts.items() if what in info}, unit)

    def ratio(self, one: Subject, other: Subject) -> Figure | None:
        """How many times as long `one` takes as `other`, compared turn by turn."""
        ones, others = self.times.get(one, {}), self.times.get(other, {})
        return _summary({turn: ones[turn] / others[turn] for turn in ones.keys() & others.keys()})

    def fastest(self, test: str, entries: int, names: list[str]) -> list[str]:
        """Those of the names that were measured, fastest first."""
        times = {name: self.ns(Subject(test, name, entries)) for name in names}
        known = {name: figure.value for name, figure in times.items() if figure}
        return sorted(known, key=known.__getitem__)


def _summary(figures: dict[Turn, float], unit: float = 1) -> Figure | None:
    by_pass: dict[int, list[float]] = defaultdict(list)
    for turn, figure in figures.items():
        by_pass[turn.number_of_pass].append(figure / unit)
    if not by_pass:
        return None
    medians = [median(of_one) for of_one in by_pass.values()]
    return Figure(median(figure / unit for figure in figures.values()), min(medians), max(medians))
