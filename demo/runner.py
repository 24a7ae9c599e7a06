"""One fresh process for each contender, one after another: they share no heap, no collector, no noise."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service import Run

#: How often the parent looks at the child's progress, in seconds.
POLL = 0.1


def run_alone(
    name: str, entries: int, interval: int, folder: Path, on_progress: Callable[[int], None]
) -> Run:
    """Measure one contender in a process of its own; `on_progress` gets keys filled plus requests served."""
    spawn = multiprocessing.get_context("spawn")
    # The child only stores a number; the parent, on another core, does the drawing.
    progress = spawn.RawValue("q", 0)
    receiver, sender = spawn.Pipe(duplex=False)
    child = spawn.Process(
        target=_child,
        args=(name, entries, interval, folder, progress, sender),
        name=f"demo-{name}",
        daemon=True,
    )
    child.start()
    sender.close()
    try:
        while not receiver.poll(POLL):
            on_progress(progress.value)
        outcome = receiver.recv()
    except EOFError:
        child.join()  # for its exit code
        raise RuntimeError(f"{name}: the process died with exit code {child.exitcode}") from None
    finally:
        receiver.close()
        child.terminate()
        child.join()
    if isinstance(outcome, str):
        raise RuntimeError(f"{name} failed:\n{outcome}")
    return outcome  # type: ignore[no-any-return]


def _child(name: str, entries: int, interval: int, folder: Path, progress: Any, sender: Connection) -> None:
    # An interrupt from the terminal reaches the parent as well, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Every contender has the libraries of a service loaded, not only the one that needs them.
    import numpy  # noqa: F401

    from .service import measure

    def report(done: int) -> None:
        progress.value = done

    gc.collect()
    gc.freeze()
    try:
        sender.send(measure(name, entries, interval, folder, report))
    except Exception:
        sender.send(traceback.format_exc())
