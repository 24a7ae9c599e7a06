"""Objects of pandas in, records out. Stand-ins for them are in test_exact; these are the real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from slabcache import SlabCache

STAMP = pd.Timestamp("2024-01-01 00:00:00.123456789")
SPAN = pd.Timedelta("1s") + pd.Timedelta(7, "ns")
VALUE = [("a", "u8"), ("at", "M8[ns]"), ("took", "m8[ns]")]


def filled() -> SlabCache:
    cache = SlabCache(9, "u4", VALUE)
    cache[1] = (2**63 + 1, STAMP, SPAN)
    cache.put_many([2], [(2**63 + 3, pd.NaT, pd.NaT)])
    return cache


def test_times() -> None:
    cache = filled()
    assert cache[1] == (2**63 + 1, STAMP, SPAN) == (2**63 + 1, STAMP.to_datetime64(), SPAN.to_timedelta64())
    assert np.isnat(cache[2].at)
    assert np.isnat(cache[2].took)
    assert cache == cache.copy()
    micros = SlabCache(2, "u4", "M8[us]")
    for value, error in (
        (STAMP, ValueError),
        (pd.Timestamp("2024-01-01", tz="UTC"), ValueError),
        (SPAN, TypeError),
        (pd.NA, TypeError),
    ):
        with pytest.raises(error, match="value: "):
            micros[1] = value
    micros[1] = pd.Timestamp("2024-01-01")
    micros.put_many([2], pd.Series([pd.Timestamp("2024-01-02")]).astype("M8[us]"))
    assert [str(value)[:10] for value in micros.values()] == ["2024-01-01", "2024-01-02"]


def test_records_as_a_frame() -> None:
    """Large integers stay what they are, and columns have the names of the fields."""
    frame = pd.DataFrame(list(filled().values()))
    assert list(frame) == ["a", "at", "took"]
    assert frame.a.tolist() == [2**63 + 1, 2**63 + 3]
    assert frame["at"].tolist() == [STAMP, pd.NaT]
    assert frame.took[0] == SPAN
    flags = SlabCache(1, "u1", [("x", "?"), ("y", "?")])
    flags[1] = (True, False)
    assert pd.DataFrame([flags[1]]).to_dict("list") == {"x": [True], "y": [False]}
    assert pd.Series([*filled().values()])[0] == filled()[1]


def test_rows_of_a_frame() -> None:
    """They are named tuples: of the index, if they have it, a value knows nothing."""
    cache = filled()
    frame = pd.DataFrame(list(cache.values()))[["took", "a", "at"]]
    for key, row in enumerate(frame.itertuples(index=False), 3):
        cache[key] = row
    assert cache[3] == cache[1]
    with pytest.raises(ValueError, match="'Index'.* are not the fields"):
        cache[3] = next(frame.itertuples())


def test_columns() -> None:
    cache = SlabCache(9, "u4", "u8")
    numbers = pd.Series([1, 2])
    cache.put_many(numbers, numbers)
    cache.increment_many(pd.array([1, 2]), by=numbers)
    assert dict(cache.items()) == {1: 2, 2: 4}
    missing: Any = pd.array([1, None], dtype="Int64")
    for call in (
        lambda: cache.put_many(missing, [1, 2]),
        lambda: cache.put_many([1, 2], missing),
        lambda: cache.increment_many([1, 2], by=missing),
    ):
        with pytest.raises(TypeError):
            call()
    assert dict(cache.items()) == {1: 2, 2: 4}


def test_a_frame_goes_by_the_names_of_its_columns() -> None:
    cache = SlabCache(9, [("a", "u8"), ("b", "u8")], "u8")
    cache.put_many(np.array([[1, 2], [3, 4]]), [12, 34])
    frame = pd.DataFrame({"b": [2, 4], "a": [1, 3]})
    assert cache.get_many(frame)[0].tolist() == [12, 34]
    assert cache.get_many(pd.DataFrame([[1, 2], [3, 4]]))[0].tolist() == [12, 34]
    with pytest.raises(TypeError, match="fields"):
        cache.get_many(frame.rename(columns={"b": "c"}))
