"""Requests side by side, and the session that all threads share, without a driver and a server."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from slabcache.errors import ClosedError
from slabcache.stores import cassandra_session
from slabcache.stores.cassandra_session import SharedSession, run_all
from slabcache.stores.timestamps import Timestamps
from support.threads import beside, together


class Future:
    def __init__(self) -> None:
        self.callbacks: tuple[Callable[[Any], None], Callable[[Any], None]] | None = None

    def add_callbacks(self, callback: Callable[[Any], None], errback: Callable[[Any], None]) -> None:
        self.callbacks = (callback, errback)


class Session:
    """Settles requests from another thread, a few at a time, in no particular order."""

    def __init__(self, fail: Callable[[int], bool] = lambda number: False) -> None:
        self.fail = fail
        self.open: list[tuple[int, Future]] = []
        self.sent = self.most = 0
        self.stop = threading.Event()

    def execute_async(self, statement: str, number: int, timeout: float) -> Future:
        assert (statement, timeout) == ("statement", 3.0)
        future = Future()
        self.sent += 1
        self.open.append((number, future))
        self.most = max(self.most, len(self.open))
        return future

    def settle(self) -> None:
        for turn in itertools.count():
            ready = [request for request in self.open if request[1].callbacks]
            if self.stop.is_set() and not self.open:
                return
            if ready:
                request = ready[(7 * turn) % len(ready)]
                self.open.remove(request)
                number, future = request
                assert future.callbacks is not None
                if self.fail(number):
                    future.callbacks[1](OSError(number))
                else:
                    future.callbacks[0]([(number,)] if number % 2 else None)
            self.stop.wait(0.0001)

    def run(self, count: int, concurrency: int) -> tuple[list[Any], list[Exception]]:
        thread = threading.Thread(target=self.settle)
        thread.start()
        requests = (("statement", number) for number in range(count))
        result = run_all(self, requests, concurrency=concurrency, timeout=3.0)
        settled = not self.open
        self.stop.set()
        thread.join()
        assert settled, "it returned while requests were under way"
        return result


def test_all_answers_within_bounds() -> None:
    session = Session()
    answers, errors = session.run(300, 7)
    assert errors == []
    assert sorted(answers) == [[]] * 150 + [[(number,)] for number in range(1, 300, 2)]
    assert session.most == 7


def test_nothing_to_do() -> None:
    assert Session().run(0, 4) == ([], [])


def test_after_an_error_no_more_are_sent() -> None:
    session = Session(fail=lambda number: number == 20)
    answers, errors = session.run(10_000, 5)
    assert [str(error) for error in errors] == ["20"]
    assert session.sent < 100
    assert len(answers) == session.sent - 1


def test_a_session_that_takes_nothing() -> None:
    class Broken(Session):
        def execute_async(self, statement: str, number: int, timeout: float) -> Future:
            if number == 3:
                raise OSError("no more")
            return super().execute_async(statement, number, timeout)

    answers, errors = Broken().run(10, 8)
    assert len(answers) == 3
    assert [str(error) for error in errors] == ["no more"]


@pytest.mark.parametrize("concurrency", [1, 8])
def test_requests_that_nobody_answers(monkeypatch: pytest.MonkeyPatch, concurrency: int) -> None:
    """The driver's time-outs come from its own thread, which a finalizer may keep."""
    monkeypatch.setattr(cassandra_session, "_LATE", -2.99)
    session = Session()
    requests = [("statement", number) for number in range(3)]
    answers, errors = run_all(session, requests, concurrency=concurrency, timeout=3.0)
    assert (answers, len(session.open)) == ([], min(3, concurrency))
    assert [str(error) for error in errors] == ["the driver has not settled a request in 0.01 seconds"]


# ---- the session that threads share -----------------------------------------------------------------


