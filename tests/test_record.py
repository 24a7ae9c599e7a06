"""Record: an immutable, untracked snapshot of one structured value."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabcache import Record, RowsRejected, SlabCache, SumOverflowError
from support.model import canon
from support.strategies import VALUE_DTYPES, values_of

STATE = [("last_message_id", "u8"), ("mention_count", "u4"), ("ratio", "f8")]
STRUCTURED = sorted(name for name in VALUE_DTYPES if np.dtype(VALUE_DTYPES[name]).names)


def record(row: Any = (1001, 3, 0.5), spec: Any = STATE) -> Any:
    cache = SlabCache(1, "u4", spec)
    cache[1] = row
    return cache[1]


def test_access() -> None:
    state = record()
    assert isinstance(state, Record)
    assert (state.last_message_id, state.mention_count, state.ratio) == (1001, 3, 0.5)
    assert [state["last_message_id"], state["mention_count"], state["ratio"]] == [1001, 3, 0.5]
    assert [state[0], state[1], state[2]] == [1001, 3, 0.5]
    assert [state[-1], state[-3]] == [0.5, 1001]
    assert state[np.int64(1)] == 3
    first, second, third = state
    assert (first, second, third) == (1001, 3, 0.5)
    assert list(state) == [1001, 3, 0.5]
    assert len(state) == 3
    assert state._fields == ("last_message_id", "mention_count", "ratio")
    assert state._asdict() == {"last_message_id": 1001, "mention_count": 3, "ratio": 0.5}
    assert list(state._asdict()) == list(state._fields)
    assert 1001 in list(state)
    assert dict(state._asdict()) is not state._asdict()


def test_what_is_not_there() -> None:
    state = record()
    with pytest.raises(KeyError):
        state["nope"]
    with pytest.raises(AttributeError, match="nope"):
        _ = state.nope
    for index in (3, -4, 2**70):
        with pytest.raises(IndexError):
            state[index]
    for index in (1.0, None, b"ratio", (0,)):
        with pytest.raises(TypeError):
            state[index]
    assert getattr(state, "nope", 5) == 5
    assert not hasattr(state, "nope")


def test_immutable() -> None:
    state = record()
    with pytest.raises((AttributeError, TypeError)):
        state.ratio = 1.0
    with pytest.raises((AttributeError, TypeError)):
        state.fresh = 1
    with pytest.raises((AttributeError, TypeError)):
        del state.ratio
    with pytest.raises(TypeError):
        state["ratio"] = 1.0
    with pytest.raises(TypeError):
        state[0] = 1
    with pytest.raises(TypeError):
        del state[0]
    assert tuple(state) == (1001, 3, 0.5)


def test_it_is_a_copy() -> None:
    cache = SlabCache(1, "u4", STATE)
    cache[1] = (1, 2, 3.0)
    before = cache[1]
    cache.increment(1, "mention_count", 5)
    cache.update_fields(1, last_message_id=9)
    assert before == (1, 2, 3.0)
    cache[2] = (7, 7, 7.0)  # takes the slot
    assert before == (1, 2, 3.0)
    cache.clear()
    del cache
    gc.collect()
    assert before == (1, 2, 3.0)


def test_equality_and_hash() -> None:
    state = record()
    assert state == record()
    assert state == (1001, 3, 0.5)
    row = (1001, 3, 0.5)
    assert row == state
    assert (state != record()) is False
    assert (state != (1001, 3, 0.5)) is False
    for other in ((1001, 3, 0.25), (1001, 3), (1001, 3, 0.5, 1), (), None, 1001, "state"):
        assert state != other
        assert (state == other) is False
    assert state != record((1001, 4, 0.5))
    assert hash(state) == hash(record()) == hash((1001, 3, 0.5))
    assert len({state, record(), (1001, 3, 0.5), record((1, 1, 1.0))}) == 2
    with pytest.raises(TypeError):
        _ = state < record()


def test_equality_goes_by_value_not_by_bytes() -> None:
    zeros = record((0.0,), [("x", "f8")])
    assert zeros == record((-0.0,), [("x", "f8")]) == (0.0,)
    assert hash(zeros) == hash(record((-0.0,), [("x", "f8")]))
    assert record((5,), [("x", "u1")]) == record((5,), [("x", ">i8")])
    nan = record((float("nan"),), [("x", "f8")])
    assert nan != record((float("nan"),), [("x", "f8")])
    assert nan != (1.0,)


def test_equality_with_subarrays_is_a_bool() -> None:
    spec = [("n", "u1"), ("grid", "u2", (2,))]
    one = record((1, [2, 3]), spec)
    assert (one == record((1, [2, 3]), spec)) is True
    assert (one == record((1, [2, 4]), spec)) is False
    assert (one != record((1, [2, 4]), spec)) is True


def test_repr() -> None:
    text = repr(record())
    for part in ("last_message_id=1001", "mention_count=3", "ratio=0.5"):
        assert part in text
    assert text.startswith("Record(")
    assert str(record()) == text


def test_names_that_collide_with_the_class() -> None:
    """`record["name"]` reaches every field, whatever it is called."""
    spec = [("_fields", "u1"), ("_asdict", "u1"), ("a b", "u1"), ("__len__", "u1"), ("class", "u1")]
    row = record((1, 2, 3, 4, 5), spec)
    assert [row[name] for name, _ in spec] == [1, 2, 3, 4, 5]
    assert len(row) == 5
    assert list(row) == [1, 2, 3, 4, 5]
    assert "3" in repr(row)
    assert pickle.loads(pickle.dumps(row)) == row


def test_field_names_in_unicode() -> None:
    row = record((7,), [("größe", "u1")])
    assert row.größe == row["größe"] == 7
    assert "größe" in repr(row)


def test_picklers_with_a_table_of_their_own() -> None:
    cache = SlabCache(2, key="u8", value=[("n", "u4")])
    cache[1] = (7,)
    pickled = io.BytesIO()
    pickler = pickle.Pickler(pickled)
    pickler.dispatch_table = {}
    pickler.dump(cache[1])
    assert pickle.loads(pickled.getvalue()) == cache[1]
    make, arguments = cache[1].__reduce__()
    assert make(*arguments) == cache[1]


def test_what_pickles_name_stays_where_it_is() -> None:
    """What is written today is read by all that comes: these names are for good."""
    cache = SlabCache(2, key="u8", value=[("n", "u4")])
    cache[1] = (7,)
    pickled = pickle.dumps(
        [cache[1], cache, cache.stats(), RowsRejected(), SumOverflowError("n", 0)], protocol=0
    )
    names = {
        f"{module} {name}"
        for operation, argument, _ in pickletools.genops(pickled)
        if operation.name == "GLOBAL"
        for module, name in [argument.split()]
        if module.startswith("slabcache")
    }
    assert names == {
        "slabcache.pickles record_from",
        "slabcache.cache SlabCache",
        "slabcache.stats Stats",
        "slabcache.errors RowsRejected",
        "slabcache.errors SumOverflowError",
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(protocol: int) -> None:
    state = record()
    loaded = pickle.loads(pickle.dumps(state, protocol))
    assert type(loaded) is type(state)
    assert loaded == state
    assert loaded._fields == state._fields
    assert repr(loaded) == repr(state)
    assert hash(loaded) == hash(state)


def test_copying() -> None:
    state = record()
    assert copy.copy(state) == state
    assert copy.deepcopy(state) == state


def test_never_tracked_by_the_collector() -> None:
    assert not gc.is_tracked(record())
    everything = record(
        (1, True, b"ab", b"c", np.datetime64(5, "s")),
        [("n", "i4"), ("b", "?"), ("s", "S4"), ("v", "V1"), ("t", "M8[s]")],
    )
    assert not gc.is_tracked(everything)
    assert gc.get_referents(everything) == []


@pytest.mark.parametrize("name", STRUCTURED)
@given(data=st.data())
def test_every_field_kind(name: str, data: Any) -> None:
    """Each way to read a field agrees with the row that went in, for every structured dtype."""
    dtype = np.dtype(VALUE_DTYPES[name])
    row = data.draw(values_of(dtype))
    got = record(row, dtype)
    expected = [canon(item) for item in row]
    names = dtype.names or ()
    assert [canon(item) for item in got] == expected
    assert [canon(got[at]) for at in range(len(got))] == expected
    assert [canon(got[at - len(got)]) for at in range(len(got))] == expected
    assert [canon(got[field]) for field in names] == expected
    assert [canon(getattr(got, field)) for field in names] == expected
    assert [canon(item) for item in got._asdict().values()] == expected
    assert canon(pickle.loads(pickle.dumps(got))) == canon(got)
    assert got._fields == names
    assert isinstance(repr(got), str)


def test_python_types_of_the_fields() -> None:
    dtype = np.dtype(VALUE_DTYPES["every kind"])
    got = record(np.zeros(1, dtype)[0], dtype)
    numbers = [int, int, float, bool, bytes, bytes]
    rest = [np.datetime64, np.timedelta64, np.ndarray, float]
    assert [type(item) for item in got] == numbers + rest
    assert got.raw == b"\0\0\0"
    assert got.text == b""


def test_records_are_not_made_by_hand_from_nothing() -> None:
    """Whatever `Record()` does, it does not crash."""
    try:
        made = Record()
    except TypeError:
        return
    assert list(made) == []


def test_nan_has_one_hash() -> None:
    cache = SlabCache(2, "u8", [("x", "f8"), ("n", "u4")])
    cache[1] = (float("nan"), 2)
    found = cache[1]
    assert hash(found) == hash(found) == hash(cache[1])
    assert found in {found}


# -- beside numpy and pandas ------------------------------------------------------------------------

LARGE = (2**63 + 1, 7, 0.5)


def test_as_an_array() -> None:
    state = record(LARGE)
    for array in (np.asarray(state), np.array(state), np.array(state, np.dtype(STATE))):
        assert (array.shape, array.dtype) == ((), np.dtype(STATE))
        assert array.item() == LARGE
    assert np.array(state, [("a", "u8"), ("b", "f8"), ("c", "f8")]).item() == LARGE
    array = np.asarray(state)
    array["mention_count"] = 9
    assert state == LARGE  # a copy
    with pytest.raises(ValueError, match="copy"):
        state.__array__(copy=False)
    aligned = record((1, 2), np.dtype([("a", "u1"), (("title", "b"), ">u8")], align=True))
    assert np.asarray(aligned).tolist() == (1, 2)


@pytest.mark.parametrize(
    "spec", [[("a", code), ("b", code)] for code in ("u8", "f8", "?", "S3", "V3", "M8[s]", "m8[s]")], ids=str
)
def test_as_an_item_of_an_array(spec: Any) -> None:
    """numpy would make a row of each field; what it makes of a record must be right, or an error."""
    state = record(
        np.ones(1, "u1,u1").astype(spec)[0] if spec[0][1][0] not in "SV" else (b"abc", b"xyz"), spec
    )
    for call in (
        lambda: np.array([state], spec),
        lambda: np.array([state, state]),
        lambda: np.array([[state]]),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert np.array([tuple(state)], spec).shape == (1,)


def test_the_error_says_what_to_do() -> None:
    state = record()
    with pytest.raises((TypeError, ValueError)) as caught:
        np.array([state], STATE)
    told = caught.value.__cause__ or caught.value  # numpy up to 1.26 has something to say itself
    assert "tuple(record)" in str(told)
    for call in (int, float):
        with pytest.raises(TypeError, match=r"tuple\(record\)"):
            call(state)


def test_in_an_array_of_objects() -> None:
    state = record()
    array = np.empty(1, object)
    array[:] = [state]
    assert array[0] is state
    assert np.array([state, state], object).tolist() == [state, state]


def test_equality_with_numpy() -> None:
    state = record(LARGE)
    row = np.array([LARGE], STATE)[0]
    for other in (row, row.astype([("a", "u8"), ("b", ">u2"), ("c", "f4")])):
        assert (state == other) is True
        assert (other == state) is True
        assert (state != other) is False
    for other in (np.zeros(1, STATE)[0], np.zeros(1, "u8,u8")[0], np.void(b"abc"), np.zeros(1, "O,O,O")[0]):
        assert (state == other) is False
        assert (other == state) is False
        assert (state != other) is True
    rows = np.array([LARGE, (1, 2, 3.0)], STATE)
    assert (rows == state).tolist() == (state == rows).tolist() == [True, False]
    kinds = record((1, b"ab", b"\0b", [1, 2]), [("a", "u1"), ("s", "S4"), ("v", "V2"), ("g", "f4", 2)])
    assert kinds == np.asarray(kinds)[()]


def test_it_is_a_sequence() -> None:
    state = record()
    assert isinstance(state, Sequence)
    assert list(reversed(state)) == [0.5, 3, 1001]
    assert (state.index(3), state.count(3), state.count("x")) == (1, 1, 0)
    with pytest.raises(ValueError, match="not in tuple"):
        state.index(3, 2)
    match state:
        case (1001, mentions, _):
            assert mentions == 3
        case _:
            pytest.fail("a sequence pattern must match a record")
    assert record((7,), [("count", "u1")]).count == 7
    assert not gc.is_tracked(state)


def test_a_record_is_taken_item_by_item() -> None:
    """It is no array where a batch or a subarray takes one."""
    cache = SlabCache(4, "u4", ("u4", (2,)))
    pair = record((7, 8), [("a", "u4"), ("b", "u4")])
    cache[1] = pair
    assert cache[1].tolist() == [7, 8]
    numbers = SlabCache(4, "u4", "u8")
    numbers.put_many(pair, pair)
    assert dict(numbers.items()) == {7: 7, 8: 8}
    assert numbers.increment_many(pair, by=pair)[0].tolist() == [14, 16]


def test_a_record_is_unequal_to_rows_one_by_one() -> None:
    cache = SlabCache(2, "u4", [("a", "u4"), ("b", "u4")])
    cache[1] = (1, 2)
    rows = np.array([(1, 2), (1, 3)], cache.value_dtype)
    assert (cache[1] != rows).tolist() == [False, True]
    assert (cache[1] == rows).tolist() == [True, False]
    assert cache[1] != (1, 3)
    assert not cache[1] != (1, 2)  # noqa: SIM202 - it is this that is tested


@pytest.mark.parametrize("value", [[("f", "?", 3)], [("a", "?"), ("b", "?", (1, 2))]])
def test_a_record_of_bools_alone_is_no_item_of_an_array(value: list[tuple[object, ...]]) -> None:
    cache = SlabCache(2, "u4", value)
    cache.put_many([1], np.zeros(1, cache.value_dtype))
    with pytest.raises((TypeError, ValueError)):
        np.array([cache[1]], cache.value_dtype)
