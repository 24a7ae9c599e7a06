"""The results as Markdown."""

from __future__ import annotations

from .bars import table
from .results import Results


def whole(results: Results, quick: bool) -> list[str]:
    return table(results)
