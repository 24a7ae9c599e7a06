"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["machine", "with_version"]


def machine(*packages: str) -> str:
    """Processor, cores, system, Python and the versions of these packages, in one line."""
    model = platform.processor() or platform.machine()
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")), model)
    except OSError:
        pass
    return ", ".join(
        [
            *(model, f"{os.cpu_count()} cores", f"{platform.system()} {platform.release()}"),
            f"{platform.python_implementation()} {platform.python_version()}",
            *map(with_version, packages),
        ]
    )


def with_version(package: str) -> str:
    """Name and version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"
