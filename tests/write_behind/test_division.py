"""Which rows fail by themselves, and whether the store takes anything: against all ways to fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabcache import RowsRejected
from slabcache.behind.division import MISSES_MAX, PROBES, divide


class Rows:
    """A store that raises for every call with one of some rows, and otherwise takes all."""

    def __init__(self, failing: set[int], refused: set[int]) -> None:
        self.failing = failing
        self.refused = refused
        self.taken: list[int] = []
        self.calls = 0

    def __call__(self, rows: np.ndarray) -> None:
        self.calls += 1
        assert len(rows) > 0
        names = set(rows.tolist())
        if self.failing & names:
            raise OSError("down")
        if self.refused & names:
            raise RowsRejected("never")
        self.taken += rows.tolist()


@settings(max_examples=400, deadline=None)
@given(data=st.data(), count=st.integers(0, 150))
def test_each_row_is_taken_or_fails_by_itself(data: st.DataObject, count: int) -> None:
    rows = st.sets(st.integers(0, max(count - 1, 0)))
    failing = data.draw(rows) if count else set()
    refused = (data.draw(rows) if count else set()) - failing
    store = Rows(failing, refused)
    outcome = divide(count, store)
    assert len(store.taken) == len(set(store.taken)), "no row is given twice after it was taken"
    assert not (failing | refused) & set(store.taken)
    assert {row for row, error in outcome.failed.items() if isinstance(error, OSError)} <= failing
    assert {row for row, error in outcome.failed.items() if isinstance(error, RowsRejected)} <= refused
    assert sorted([*store.taken, *outcome.failed, *outcome.rest]) == list(range(count))
    assert outcome.answered == bool(store.taken or refused.intersection(outcome.failed)) or refused
    if outcome.rest:
        assert not outcome.answered or store.calls >= MISSES_MAX
        assert len(failing) >= PROBES
        assert count > PROBES


def test_single_rows_cost_few_calls() -> None:
    store = Rows({500}, set())
    outcome = divide(1000, store)
    assert list(outcome.failed) == [500]
    assert len(store.taken) == 999
    assert store.calls <= 1 + PROBES + 2 * 10


def test_a_store_that_is_away_is_asked_for_a_few_rows_alone() -> None:
    store = Rows(set(range(1000)), set())
    outcome = divide(1000, store)
    assert store.calls == 1 + PROBES
    assert not outcome.answered
    assert outcome.rest == list(range(1000))
    assert isinstance(outcome.error, OSError)


def test_few_rows_that_all_fail_have_each_failed_by_themselves() -> None:
    for count in (1, 2, PROBES):
        outcome = divide(count, Rows(set(range(count)), set()))
        assert sorted(outcome.failed) == list(range(count))
        assert not outcome.rest


def test_a_store_that_goes_away_in_the_midst_is_left_alone() -> None:
    store = Rows({0}, set())

    def call(rows: np.ndarray) -> None:
        store(rows)
        store.failing = set(range(1000))

    outcome = divide(1000, call)
    assert outcome.answered
    assert len(store.taken) == 1
    assert store.calls <= 2 + PROBES + MISSES_MAX
    assert len(outcome.rest) + len(outcome.failed) == 999


def test_a_store_that_fails_now_and_then_has_nothing_against_a_row() -> None:
    calls = 0

    def call(rows: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise OSError("now and then")

    for count in (1, 2, 3, 1000):
        calls = 0
        outcome = divide(count, call, twice=True)
        assert not outcome.failed
        assert not outcome.rest


def test_refusals_are_found_however_many_there_are() -> None:
    """A refusal is an answer: the store is there."""
    store = Rows(set(), set(range(0, 400, 2)))
    outcome = divide(400, store)
    assert sorted(outcome.failed) == list(range(0, 400, 2))
    assert not outcome.rest


def test_no_more_calls_are_made_than_that() -> None:
    store = Rows(set(), set(range(400)))
    outcome = divide(400, store, calls_max=50)
    assert store.calls == 50
    assert len(outcome.rest) + len(outcome.failed) == 400


def test_what_is_not_caught_is_raised() -> None:
    def interrupt(rows: np.ndarray) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        divide(10, interrupt)
    assert isinstance(divide(10, interrupt, caught=BaseException).error, KeyboardInterrupt)
