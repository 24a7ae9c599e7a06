"""Time stamps, batches and refusals: what a write-behind cache relies on."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from cassandra import InvalidRequest

from slabcache.errors import ClosedError, RowsRejected
from slabcache.stores import CassandraStore
from support.cassandra_store import KEYSPACE, TEMPORARY, MakeStore, execute

PAIR = [("a", "u8"), ("b", "u8")]


class Requests:
    """Those of a store from here on: kept, so that they can be sent again, and counted."""

    def __init__(self, store: CassandraStore) -> None:
        self.session = store._shared.open().session
        self.sent: list[Any] = []  # statements with their parameters
        self.under_way = self.most = 0
        self._lock = threading.Lock()
        self.session.add_request_init_listener(self._sent)

    def _sent(self, future: Any) -> None:
        with self._lock:
            self.sent.append(future.query)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        future.add_callbacks(self._settled, self._settled)

    def _settled(self, _: object) -> None:
        with self._lock:
            self.under_way -= 1

    def send_again(self, statements: list[Any]) -> None:
        for statement in statements:
            self.session.execute(statement)


@pytest.mark.parametrize("partitions", [1, 50])
def test_a_late_retry_overwrites_nothing_newer(make_store: MakeStore, partitions: int) -> None:
    """The same requests, once more, after newer ones: as of a write that was given up but not lost."""
    store = make_store(PAIR, "i8")
    keys = np.array([(at % partitions, at) for at in range(50)], PAIR)
    requests = Requests(store)
    store.save_many(keys, np.full(50, 1))
    first_save = requests.sent.copy()
    store.delete_many(keys)
    deletion = requests.sent[len(first_save) :]
    assert len(first_save) == len(deletion) >= partitions

    requests.send_again(first_save)
    assert not store.load_many(keys)[1].any()

    store.save_many(keys, np.full(50, 2))
    requests.send_again(deletion)
    requests.send_again(first_save)
    values, found = store.load_many(keys)
    assert found.all()
    assert (values == 2).all()


def stamps(store: CassandraStore) -> list[int]:
    return [row[0] for row in execute(store, f"SELECT WRITETIME(value) FROM {store._table.full_name}")]


def test_one_time_stamp_a_batch_strictly_rising(make_store: MakeStore) -> None:
    """Whatever the clock does: it stands still, goes back an hour, and goes on from there."""
    store = make_store(PAIR, "u8")
    keys = np.array([(at % 3, at) for at in range(300)], PAIR)
    start = 1_800_000_000 * 10**9
    clock = iter([start, start, start + 999, start - 3600 * 10**9, start - 3599 * 10**9, start + 10**9])
    timestamps = store._shared.open().ready.timestamps
    timestamps.clock = lambda: next(clock)
    seen = []
    for value in range(5):
        store.save_many(keys, np.full(300, value, "u8"))
        told = set(stamps(store))
        assert len(told) == 1
        seen += told
        assert (store.load_many(keys)[0] == value).all()
    assert seen[0] == start // 1000  # microseconds
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))
    timestamps.clock = lambda: start - 10**9
    store.delete_many(keys)
    assert not store.load_many(keys)[1].any()
    store.save_many(keys[:1], np.array([7], "u8"))
    assert store.load_many(keys[:2])[1].tolist() == [True, False]


def test_thousands_of_rows_with_bounded_concurrency(make_store: MakeStore) -> None:
    store = make_store(PAIR, "u8", concurrency=32)
    keys = np.array([(at, at) for at in range(3_000)], PAIR)
    requests = Requests(store)
    store.save_many(keys, keys["a"] + 1)
    values, found = store.load_many(keys)
    assert found.all()
    assert np.array_equal(values, keys["a"] + 1)
    store.delete_many(keys)
    assert len(requests.sent) == 9_000
    assert 1 < requests.most <= 32
    assert not store.load_many(keys)[1].any()


def test_rows_of_a_partition_travel_together(make_store: MakeStore) -> None:
    store = make_store(PAIR, [("n", "u8"), ("raw", "V100")])
    keys = np.array([(1, at) for at in range(5_000)], PAIR)
    requests = Requests(store)
    store.save_many(keys, np.zeros(5_000, store.value_dtype))
    saving = len(requests.sent)
    store.load_many(keys)
    assert saving < 500
    assert len(requests.sent) - saving == 50


def test_a_row_that_is_never_taken(make_store: MakeStore) -> None:
    """Alone and among others; the others are taken when they come without it."""
    store = make_store([("name", "S8"), ("n", "u1")], "u4")
    keys = np.array([(b"x", 1), (b"", 1), (b"y", 1)], store.key_dtype)
    values = np.array([1, 2, 3], "u4")
    for some in (slice(0, 3), slice(1, 2)):
        with pytest.raises(RowsRejected):
            store.save_many(keys[some], values[some])
    store.save_many(keys[::2], values[::2])
    assert store.load_many(keys)[1].tolist() == [True, False, True]  # asked for, it is just not there
    store.delete_many(keys)
    assert store.load_many(keys)[1].tolist() == [False, False, False]


def test_a_row_that_is_too_large_for_the_server(make_store: MakeStore) -> None:
    store = make_store(PAIR, "V60000")
    with pytest.raises(RowsRejected, match="oversized"):
        store.save_many(np.array([(1, 1)], PAIR), np.zeros(1, "V60000"))


def test_a_node_that_is_behind_with_the_schema_refuses_no_row(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what it says of rows; when asked, all is as it should be."""
    store = make_store("u8", "u8", table="behind", create=True, replication=1)
    key = np.array([1], "u8")
    store.save_many(key, key)
    find_differences = store._differences

    def come_up(session: Any) -> list[str]:
        make_store("u8", "u8", table="behind", create=True, replication=1)
        return find_differences(session)

    monkeypatch.setattr(store, "_differences", come_up)
    execute(store, f"DROP TABLE {KEYSPACE}.behind")
    store.save_many(key, key)
    assert store.load_many(key)[0].tolist() == [1]


