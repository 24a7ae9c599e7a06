"""Nothing is altered in silence: what a field cannot hold exactly is refused; names go before positions."""

from __future__ import annotations

import dataclasses
import datetime
from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabcache import SlabCache

NAT = np.iinfo("i8").min


def ways_in(dtype: Any, value: Any) -> list[Any]:
    """What comes back for a value, by each way that takes one: for the ways of an array see test_batch."""
    cache = SlabCache(8, "u4", dtype)
    record = SlabCache(8, "u4", [("first", "u2"), ("last", dtype)])
    cache[1] = value
    cache.put_many([2], [value])
    cache.setdefault(3, value)
    cache.update({4: value})
    record[1] = (1, value)
    record[2] = {"first": 1, "last": value}
    record.put_many([3], [(1, value)])
    record[4] = (0, np.zeros(1, dtype)[0])
    record.update_fields(4, last=value)
    return [*cache.values(), *(row.last for row in record.values())]


def refused(dtype: Any, value: Any, error: type[Exception], match: str) -> None:
    """By each of those ways, and with nothing changed."""
    cache = SlabCache(2, "u4", dtype)
    record = SlabCache(2, "u4", [("first", "u2"), ("last", dtype)])
    record.put_many([1], np.zeros(1, record.value_dtype))
    calls: list[Callable[[], Any]] = [
        lambda: cache.__setitem__(1, value),
        lambda: cache.put_many([1], [value]),
        lambda: cache.setdefault(1, value),
        lambda: record.__setitem__(1, (1, value)),
        lambda: record.__setitem__(1, {"first": 1, "last": value}),
        lambda: record.put_many([1], [(1, value)]),
        lambda: record.update_fields(1, first=1, last=value),
    ]
    for call in calls:
        with pytest.raises(error, match=match):
            call()
    assert len(cache) == 0
    assert record.get_many([1])[0].tobytes() == bytes(record.value_dtype.itemsize)


# -- bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"a\0", b"\0", bytearray(b"a\0\0"), memoryview(b"abc\0"), np.bytes_(b"a\0")]
)
def test_bytes_that_end_in_nul(value: Any) -> None:
    """As values as well as as keys; the message says what holds them."""
    refused("S4", value, ValueError, "NUL.*V4")
    with pytest.raises(ValueError, match="NUL.*V4"):
        SlabCache(2, "S4", "u1")[value] = 1
    refused(("S4", (1,)), [value], ValueError, "NUL.*V4")


@pytest.mark.parametrize("value", [b"", b"abc", b"abcde", bytearray(b"abc"), np.void(b"abc")])
def test_void_takes_exactly_its_length(value: Any) -> None:
    """A short key that is padded is another key."""
    refused("V4", value, ValueError, "bytes are not the 4 of V4")
    cache = SlabCache(2, "V4", "u1")
    for call in (
        cache.get,
        cache.__getitem__,
        cache.touch,
        cache.__contains__,
        lambda key: cache.get_many([key]),
    ):
        with pytest.raises(ValueError, match="bytes are not the 4 of V4"):
            call(value)
    with pytest.raises(ValueError, match="bytes are not the 4 of V4"):
        SlabCache(2, [("a", "u1"), ("b", "V4")], "u1")[1, value] = 1
    refused(("V4", (1,)), [value], ValueError, "bytes are not the 4 of V4")


def test_void_of_a_record_is_no_bytes() -> None:
    """An array of records is not taken for one of bytes; nor is its item."""
    row = np.zeros(1, "u2,u2")
    refused("V4", row[0], TypeError, "void is not bytes")
    with pytest.raises(TypeError, match="without loss"):
        SlabCache(2, "u4", "V4").put_many([1], row)


@pytest.mark.parametrize("source", ["V3", "V5", "S3", "S5"])
def test_arrays_of_bytes_of_another_length(source: str) -> None:
    array = np.array([b"abc"], source) if source[0] == "S" else np.zeros(1, source)
    for call in (
        lambda: SlabCache(2, "u4", "V4").put_many([1], array),
        lambda: SlabCache(2, "V4", "u4").put_many(array, [1]),
        lambda: SlabCache(2, "u4", [("a", "V4")]).put_many([1], array.view([("a", source)])),
        lambda: SlabCache(2, "u4", ("V4", (1,))).put_many([1], array.reshape(1, 1)),
    ):
        with pytest.raises(TypeError, match="without loss"):
            call()


