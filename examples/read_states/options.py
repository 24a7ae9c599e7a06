"""Numbers of a command line, which argparse refuses in a line where they are out of range."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["at_most", "seconds"]


def at_most(largest: int) -> Callable[[str], int]:
    """Numbers from 1 on."""

    def number(text: str) -> int:
        if not 0 < int(text) <= largest:
            raise argparse.ArgumentTypeError(f"must be from 1 to {largest}, not {text}")
        return int(text)

    return number


def seconds(text: str) -> float:
    if not 0 <= float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"must be from 0 to a million, not {text}")
    return float(text)
