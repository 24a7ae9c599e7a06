"""Work in a fresh process: its memory, its collector and its limits are its own."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

__all__ = ["SPAWN", "Worker", "isolated"]

SPAWN = multiprocessing.get_context("spawn")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def isolated(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call a function in a process that nobody has used; what it raises is raised here."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *args, **kwargs).result()


class Worker:
    """A process that runs ``work(pipe, *arguments)``, and ends with the `with` block at the latest."""

    def __init__(self, label: str, work: Callable[..., None], *arguments: object) -> None:
        self._label = label
        self.pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_run, args=(work, theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        self._process.terminate()
        self._process.join()

    def receive(self) -> Any:
        """What it sends next; RuntimeError if it has failed or died instead."""
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()  # for its exit code
            raise RuntimeError(
                f"{self._label}: the process died with exit code {self._process.exitcode}"
            ) from None
        if isinstance(message, _Failure):
            raise RuntimeError(f"{self._label} failed:\n{message}")
        return message


class _Failure(str):
    """The traceback of a worker."""


def _run(work: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    # An interrupt from the terminal reaches the parent as well, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(pipe, *arguments)
    except Exception:
        pipe.send(_Failure(traceback.format_exc()))