def test_arrays_of_text_as_void() -> None:
    """They are taken where each row has all its bytes: of a NUL at the end, numpy does not say what it is."""
    cache = SlabCache(4, "u4", "V4")
    cache.put_many([1, 2], np.array([b"abcd", b"\0\0\0d"]))
    assert list(cache.values()) == [b"abcd", b"\0\0\0d"]
    with pytest.raises(ValueError, match="fewer than 4"):
        cache.put_many([3, 4], np.array([b"abcd", b"abc"]))
    assert len(cache) == 2
    cache.put_many(np.zeros(0, "u4"), np.zeros(0, "S4"))


@given(value=st.binary(max_size=5), kind=st.sampled_from(["S4", "V4"]))
def test_bytes_come_back_as_they_were_or_are_refused(value: bytes, kind: str) -> None:
    cache = SlabCache(1, "u1", kind)
    try:
        cache[1] = value
    except ValueError:
        assert len(value) > 4 or (value[-1:] == b"\0" if kind == "S4" else len(value) < 4)
    else:
        assert cache[1] == value


# -- times --------------------------------------------------------------------------------------------


class Stamp(datetime.datetime):
    """What `pandas.Timestamp` is, as far as this goes."""

    def to_datetime64(self) -> np.datetime64:
        return np.datetime64(self.replace(tzinfo=None), "ns") + np.timedelta64(7, "ns")


class Span(datetime.timedelta):
    """`pandas.Timedelta`."""

    def to_timedelta64(self) -> np.timedelta64:
        return np.timedelta64(
            datetime.timedelta(self.days, self.seconds, self.microseconds), "ns"
        ) + np.timedelta64(7, "ns")


class NotATime(datetime.datetime):
    """`pandas.NaT`."""

    def to_datetime64(self) -> np.datetime64:
        return np.datetime64("NaT", "ns")


NOON = Stamp(2024, 2, 29, 12, 0, 0, 123_456)
MOMENT = Span(seconds=1, microseconds=5)


def test_nanoseconds_are_kept() -> None:
    for got in ways_in("M8[ns]", NOON):
        assert got == np.datetime64("2024-02-29T12:00:00.123456007", "ns")
    for got in ways_in("m8[ns]", MOMENT):
        assert got == np.timedelta64(1_000_005_007, "ns")
    for got in ways_in(("M8[ns]", (2,)), [NOON, NOON]):
        assert got.tolist() == [1709208000123456007] * 2


def test_nanoseconds_that_the_unit_cannot_hold() -> None:
    refused("M8[us]", NOON, ValueError, "no exact value")
    refused("m8[us]", MOMENT, ValueError, "no exact value")
    refused("M8[ns]", NOON.replace(tzinfo=datetime.UTC), ValueError, "time zone")


@pytest.mark.parametrize("code", ["M8[ns]", "M8[D]", "m8[s]", ">m8[us]"])
def test_nat_objects(code: str) -> None:
    for got in ways_in(code, NotATime(1, 1, 1)):
        assert np.isnat(got)
    for got in ways_in(code, np.datetime64("NaT", "s") if "M8" in code else np.timedelta64("NaT", "s")):
        assert np.isnat(got)


def test_one_kind_of_time_is_not_the_other() -> None:
    refused("m8[ns]", NOON, TypeError, "Stamp is not a timedelta64")
    refused("M8[ns]", MOMENT, TypeError, "Span is not a datetime64")


DAY = datetime.timedelta(days=1)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "D", "h", "7s"])
@given(span=st.timedeltas())
def test_timedeltas_are_exact_or_refused(unit: str, span: datetime.timedelta) -> None:
    """numpy takes them in microseconds, which wrap in silence."""
    cache = SlabCache(1, "u1", f"m8[{unit}]")
    step, units = np.datetime_data(cache.value_dtype)[::-1]
    nanoseconds = span // datetime.timedelta(microseconds=1) * 1000
    size = step * {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9, "h": 3600 * 10**9, "D": 86400 * 10**9}[units]
    count, rest = divmod(nanoseconds, size)
    if rest or not -(2**63) < count < 2**63:
        with pytest.raises(ValueError, match="timedelta64"):
            cache[1] = span
    else:
        cache[1] = span
        assert cache[1].astype("i8") == count


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("m8[us]", datetime.timedelta.max),
        ("m8[ns]", datetime.timedelta(days=200_000)),
        ("M8[ns]", datetime.date(1, 1, 1)),
        ("M8[ns]", datetime.datetime.max),
        ("m8[D]", np.timedelta64(400, "Y")),
        ("m8[s]", np.timedelta64(4800, "M")),
        ("M8[as]", np.datetime64(10**6, "s")),
    ],
)
def test_times_out_of_range(code: str, value: Any) -> None:
    refused(code, value, ValueError, "timedelta64|exact value|fixed length")


