"""Columns: each field survives the way to a driver and back, and what no field can hold is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabcache.codec.dtypes import Role, describe
from slabcache.stores.columns import Column, as_bytes, as_text, columns_of, quote
from support.model import canon_rows, to_array
from support.strategies import KEY_DTYPES, VALUE_DTYPES, rows_of, strided, unaligned

# What a driver may be given for each kind of column: exactly these types, no subclass.
DRIVER_TYPES = {
    "integer": int,
    "unsigned64": int,
    "float": float,
    "bool": bool,
    "text": bytes,
    "raw": bytes,
    "time": int,
    "array": bytes,
}


def columns_for(spec: Any, role: Role) -> tuple[Column, ...]:
    return columns_of(spec, "u1")[0] if role == "key" else columns_of("u1", spec)[1]


def one_column(spec: Any) -> Column:
    (column,) = columns_for(spec, "value")
    return column


@st.composite
def rows_and_columns(draw: Any) -> tuple[np.ndarray, tuple[Column, ...], Role]:
    role: Role = draw(st.sampled_from(["key", "value"]))
    dtypes = KEY_DTYPES if role == "key" else VALUE_DTYPES
    dtype = np.dtype(dtypes[draw(st.sampled_from(sorted(dtypes)))])
    items = draw(st.lists(rows_of(dtype, is_key=role == "key"), max_size=5))
    return to_array(items, dtype), columns_for(dtype, role), role


@given(rows_and_columns())
def test_round_trip(drawn: Any) -> None:
    rows, columns, _ = drawn
    expected = canon_rows(rows)
    target = np.zeros(rows.shape, rows.dtype)
    for column in columns:
        items = column.to_driver(rows)
        assert [type(item) for item in items] == [DRIVER_TYPES[column.kind]] * len(rows)
        column.from_driver(items, target)
    assert canon_rows(target) == expected


@given(rows_and_columns())
def test_packed_rows_and_other_layouts_give_the_same_objects(drawn: Any) -> None:
    rows, columns, role = drawn
    spec = rows.dtype if rows.ndim == 1 else (rows.dtype, rows.shape[1:])
    packed = np.zeros(len(rows), describe(spec, role).packed)
    for column in columns:
        items = column.to_driver(rows)
        column.from_driver(items, packed)
        assert repr(column.to_driver(packed)) == repr(items)
        for layout in (strided(rows), unaligned(rows)):
            if layout.value.shape == rows.shape:
                assert repr(column.to_driver(layout.value)) == repr(items)
                layout.assert_untouched()


def test_unsigned_64_bit_integers_are_twos_complement() -> None:
    column = one_column("u8")
    rows = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], "u8")
    assert column.to_driver(rows) == [0, 1, 2**63 - 1, -(2**63), -1]
    assert column.to_driver(rows.astype(">u8")) == [0, 1, 2**63 - 1, -(2**63), -1]


def test_bytes() -> None:
    assert one_column("S4").to_driver(np.array([b"ab", b"", b"a\0b"], "S4")) == [b"ab", b"", b"a\0b"]
    assert one_column("V2").to_driver(np.array([b"\0\0", b"a\0"], "V2")) == [b"\0\0", b"a\0"]


def test_times_are_counts_of_units() -> None:
    times = np.array(["1970-01-02", "NaT"], "M8[h]")
    assert one_column("M8[h]").to_driver(times) == [24, -(2**63)]
    assert one_column(">m8[25s]").to_driver(np.array([-3], ">m8[25s]")) == [-3]


@pytest.mark.parametrize("order", ["<", ">"])
def test_subarrays_are_little_endian_bytes(order: str) -> None:
    rows = np.zeros(1, [("a", f"{order}u2", (2, 2))])
    rows["a"] = [[1, 2], [3, 0x0405]]
    assert one_column(rows.dtype).to_driver(rows) == [b"\1\0\2\0\3\0\5\4"]


def test_other_fields_and_padding_stay() -> None:
    dtype = np.dtype({"names": ["a", "b"], "formats": ["u2", "u2"], "offsets": [2, 6], "itemsize": 12})
    target = np.frombuffer(bytearray(b"\x55" * 24), dtype)
    columns_for(dtype, "value")[0].from_driver([1, 2], target)
    assert target.tobytes() == (b"\x55\x55\1\0" + b"\x55" * 8) + (b"\x55\x55\2\0" + b"\x55" * 8)


@pytest.mark.parametrize("spec", sorted(VALUE_DTYPES))
def test_none_leaves_a_field_as_it_is(spec: str) -> None:
    dtype = np.dtype(VALUE_DTYPES[spec])
    target = np.zeros(3, dtype)
    for number, column in enumerate(columns_for(dtype, "value")):
        before, ones = target.copy(), np.full(1, b"\1" * dtype.itemsize, f"V{dtype.itemsize}").view(dtype)
        (item,) = column.to_driver(ones)
        column.from_driver([None, item, None], target)
        assert canon_rows(target[::2]) == canon_rows(before[::2])
        assert repr(column.to_driver(target)[1]) == repr(item)
        column.from_driver([None] * 3, target)
        assert repr(column.to_driver(target)[1]) == repr(item), number


def test_none_is_nan_where_a_database_has_none() -> None:
    target = np.zeros(2, "f4")
    one_column("f4").from_driver([None, 1.5], target, null_is_nan=True)
    assert np.isnan(target[0])
    assert target[1] == 1.5
    numbers = np.ones(2, "u4")
    one_column("u4").from_driver([None, 7], numbers, null_is_nan=True)
    assert numbers.tolist() == [1, 7]


@pytest.mark.parametrize("text", ["ann", "größe", "", "a\0b"])
def test_text_is_its_bytes(text: str) -> None:
    rows = np.zeros(1, "S8")
    one_column("S8").from_driver([text], rows)
    assert rows.tolist() == [text.encode()]
    assert as_text(text.encode()) == text


def test_bytes_that_are_no_text() -> None:
    assert as_text(b"\xff") == b"\xff"
    assert as_bytes(b"\xff".decode(errors="surrogateescape")) == b"\xff"


@pytest.mark.parametrize(
    ("spec", "item"),
    [
        ("u1", 256),
        ("u1", -1),
        ("u4", 2**32),
        ("i1", -129),
        ("i8", 2**63),
        ("u8", 2**63),  # the driver's integers are signed
        ("M8[s]", "1970-01-01"),
        ("u4", "twelve"),
        ("f4", 1e300),
        ("f2", 1e6),
        ("f8", "a"),
        ("f8", b"12345678"),
        ("S4", b"12345"),
        ("S4", 7),
        ("S4", "groß."),
        ("V4", b"123"),
        ("V4", b"12345"),
        ("V4", "1234"),
        (("u2", 2), b"123"),
    ],
)
def test_what_no_field_can_hold_is_refused(spec: Any, item: Any) -> None:
    column = one_column(spec)
    good = column.to_driver(np.zeros(1, spec))
    target = np.zeros(2, spec)
    with pytest.raises(ValueError, match="column 'value'"):
        column.from_driver([*good, item], target)


def test_another_number_of_items_is_refused() -> None:
    with pytest.raises(ValueError, match="2 items are not 1 rows"):
        one_column("u4").from_driver([1, 2], np.zeros(1, "u4"))


def test_names() -> None:
    keys, values = columns_of([("user", "u8"), ("at", "i2")], "f4")
    assert [column.name for column in keys] == ["user", "at"]
    assert [column.name for column in values] == ["value"]
    assert columns_of("S3", "u1")[0][0].name == "key"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ([("a", "u1")], [("a", "u1")], "value field 'a': the key has a column of that name; rename one"),
        ([("a", "u1")], [("A", "u1")], "value field 'A'"),
        ([("É", "u1")], [("é", "u1")], "value field 'é'"),
        ([("a", "u1"), ("A", "u1")], "u1", "key field 'A': the key has"),
        ("u1", [("Key", "u1")], "value field 'Key'"),
        ([("value", "u1")], "u1", "value: the key has"),
        ([("a\0b", "u1")], "u1", "key field .*NUL"),
        ("u1", [("\ud800", "u1")], "value field .*Unicode"),
    ],
)
def test_names_that_no_table_can_have(key: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columns_of(key, value)


def test_dtypes_that_no_cache_can_have() -> None:
    with pytest.raises(TypeError, match="key: float64 is not supported"):
        columns_of("f8", "u1")
    with pytest.raises(TypeError, match="value: object is not supported"):
        columns_of("u1", "O")


def test_quote() -> None:
    assert quote('a"b') == '"a""b"'
    assert quote("'; --") == '"\'; --"'
    with pytest.raises(ValueError, match="empty"):
        quote("")
