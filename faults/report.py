"""The table, and its place in docs/faults.md."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measuring import pages
from measuring.machine import machine

__all__ = ["PAGE", "Line", "conditions", "table"]

PAGE = Path(__file__).parent.parent / "docs" / "faults.md"
HEADER = (
    *("fault", "what was done", "promised", "rows acknowledged", "rows lost", "reads meanwhile"),
    "recovered in, s",
)


@dataclass
class Line:
    """What came of one fault."""

    fault: str
    done: str
    promised: str
    acknowledged: str
    lost: int  # of those that are promised
    reads: str
    recovered: float | None  # seconds
    lost_note: str = ""  # what else became of rows
    broken: list[str] = field(default_factory=list)  # promises that did not hold

    def cells(self) -> list[str]:
        recovered = "-" if self.recovered is None else f"{self.recovered:.2f}"
        lost = f"{self.lost:,}" + (f"; {self.lost_note}" if self.lost_note else "")
        return [self.fault, self.done, self.promised, self.acknowledged, lost, self.reads, recovered]

    def failures(self) -> list[str]:
        lost = [f"{self.lost:,} rows are lost where none may be"] if self.lost else []
        return [f"{self.fault}: {failure}" for failure in (*lost, *self.broken)]


def table(lines: Sequence[Line]) -> list[str]:
    return pages.table(HEADER, [line.cells() for line in lines], words=(0, 1, 2, 4, 5))


def conditions() -> str:
    return f"{machine('slabcache')}, SQLite {sqlite3.sqlite_version}."
