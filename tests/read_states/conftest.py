"""The tests of a fleet need nginx; where there is none, the last lines of pytest say so."""

from __future__ import annotations

from typing import Any

from read_states.fleet.gateway import NO_NGINX, find_nginx

collect_ignore = [] if find_nginx() else ["test_fleet.py"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if collect_ignore:
        terminalreporter.write_line(f"{NO_NGINX}; a fleet is not tested without it")