# -- numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        np.str_("1.5"),
        np.bytes_(b"1.5"),
        np.void(b"1"),
        np.complex128(1 + 2j),
        np.array("1.5"),
        np.array(1 + 2j),
        np.timedelta64(1, "s"),
    ],
    ids=repr,
)
def test_what_python_would_make_a_float_of(value: Any) -> None:
    refused("f8", value, TypeError, "is not a number")
    cache = SlabCache(1, "u1", "f8")
    cache[1] = 0.0
    for call in (cache.increment, lambda key, by: cache.increment_many([key], by=by)):
        with pytest.raises(TypeError, match="by"):
            call(1, by=value)


def test_a_duration_is_no_step_of_an_integer() -> None:
    cache = SlabCache(1, "u1", "i8")
    cache[1] = 5
    for by in (np.timedelta64(1, "ns"), np.array(1, "m8[ns]"), np.array([1], "m8[ns]")):
        with pytest.raises(TypeError, match="by"):
            cache.increment_many([1], by=by)
    assert cache[1] == 5


# -- masks --------------------------------------------------------------------------------------------


MASKED = np.ma.array([1, 2], mask=[False, True])
UNMASKED = np.ma.array([1, 2])


class Column:
    """What is an array to numpy, and gives one with a mask, as tables of other libraries may."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


def test_masks_behind_another_object() -> None:
    cache = SlabCache(4, "u4", "i8")
    cache[1] = 10
    pairs = SlabCache(4, "u4", ("i8", (2,)))
    nested = SlabCache(4, "u4", ("i8", (1, 2)))
    column = Column(MASKED)
    for call in (
        lambda: cache.get_many(column),
        lambda: cache.put_many([1, 2], column),
        lambda: cache.increment_many([1, 2], by=column),
        lambda: pairs.__setitem__(1, column),
        lambda: nested.__setitem__(1, [column]),
    ):
        with pytest.raises(TypeError, match="masked"):
            call()
    nested[1] = [Column(np.array([3, 4]))]
    assert nested[1].tolist() == [[3, 4]]


@pytest.mark.parametrize("array", [MASKED, UNMASKED], ids=["masked", "nothing masked"])
def test_masked_arrays_are_refused(array: Any) -> None:
    cache = SlabCache(4, "u4", "i8")
    cache.update({1: 10, 2: 20})
    pairs = SlabCache(4, "u4", ("i8", (2,)))
    nested = SlabCache(4, "u4", ("i8", (2, 2)))
    calls: list[Callable[[], Any]] = [
        lambda: cache.increment_many([1, 2], by=array),
        lambda: cache.increment_many(array),
        lambda: cache.get_many(array),
        lambda: cache.put_many(array, [1, 2]),
        lambda: cache.put_many([1, 2], array),
        lambda: cache.get_many([1, 2], out=array),
        lambda: cache.increment(1, by=array[0:1].reshape(())),
        lambda: cache.__setitem__(1, array[0:1].reshape(())),
        lambda: cache.get(array[0:1].reshape(())),
        lambda: pairs.__setitem__(1, array),
        lambda: pairs.put_many([1], [array]),
        lambda: pairs.put_many([1], array.reshape(1, 2)),
        lambda: nested.__setitem__(1, [array, [3, 4]]),
        lambda: nested.put_many([1], [(array, array)]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="masked|MaskedArray"):
            call()
    assert dict(cache.items()) == {1: 10, 2: 20}
    assert len(pairs) == len(nested) == 0


def test_masked_constant() -> None:
    for dtype in ("i8", "f8", "f4", "?", "S8", "V8", "M8[s]", "m8[s]", ("i8", (2,)), ("f8", ())):
        refused(dtype, np.ma.masked, TypeError, "masked|Masked|not a number")
    refused(("f8", (2,)), [1.0, np.ma.masked], TypeError, "Masked|masked")
    refused(("i8", (2, 1)), [[1], [np.ma.masked]], TypeError, "masked")
    cache = SlabCache(1, "u4", "f8")
    cache[1] = 0.0
    for by in (np.ma.masked, [np.ma.masked]):
        with pytest.raises(TypeError, match="by"):
            cache.increment_many([1], by=by)
    with pytest.raises(TypeError, match="by"):
        cache.increment(1, by=np.ma.masked)
    with pytest.raises(TypeError, match="masked"):
        cache.get(np.ma.masked)


@pytest.mark.parametrize(
    "by", [{1, 2}, frozenset({1, 2}), {1: 1, 2: 2}, {1: 1, 2: 2}.keys(), b"\1\2", bytearray(b"\1\2"), "12"]
)
def test_what_has_no_order_or_is_text_is_no_step(by: Any) -> None:
    for dtype in ("i8", "f8"):
        cache = SlabCache(2, "u4", dtype)
        cache.update({1: 10, 2: 20})
        with pytest.raises(TypeError, match="by must be an array or a sequence"):
            cache.increment_many([1, 2], by=by)
        assert dict(cache.items()) == {1: 10, 2: 20}


# -- names --------------------------------------------------------------------------------------------


class Named(NamedTuple):
    n: int
    a: int


Renamed = namedtuple("Renamed", ["n", "b"])


@dataclasses.dataclass
class Data:
    n: int
    a: int
    note: dataclasses.InitVar[str] = ""


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    n: int
    a: int


class Plain(tuple):
    """A tuple without names goes by position."""


FIELDS = [("a", "u4"), ("n", "u4")]


def record(n: int, a: int) -> Any:
    cache = SlabCache(1, "u1", [("n", "i8"), ("a", "u1")])
    cache[1] = (n, a)
    return cache[1]


@pytest.mark.parametrize("kind", [Named, Data, Slotted, record], ids=lambda kind: kind.__name__)
def test_names_go_before_positions(kind: Callable[..., Any]) -> None:
    cache = SlabCache(4, FIELDS, FIELDS)
    item = kind(n=5, a=6)
    cache[6, 5] = item
    assert cache[item] == (6, 5) == tuple(cache.peek(item))
    assert item in cache
    assert cache.contains_many([item, kind(n=6, a=5)]).tolist() == [True, False]
    cache.put_many([item], [item])
    assert list(cache.items()) == [((6, 5), (6, 5))]
    assert cache.setdefault(kind(n=1, a=2), item) == (6, 5)
    assert list(cache) == [(6, 5), (2, 1)]
    del cache[item]
    assert list(cache) == [(2, 1)]


def test_tuples_without_names_go_by_position() -> None:
    cache = SlabCache(4, FIELDS, FIELDS)
    cache[Plain((6, 5))] = Plain((1, 2))
    assert dict(cache.items()) == {(6, 5): (1, 2)}


OTHER_NAMES = [Renamed(5, 6), dataclasses.make_dataclass("One", ["n"])(1)]


@pytest.mark.parametrize("item", OTHER_NAMES, ids=repr)
def test_other_names_are_told_with_ours(item: Any) -> None:
    cache = SlabCache(4, FIELDS, FIELDS)
    theirs = getattr(item, "_fields", ("n",))
    message = r"the fields \('" + r"', '".join(theirs) + r"'.*\) are not the fields \('a', 'n'\)"
    with pytest.raises(ValueError, match="key: " + message):
        cache.get(item)
    with pytest.raises(ValueError, match="value: " + message):
        cache[1, 2] = item
    assert len(cache) == 0


def test_a_dataclass_itself_is_no_item() -> None:
    cache = SlabCache(4, FIELDS, FIELDS)
    with pytest.raises(TypeError, match="type is not a tuple"):
        cache[1, 2] = Data
    with pytest.raises(TypeError, match="type is not a tuple"):
        cache.get(Data)


def test_mappings_are_values_but_no_keys() -> None:
    cache = SlabCache(4, FIELDS, FIELDS)
    cache[1, 2] = {"n": 5, "a": 6}
    assert cache[1, 2] == (6, 5)
    with pytest.raises(TypeError, match="key: dict is not a tuple"):
        cache.get({"n": 2, "a": 1})


def test_a_value_by_name_takes_as_many_steps_as_it_has_fields() -> None:
    """Counted in comparisons of names, not in seconds."""

    class Name(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    count = 1000
    names = [f"f{at}" for at in range(count)]
    cache = SlabCache(1, "u1", [(name, "u1") for name in names])
    cache[1] = {Name(name): 1 for name in names}
    assert Name.compared < 8 * count
    assert sum(cache[1]) == count
