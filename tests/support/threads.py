"""Threads beside a test, none of which ends in silence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Work = Callable[[], object]


@contextmanager
def beside(*works: Work) -> Iterator[None]:
    """Run each in a thread of its own beside the block, at whose end they are waited for; what one of them
    has raised is raised then."""
    errors: list[BaseException] = []

    def watched(work: Work) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=watched, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def together(*works: Work) -> None:
    """Run all, from the same moment on."""
    barrier = threading.Barrier(len(works))

    def start(work: Work) -> None:
        barrier.wait()
        work()

    with beside(*(lambda work=work: start(work) for work in works)):
        pass
