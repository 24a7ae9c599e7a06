"""Bytes of this process, as the system counts them."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["address_space_bytes", "resident_bytes"]


def resident_bytes() -> int:
    """Those that are in RAM; where the system does not tell, the most that ever were."""
    return _bytes(1)


def address_space_bytes() -> int:
    """Those that are reserved, in RAM or not; where the system does not tell, as `resident_bytes`."""
    return _bytes(0)


def _bytes(field: int) -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[field])
        return pages * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
