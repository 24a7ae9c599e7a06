"""Subjects that take turns, so that a slow minute of the machine falls on all of them alike.

Where they are processes, one of them runs at a time, from its start on. A worker says with an empty line
that it is ready for a slice of its work, and reads a line before it starts. When all is done, it writes its
result, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["finish", "in_turn", "take_turns", "wait"]

ROOT = Path(__file__).parent.parent

Subject = TypeVar("Subject")


def in_turn(subjects: Sequence[Subject], rounds: int | None = None) -> Iterator[tuple[int, Subject]]:
    """The number of the round with each subject, for ever if `rounds` is not given.

    Every second round goes backwards: whoever comes second finds the processor's caches full of the other's
    data.
    """
    for number in itertools.count() if rounds is None else range(rounds):
        for subject in reversed(subjects) if number % 2 else subjects:
            yield number, subject


def take_turns(commands: Sequence[Sequence[object]]) -> list[dict[str, Any]]:
    """The results of modules that are run with their arguments, and have the same number of slices."""
    with ExitStack() as stack:
        workers = [stack.enter_context(_start(command)) for command in commands]
        answers = [""] * len(workers)
        for _, place in in_turn(range(len(workers))):
            answers[place] = _ask(workers[place], commands[place])
            if all(answer.strip() for answer in answers):
                break
        return [json.loads(answer) for answer in answers]


def _start(command: Sequence[object]) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    _listen(worker, command)
    return worker


def _ask(worker: subprocess.Popen[str], command: Sequence[object]) -> str:
    assert worker.stdin
    print(file=worker.stdin, flush=True)
    return _listen(worker, command)


def _listen(worker: subprocess.Popen[str], command: Sequence[object]) -> str:
    assert worker.stdout
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with exit code {worker.wait()}")
    return answer


def wait() -> None:
    """In a worker: say that a slice is done, and wait for the next turn."""
    print(flush=True)
    sys.stdin.readline()


def finish(result: dict[str, Any]) -> None:
    """In a worker: hand over the result, and end at once: to free millions of objects is nobody's figure."""
    print(json.dumps(result), flush=True)
    os._exit(0)