@pytest.mark.parametrize("gone", ["TABLE {0}.t", "KEYSPACE {0}"])
def test_a_table_that_is_gone_refuses_no_row(make_store: MakeStore, gone: str) -> None:
    """It may come back, and then the store goes on."""
    keyspace = f"{KEYSPACE}_{gone[:5].lower()}"
    options = {"keyspace": keyspace, "table": "t", "create": True, "replication": 1}
    store = make_store(PAIR, "u8", **options)
    keys = np.array([(1, 2), (1, 3), (2, 2)], PAIR)
    values = np.array([4, 5, 6], "u8")
    store.save_many(keys, values)
    execute(store, "DROP " + gone.format(keyspace))
    for call in (lambda: store.save_many(keys, values), lambda: store.delete_many(keys)):
        with pytest.raises(TEMPORARY):
            call()
    with pytest.raises(TEMPORARY):
        store.load_many(keys)
    make_store(PAIR, "u8", **options)
    store.save_many(keys, values)
    assert store.load_many(keys)[0].tolist() == [4, 5, 6]
    execute(store, f"DROP KEYSPACE {keyspace}")


def test_too_few_nodes_is_temporary(make_store: MakeStore) -> None:
    store = make_store(consistency="THREE")
    key = np.array([1], "u8")
    for call in (lambda: store.save_many(key, key), lambda: store.load_many(key)):
        with pytest.raises(Exception, match="consistency") as caught:
            call()
        assert not isinstance(caught.value, (RowsRejected, ValueError, TypeError, OverflowError))


# ---- the table --------------------------------------------------------------------------------------


def test_a_table_that_differs(make_store: MakeStore) -> None:
    there = make_store([("a", "u8"), ("b", "u4")], [("n", "u4"), ("x", "u2")])
    name = there._table.name
    make_store([("a", "u8"), ("b", "i8")], [("n", "i8")], table=name)  # the same numbers, and no use for x

    def refused(key: Any, value: Any) -> str:
        for options in ({}, {"create": True}):
            with pytest.raises(ValueError, match="does not fit") as caught:
                make_store(key, value, table=name, **options)
        return str(caught.value)

    assert "column 'n' is bigint, not double" in refused([("a", "u8"), ("b", "u4")], [("n", "f8")])
    assert "there is no column 'm'" in refused([("a", "u8"), ("b", "u4")], [("m", "u4")])
    assert "column 'a' holds u8, not integer" in refused([("a", "i8"), ("b", "u4")], [("n", "u4")])
    message = refused([("b", "u4"), ("a", "u8")], [("n", "u4")])
    assert "column 'b' is clustering column 1, not partition key 1" in message
    assert "column 'a' is partition key 1, not clustering column 1" in message
    assert "column 'b' is clustering column 1, and no field of the key" in refused(
        [("a", "u8")], [("n", "u4")]
    )
    assert "column 'x' is a regular column" in refused([("a", "u8"), ("x", "u2")], [("n", "u4")])


