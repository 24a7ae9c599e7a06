"""Runs a piece of Python in a process of its own, with warnings as errors. It may import `support`, and
`measuring`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parent.parent
PATHS = [str(TESTS), str(TESTS.parent)]


def command(script: str, *arguments: object) -> list[str]:
    options = ["-X", "faulthandler", "-W", "error"]
    script = f"import sys; sys.path += {PATHS}\n{textwrap.dedent(script)}"
    return [sys.executable, *options, "-c", script, *map(str, arguments)]


def run(script: str, *arguments: object) -> str:
    """The script's output; the test fails with its traceback if it fails."""
    done = subprocess.run(command(script, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
