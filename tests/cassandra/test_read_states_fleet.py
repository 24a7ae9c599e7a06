"""A Read States fleet on a real server; where nginx is missing, the last lines of pytest say so."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.read_states_fleet import live_through_changes


def test_nothing_is_lost_or_stale_while_instances_come_and_go(tmp_path: Path, url: str) -> None:
    asyncio.run(live_through_changes(tmp_path / "fleet", url))