def test_other_columns_are_left_alone(make_store: MakeStore) -> None:
    store = make_store("u8", [("n", "u8")])
    execute(store, f"ALTER TABLE {store._table.full_name} ADD note text")
    key = np.array([1], "u8")
    store.save_many(key, np.array([(1,)], store.value_dtype))
    execute(store, f"UPDATE {store._table.full_name} SET note = 'by hand' WHERE key = 1")
    again = make_store("u8", [("n", "u8")], table=store._table.name)
    again.save_many(key, np.array([(2,)], store.value_dtype))
    assert execute(store, f"SELECT n, note FROM {store._table.full_name}") == [(2, "by hand")]


def test_a_person_can_read_it(make_store: MakeStore) -> None:
    store = make_store([("user", "u4"), ("at", "u1")], [("seen", "?"), ("score", "f8"), ("raw", "S3")])
    store.save_many(np.array([(4, 2)], store.key_dtype), np.array([(True, 0.5, b"ab")], store.value_dtype))
    told = execute(store, f"SELECT * FROM {store._table.full_name}")
    assert told == [(4, 2, b"ab", 0.5, True)]


def test_nothing_is_created_unasked(make_store: MakeStore) -> None:
    make_store()
    for options in ({"table": "nowhere"}, {"keyspace": "nowhere", "table": "t"}):
        with pytest.raises(ValueError, match="it is not there"):
            make_store(**options)
    with pytest.raises(ValueError, match="nowhere"):
        make_store(keyspace="nowhere", table="t", create=True)


def test_a_column_that_is_added_later(make_store: MakeStore) -> None:
    """Old rows have nothing in it: they read as zero, or as told, and the old version can still be used."""
    old = make_store("u8", [("n", "u8")])
    keys = np.array([1, 3], "u8")
    old.save_many(keys, np.array([(2,), (4,)], old.value_dtype))
    execute(old, f"ALTER TABLE {old._table.full_name} ADD (m int, x double, s blob)")
    store = make_store("u8", [("n", "u8"), ("m", "u2"), ("x", "f8"), ("s", "S4")], table=old._table.name)
    assert store.load_many(keys)[0].tolist() == [(2, 0, 0.0, b""), (4, 0, 0.0, b"")]
    store.null_value = (1, 2, 3.0, b"x")
    assert store.load_many(keys)[0].tolist() == [(2, 2, 3.0, b"x"), (4, 2, 3.0, b"x")]
    store.save_many(keys[:1], np.array([(6, 7, np.nan, b"new")], store.value_dtype))
    assert repr(store.load_many(keys)[0].tolist()) == "[(6, 7, nan, b'new'), (4, 2, 3.0, b'x')]"
    old.save_many(keys, np.array([(8,), (9,)], old.value_dtype))
    assert repr(store.load_many(keys)[0].tolist()) == "[(8, 7, nan, b'new'), (9, 2, 3.0, b'x')]"


def test_a_row_that_no_dtype_holds(make_store: MakeStore) -> None:
    """It is said which; the others can be read, and it can be overwritten."""
    store = make_store([("a", "u8"), ("b", "u8")], [("n", "u8"), ("m", "u2")])
    execute(store, f"INSERT INTO {store._table.full_name} (a, b, n, m) VALUES (1, 2, 3, -4)")
    keys = np.array([(1, 2), (1, 3)], store.key_dtype)
    store.save_many(keys[1:], np.array([(4, 5)], store.value_dtype))
    with pytest.raises(RowsRejected, match=r"key \(1, 2\), column 'm': -4 is out of range") as caught:
        store.load_many(keys)
    assert isinstance(caught.value.__cause__, ValueError)
    assert store.load_many(keys[1:])[0].tolist() == [(4, 5)]
    store.save_many(keys[:1], np.array([(6, 7)], store.value_dtype))
    assert store.load_many(keys)[0].tolist() == [(6, 7), (4, 5)]


