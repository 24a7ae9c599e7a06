"""What is saved is what is loaded, for every dtype: random batches on a store and on a dictionary."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabcache.stores import CassandraStore
from support.cassandra_store import MakeStore
from support.model import canon, canon_rows, to_array
from support.strategies import KEY_DTYPES, VALUE_DTYPES, keys_of, values_of

# Every dtype of keys and every one of values, in as many tables as there are of the more numerous.
PAIRS = list(
    itertools.islice(
        zip(itertools.cycle(sorted(KEY_DTYPES)), itertools.cycle(sorted(VALUE_DTYPES)), strict=False),
        max(len(KEY_DTYPES), len(VALUE_DTYPES)),
    )
)
SOME_EXAMPLES = settings(max_examples=10)


def storable(key: Any) -> bool:
    """Cassandra refuses the empty partition key."""
    return (key[0] if isinstance(key, tuple) else key) != b""


def check(store: CassandraStore, model: dict[Any, Any], asked: list[Any]) -> None:
    values, found = store.load_many(to_array(asked, store.key_dtype))
    assert values.dtype == store.value_dtype or store.value_dtype.subdtype
    assert found.dtype == bool
    assert found.tolist() == [key in model for key in asked]
    told = [row for row, there in zip(canon_rows(values), found, strict=True) if there]
    assert told == [canon(model[key]) for key in asked if key in model]


@pytest.mark.parametrize(("key", "value"), PAIRS)
def test_as_a_dictionary(make_store: MakeStore, key: str, value: str) -> None:
    store = make_store(KEY_DTYPES[key], VALUE_DTYPES[value])
    pools = st.lists(keys_of(store.key_dtype).filter(storable), unique=True, min_size=1, max_size=12)
    rows = values_of(store.value_dtype)
    used: set[Any] = set()  # the examples share a table

    @SOME_EXAMPLES
    @given(st.data())
    def run(data: st.DataObject) -> None:
        store.delete_many(to_array(list(used), store.key_dtype))
        model: dict[Any, Any] = {}
        pool = data.draw(pools)
        used.update(pool)
        for _ in range(data.draw(st.integers(1, 6))):
            batch = data.draw(st.dictionaries(st.sampled_from(pool), rows))
            if data.draw(st.booleans()):
                keys, values = list(batch), list(batch.values())
                store.save_many(to_array(keys, store.key_dtype), to_array(values, store.value_dtype))
                model |= batch
            else:
                store.delete_many(to_array(list(batch), store.key_dtype))
                model = {one: row for one, row in model.items() if one not in batch}
            check(store, model, data.draw(st.lists(st.sampled_from(pool))))
        check(store, model, pool)

    run()


EXTREMES = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]


def test_unsigned_extremes_in_keys_and_values(make_store: MakeStore) -> None:
    """Each of them as partition key, as clustering column and as value."""
    store = make_store([("a", "u8"), ("b", "u8")], [("n", "u8")])
    keys = np.array(list(itertools.product(EXTREMES, EXTREMES)), store.key_dtype)
    values = np.array([(first ^ second,) for first, second in keys.tolist()], store.value_dtype)
    store.save_many(keys, values)
    loaded, found = store.load_many(keys[::-1])
    assert found.all()
    assert loaded[::-1].tolist() == values.tolist()


def test_special_values(make_store: MakeStore) -> None:
    value = [("t", "M8[us]"), ("d", "m8[s]"), ("x", "f8"), ("y", "f4"), ("s", "S4"), ("g", ">i2", (2, 2))]
    store = make_store("S4", value)
    keys = np.array([b"a", b"b", b"\0c"], "S4")
    rows = np.zeros(3, value)
    rows["t"] = ["NaT", "1969-12-31T23:59:59.999999", "2262-04-11"]
    rows["d"] = ["NaT", -1, 2**62]
    rows["x"] = [np.nan, -0.0, 5e-324]
    rows["y"] = [np.nan, -np.inf, np.finfo("f4").max]
    rows["s"] = [b"", b"\0\0x", b"full"]
    rows["g"] = np.arange(12).reshape(3, 2, 2) - 2**15
    store.save_many(keys, rows)
    loaded, found = store.load_many(keys)
    assert found.all()
    assert canon_rows(loaded) == canon_rows(rows)


def test_repeated_and_absent_keys(make_store: MakeStore) -> None:
    store = make_store([("a", "u2"), ("b", "i2")], "u4")
    store.save_many(np.array([(1, -1), (1, 1)], store.key_dtype), np.array([10, 11], "u4"))
    asked = np.array([(1, 1), (2, 0), (1, -1), (1, 1), (1, 0), (2, 0)], store.key_dtype)
    values, found = store.load_many(asked)
    assert found.tolist() == [True, False, True, True, False, False]
    assert values.tolist() == [11, 0, 10, 11, 0, 0]


def test_empty_batches(make_store: MakeStore) -> None:
    store = make_store("u8", ("f4", (3,)))
    nothing = np.zeros(0, "u8")
    store.save_many(nothing, np.zeros(0, store.value_dtype))
    store.delete_many(nothing)
    values, found = store.load_many(nothing)
    assert values.shape == (0, 3)
    assert found.shape == (0,)


def test_overwritten_and_deleted(make_store: MakeStore) -> None:
    store = make_store()
    keys = np.arange(3, dtype="u8")
    store.save_many(keys, keys)
    store.save_many(keys[1:], keys[1:] + 100)
    assert store.load_many(keys)[0].tolist() == [0, 101, 102]
    store.delete_many(keys[:2])
    assert store.load_many(keys)[1].tolist() == [False, False, True]
    store.save_many(keys[:1], keys[:1] + 7)
    assert store.load_many(keys)[1].tolist() == [True, False, True]
    assert store.load_many(keys[:1])[0].tolist() == [7]


@pytest.mark.parametrize("clustering", [[("b", "u4")], [("b", "u2"), ("c", "S3")]], ids=["one", "two"])
def test_wide_partition(make_store: MakeStore, clustering: list[Any]) -> None:
    """Thousands of rows of one partition, and a few of others, in one call."""
    store = make_store([("a", "u8"), *clustering], [("n", "u8"), ("m", "S6")])
    keys = np.zeros(3210, store.key_dtype)
    keys["a"], keys["b"] = 5, np.arange(len(keys)) % 2**16
    keys["a"][::100] = np.arange(len(keys[::100]))
    if "c" in store.key_dtype.names:
        keys["c"] = [b"%d" % (at % 1000) for at in range(len(keys))]
    values = np.array([(at, b"%d" % at) for at in range(len(keys))], store.value_dtype)
    store.save_many(keys, values)
    order = np.random.default_rng(0).permutation(len(keys))
    loaded, found = store.load_many(keys[order])
    assert found.all()
    assert np.array_equal(loaded, values[order])
    store.delete_many(keys[::2])
    assert store.load_many(keys)[1].tolist() == [at % 2 == 1 for at in range(len(keys))]


def test_names_that_are_no_identifiers(make_store: MakeStore) -> None:
    key = [("user id", "u8"), ("select", "u8")]
    store = make_store(
        key, [('say "hi"', "u4"), ("größe", "u4"), ("Camel", "u4")], table="Odd_Names_1", create=True
    )
    keys = np.array([(1, 2)], key)
    store.save_many(keys, np.array([(3, 4, 5)], store.value_dtype))
    assert store.load_many(keys)[0].tolist() == [(3, 4, 5)]
