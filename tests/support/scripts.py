"""Runs a piece of Python in a process of its own, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def command(script: str, *arguments: object) -> list[str]:
    options = ["-X", "faulthandler", "-W", "error"]
    return [sys.executable, *options, "-c", textwrap.dedent(script), *map(str, arguments)]


def run(script: str, *arguments: object) -> str:
    """The script's output; the test fails with its traceback if it fails. It can import `measuring`."""
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(
        command(script, *arguments),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