def test_a_limit_of_the_cluster_refuses_no_row(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a guardrail that lets nobody give time stamps: it can be taken away again."""
    store = make_store("u8", "u8")
    told = InvalidRequest("Guardrail user_timestamps violated: custom timestamps are not allowed")
    monkeypatch.setattr(store, "_run", lambda session, requests: ([], [told]))
    key = np.array([1], "u8")
    for call in (lambda: store.save_many(key, key), lambda: store.delete_many(key)):
        with pytest.raises(InvalidRequest, match="Guardrail"):
            call()


def test_identity_and_copies(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    same = make_store(table=one._table.name)
    assert one.identity == same.identity != other.identity
    assert hash(one.identity) == hash(same.identity)
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a CassandraStore can be neither copied nor pickled"):
            make(one)


@pytest.mark.parametrize("wrong", [np.array([1], "i8"), np.array([[1]], "u8"), np.zeros(1, [("key", "u8")])])
def test_arrays_of_another_type_are_refused(make_store: MakeStore, wrong: np.ndarray) -> None:
    store = make_store("u8", "f4", table="other_types", create=True, replication=1)
    right = np.array([1], "u8"), np.array([1], "f4")
    for call in (
        lambda: store.load_many(wrong),
        lambda: store.delete_many(wrong),
        lambda: store.save_many(wrong, right[1]),
        lambda: store.save_many(right[0], wrong),
    ):
        with pytest.raises(TypeError, match="must be a one-dimensional array of"):
            call()
    assert not store.load_many(right[0])[1].any()


def test_close_waits_for_calls(make_store: MakeStore) -> None:
    """And these succeed; those that come later are refused."""
    store = make_store(concurrency=1)
    keys = np.arange(300, dtype="u8")
    requests = Requests(store)
    begun = threading.Event()
    requests.session.add_request_init_listener(lambda _: begun.set())
    errors: list[Exception] = []

    def save() -> None:
        try:
            store.save_many(keys, keys)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    begun.wait()
    store.close()
    assert len(requests.sent) == len(keys)
    thread.join()
    assert errors == []
    with pytest.raises(ClosedError):
        store.load_many(keys)


def test_closed(make_store: MakeStore) -> None:
    store = make_store()
    store.close()
    store.close()
    key = np.array([1], "u8")
    calls = (lambda: store.load_many(key), lambda: store.save_many(key, key), lambda: store.delete_many(key))
    for call in calls:
        with pytest.raises(ClosedError):
            call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hosts": []}, ValueError, "hosts"),
        ({"hosts": [1]}, ValueError, "hosts"),
        ({"port": "9042"}, TypeError, "port must be an integer, not str"),
        ({"port": 70_000}, ValueError, "port must be from 1 to 65535, not 70000"),
        ({"concurrency": 1.5}, TypeError, "concurrency must be an integer, not float"),
        ({"concurrency": 0}, ValueError, "concurrency must be from 1"),
        ({"request_timeout": "10"}, TypeError, "request_timeout must be a number of seconds, not str"),
        ({"request_timeout": 0}, ValueError, "request_timeout must be more than 0"),
        ({"replication": "3"}, TypeError, "replication must be an integer, not str"),
        ({"replication": {"east": 0}}, ValueError, r"replication\['east'\] must be from 1"),
        ({"create": False}, ValueError, "give create=True"),
        ({"consistency": "MOST"}, ValueError, "none of"),
        ({"username": "me"}, ValueError, "both username and password"),
        ({"tls": True}, TypeError, "tls must be an ssl.SSLContext, not bool"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"hosts": "127.0.0.1", "keyspace": "k", "table": "t", "create": True, "replication": 1}
    with pytest.raises(error, match=message):
        CassandraStore(key="u8", value="u8", **(good | options))
