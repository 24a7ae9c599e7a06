"""The sizes of caches that are measured."""

from __future__ import annotations

from collections.abc import Iterable

SMALL, LARGE, HUGE = 1_000, 1_000_000, 10_000_000
SIZES = SMALL, 10_000, 100_000, LARGE, HUGE


def peers_by_size(names: Iterable[str]) -> list[tuple[str, int]]:
    """Each peer at each size; at the largest slabcache alone, as the objects of the others take gigabytes."""
    names = list(names)
    return [(name, entries) for entries in SIZES for name in names if entries < HUGE or name == "slabcache"]
