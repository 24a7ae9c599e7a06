"""Arguments that are plain numbers: checked, and what is wrong with them said."""

from __future__ import annotations

import numbers
from operator import index

__all__ = ["seconds", "whole"]


def seconds(name: str, number: object, most: float = 1e9) -> float:
    """A number of seconds, from 0 to `most`."""
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, not {type(number).__name__}")
    if not 0 <= float(number) <= most:
        raise ValueError(f"{name} must be from 0 to {most:g} seconds, not {number}")
    return float(number)


def whole(name: str, number: int, least: int, most: int = 2**32 - 1) -> int:
    """A whole number within limits."""
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(number).__name__}")
    if not least <= (value := index(number)) <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value
