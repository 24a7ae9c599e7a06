"""What the suites have measured: reads pytest-benchmark's files and answers with medians and ratios."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


class Subject(NamedTuple):
    """What was measured: a test, the cache or whatever else went through it, the size, the rows of a batch."""

    test: str
    name: str
    entries: int
    rows: int | None = None


class Turn(NamedTuple):
    """When it was measured. Figures of one turn come from one process and nearly the same time."""

    number_of_pass: int
    turn: int


@dataclass(frozen=True)
class Ratio:
    """The median over turns, and the range of the medians of the passes."""

    value: float
    low: float
    high: float


class Results:
    """All figures of a run."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("pass-*.json"))}
        if not self.files:
            raise FileNotFoundError(f"there are no results in {folder}")
        self.times: dict[Subject, dict[Turn, float]] = defaultdict(dict)
        self.facts: dict[Subject, list[dict[str, Any]]] = defaultdict(list)
        for number, file in enumerate(self.files.values()):
            for benchmark in file["benchmarks"]:
                self._add(number, benchmark)

    @property
    def machine(self) -> dict[str, Any]:
        """Processor, system, interpreter and versions, as pytest-benchmark and the conftest have noted them."""
        first: dict[str, Any] = next(iter(self.files.values()))
        return {**first["machine_info"], "commit": first["commit_info"]}

    def _add(self, number_of_pass: int, benchmark: dict[str, Any]) -> None:
        info = benchmark["extra_info"]
        if "name" not in info:
            return
        test = benchmark["name"].partition("[")[0].removeprefix("test_")
        subject = Subject(test, info["name"], info["entries"], info.get("rows"))
        self.facts[subject].append(info)
        if "operations" in info:
            nanoseconds = benchmark["stats"]["median"] / info["operations"] * 1e9
            self.times[subject][Turn(number_of_pass, info["turn"])] = nanoseconds

    def ns(self, subject: Subject) -> float | None:
        """Nanoseconds an operation."""
        times = self.times.get(subject)
        return median(times.values()) if times else None

    def fact(self, subject: Subject, what: str) -> float | None:
        """A figure that is no time of a round."""
        known = [facts[what] for facts in self.facts.get(subject, []) if what in facts]
        return median(known) if known else None

    def ratio(self, one: Subject, other: Subject) -> Ratio | None:
        """How many times as long `one` takes as `other`, compared turn by turn."""
        ones, others = self.times.get(one, {}), self.times.get(other, {})
        by_pass: dict[int, list[float]] = defaultdict(list)
        for turn in ones.keys() & others.keys():
            by_pass[turn.number_of_pass].append(ones[turn] / others[turn])
        if not by_pass:
            return None
        medians = [median(ratios) for ratios in by_pass.values()]
        every = [ratio for ratios in by_pass.values() for ratio in ratios]
        return Ratio(median(every), min(medians), max(medians))

    def fastest(self, test: str, entries: int, names: list[str]) -> list[str]:
        """Those of the names that were measured, fastest first."""
        times = {name: self.ns(Subject(test, name, entries)) for name in names}
        return sorted((name for name in names if times[name]), key=lambda name: times[name] or 0)

    def subjects(self, test: str) -> Iterator[tuple[Subject, float]]:
        """Each subject of a test with its nanoseconds an operation, in the order of measurement."""
        for subject in self.times:
            if subject.test == test and (nanoseconds := self.ns(subject)):
                yield subject, nanoseconds
