"""Where the stores of these tests have their file."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """In a folder of its own."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "states.db"
