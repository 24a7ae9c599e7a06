"""Durations for people."""

from __future__ import annotations

__all__ = ["duration"]


def duration(nanoseconds: float) -> str:
    """Three digits and the unit that suits them."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= 0.9995 * size:
            number = nanoseconds / size
            return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"
    return f"{nanoseconds:.0f} ns"
