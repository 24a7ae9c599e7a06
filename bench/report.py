"""The results as Markdown."""

from __future__ import annotations

from . import bars
from .results import Results


def whole(results: Results, quick: bool) -> list[str]:
    """All that a run prints."""
    head = ["Caches cut to a small size: these figures mean nothing.", ""] if quick else []
    return head + bars.table(results)
