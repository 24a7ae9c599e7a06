"""How many rows a second does `SQLiteStore` take and give?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .behind import store_rows
from .sizes import LARGE

ROUNDS, QUICK_ROUNDS = 160, 2
#: On the disk of the repository: the system's folder for temporary files may be in memory.
FOLDER = Path(__file__).parent.parent / "build"


def test_store_rows(
    record: Callable[..., None], cut: Callable[[int], int], request: pytest.FixtureRequest
) -> None:
    option = request.config.option
    rounds = QUICK_ROUNDS if option.quick else ROUNDS
    record(store_rows, FOLDER, cut(LARGE), rounds, option.seed, name="sqlite", entries=LARGE)