class Cluster:
    """Connects when the gate is open; `errors` are raised, one by each attempt."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.gate = threading.Event()
        self.gate.set()
        self.connecting = threading.Event()
        self.connected = self.closed = 0

    def connect(self) -> object:
        self.connecting.set()
        self.gate.wait()
        self.connected += 1
        if self.errors:
            raise self.errors.pop()
        return object()

    def shutdown(self) -> None:
        self.closed += 1


def shared_session(cluster: Cluster) -> SharedSession:
    return SharedSession(lambda: cluster, lambda session: "ready")


def test_threads_share_a_session() -> None:
    cluster = Cluster()
    cluster.gate.clear()
    shared = shared_session(cluster)
    opened = []
    with beside(*[lambda: opened.append(shared.open())] * 8):
        cluster.connecting.wait()
        cluster.gate.set()
    assert len(opened) == 8
    assert len({id(each) for each in opened}) == 1
    assert cluster.connected == 1
    assert opened[0].ready == "ready"


def test_an_attempt_that_fails_is_cleaned_up_and_the_next_call_makes_another() -> None:
    cluster = Cluster(OSError("first"))
    shared = shared_session(cluster)
    with pytest.raises(OSError, match="first"):
        shared.open()
    assert (cluster.connected, cluster.closed) == (1, 1)
    assert shared.open() is shared.open()
    assert (cluster.connected, cluster.closed) == (2, 1)


def test_close_waits_for_calls_and_refuses_others() -> None:
    cluster = Cluster()
    shared = shared_session(cluster)
    closer = threading.Thread(target=shared.close)
    with shared.call():
        shared.open()
        closer.start()
        while True:  # until it has begun
            try:
                with shared.call():
                    pass
            except ClosedError:
                break
        assert cluster.closed == 0
    closer.join()
    assert cluster.closed == 1
    shared.close()
    assert cluster.closed == 1


def test_a_call_that_raises_has_ended() -> None:
    shared = shared_session(Cluster())
    with pytest.raises(KeyError), shared.call():
        raise KeyError
    shared.close()


def test_each_thread_that_waited_in_vain_has_an_error_of_its_own() -> None:
    """One object that many threads raise would gather all their tracebacks."""
    cluster = Cluster(OSError("nobody there"))
    cluster.gate.clear()
    shared = shared_session(cluster)
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            shared.open()
        except OSError as error:
            errors.append(error)

    with beside(*[attempt] * 4):
        while len(shared.here()._bells) < 3:  # until they wait
            cluster.connecting.wait(0.001)
        cluster.gate.set()
    assert len({id(error) for error in errors}) == 4
    assert sorted(map(str, errors)) == [
        "another thread could not open the session: OSError: nobody there"
    ] * 3 + ["nobody there"]
    assert cluster.connected == 1


def test_the_wait_for_another_thread_ends() -> None:
    cluster = Cluster()
    cluster.gate.clear()
    shared = SharedSession(lambda: cluster, lambda session: "ready", patience=0.01)
    with beside(shared.open):
        cluster.connecting.wait()
        with pytest.raises(TimeoutError, match="another thread has been opening the session for 0.01 sec"):
            shared.open()
        cluster.gate.set()
    assert shared.open().ready == "ready"


def test_opening_it_while_this_thread_opens_it() -> None:
    def make_ready(session: object) -> str:
        with pytest.raises(RuntimeError, match="this thread is in the middle of connecting"):
            shared.open()
        return "ready"

    shared = SharedSession(Cluster, make_ready)
    assert shared.open().ready == "ready"


def test_a_close_that_gives_up_waiting_leaves_the_session_to_the_last_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    shared = SharedSession(lambda: cluster, lambda session: "ready", name="it", patience=0.0)
    with shared.call() as call:
        shared.open(call)
        together(shared.close)
        shared.close()  # and in the middle of a call of this thread, for which it does not wait at all
        assert cluster.closed == 0
    assert cluster.closed == 1
    assert caplog.text.count("it is closed, and calls are still under way") == 1


def test_a_child_has_a_session_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the fork was made: it is told by the number of the process. The parent's is left alone."""
    clusters: list[Any] = []

    class Fake(Cluster):
        is_shutdown = False

        def __init__(self) -> None:
            super().__init__()
            clusters.append(self)

        def connect(self) -> Any:
            super().connect()
            return SimpleNamespace(is_shutdown=False)

    shared = SharedSession(Fake, lambda session: "ready")
    of_parent = shared.open()
    closed_before = SharedSession(Fake, lambda session: "ready")
    closed_before.close()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    of_child = shared.open()
    assert of_child is shared.open() is not of_parent
    assert (of_parent.cluster.is_shutdown, of_parent.session.is_shutdown) == (True, True)
    assert (of_child.cluster.is_shutdown, of_child.session.is_shutdown) == (False, False)
    with pytest.raises(ClosedError), closed_before.call():
        pass
    shared.close()
    assert [cluster.closed for cluster in clusters] == [0, 1]


def test_time_stamps_of_many_threads() -> None:
    stamps = Timestamps(lambda: 5_000_000)  # a clock that stands still
    told: list[list[int]] = [[] for _ in range(4)]

    def take(mine: list[int]) -> None:
        for _ in range(3000):
            mine.append(stamps.next())

    together(*(partial(take, mine) for mine in told))
    assert all(mine == sorted(mine) for mine in told)
    given = list(itertools.chain.from_iterable(told))
    assert len(set(given)) == len(given) == 12_000
    assert stamps.next() > max(given)
    assert len(stamps._given) <= 66
