"""One fresh process for each contender, one after another: they share no heap, no collector, no noise."""

from __future__ import annotations

import gc
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.processes import SPAWN, Worker

if TYPE_CHECKING:
    from .service import Run

#: How often the parent looks at the child's progress, in seconds.
POLL = 0.1


def run_alone(
    name: str, entries: int, interval: int, folder: Path, on_progress: Callable[[int], None]
) -> Run:
    """Measure one contender in a process of its own; `on_progress` gets keys filled plus requests served."""
    # The child only stores a number; the parent, on another core, does the drawing.
    progress = SPAWN.RawValue("q", 0)
    with Worker(name, _measure, name, entries, interval, folder, progress) as child:
        while not child.pipe.poll(POLL):
            on_progress(progress.value)
        run: Run = child.receive()
        return run


def _measure(pipe: Connection, name: str, entries: int, interval: int, folder: Path, progress: Any) -> None:
    # Every contender has the libraries of a service loaded, not only the one that needs them.
    import numpy  # noqa: F401

    from .service import measure

    def report(done: int) -> None:
        progress.value = done

    gc.collect()
    gc.freeze()
    pipe.send(measure(name, entries, interval, folder, report))
