"""The server goes away and comes back; the store goes on, and nothing that it acknowledged is lost."""

from __future__ import annotations

import logging
import threading
from functools import partial

import numpy as np
import pytest

from slabcache.errors import RowsRejected
from slabcache.stores.cassandra_cluster import ClusterOptions
from support.cassandra_store import KEYSPACE, TEMPORARY, MakeStore, patiently
from support.scripts import run
from support.threads import together
from tools.cassandra.node import Node

PAIR = [("a", "u8"), ("b", "u8")]
FOR_GOOD = (RowsRejected, ValueError, TypeError, OverflowError)  # what would make a cache give rows up


def test_killed_under_a_writer(make_store: MakeStore, node: Node) -> None:
    """A writer that repeats what failed, as a cache does, while the server is killed; and once more after."""
    store = make_store(PAIR, "i8")
    keys = np.array([(at % 40, at) for at in range(200)], PAIR)
    rounds, errors = 0, []
    enough = threading.Event()

    def write() -> None:
        nonlocal rounds

        def save() -> None:
            try:
                store.save_many(keys, np.full(len(keys), rounds))
            except Exception as error:
                errors.append(error)
                raise

        while not enough.is_set():
            patiently(save)
            rounds += 1

    writer = threading.Thread(target=write)
    writer.start()
    while rounds < 20 and writer.is_alive():
        enough.wait(0.01)
    node.kill()
    before = rounds
    node.start()
    while rounds < before + 5 and writer.is_alive():
        enough.wait(0.01)
    enough.set()
    writer.join()
    node.kill()  # as soon as the last round was acknowledged
    node.start()
    values, found = patiently(lambda: store.load_many(keys))
    assert found.all()
    assert (values == rounds - 1).all()
    assert errors, "nobody has noticed"
    assert not [error for error in errors if isinstance(error, FOR_GOOD)]


def test_halted_for_longer_than_the_time_out(make_store: MakeStore, node: Node) -> None:
    """Its connections stay up, and what was sent to it is carried out late, when it goes on."""
    store = make_store(PAIR, "i8", request_timeout=0.5, concurrency=16)
    keys = np.array([(at, at) for at in range(100)], PAIR)
    store.save_many(keys, np.full(100, 0))
    node.halt()
    for value in (1, 2):
        with pytest.raises(TEMPORARY):
            store.save_many(keys, np.full(100, value))
    with pytest.raises(TEMPORARY):
        store.load_many(keys)
    node.resume()
    patiently(lambda: store.save_many(keys, np.full(100, 3)))
    for _ in range(20):  # while the late ones arrive
        values, found = patiently(lambda: store.load_many(keys))
        assert found.all()
        assert (values == 3).all()


def test_started_before_the_server(
    make_store: MakeStore, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is made, its calls fail, and once there is a server they do not."""
    there = make_store(PAIR, "u8")
    name, address = there._table.name, node.address()
    node.kill()
    with caplog.at_level(logging.WARNING, "slabcache"):
        store = make_store(PAIR, "u8", table="started_before", create=True, **address)
        other = make_store(PAIR, "f8", table=name, **address)
    assert len([record for record in caplog.records if "cannot be reached yet" in record.message]) == 2
    keys = np.array([(1, 2)], PAIR)
    values = np.array([3], "u8")
    for call in (lambda: store.load_many(keys), lambda: store.save_many(keys, values)):
        with pytest.raises(TEMPORARY):
            call()
    node.start()
    patiently(lambda: store.save_many(keys, values))
    assert store.load_many(keys)[0].tolist() == [3]
    # A table that does not fit must not look like rows that do not: they would be given up.
    for _ in range(2):
        with pytest.raises(RuntimeError, match="'value' is bigint, not double"):
            other.save_many(keys, np.array([0.5]))
    # And the store that was connected before has found its way back.
    patiently(lambda: there.save_many(keys, values))


def test_many_threads_wait_for_one_connection(make_store: MakeStore, node: Node) -> None:
    address = node.address()
    make_store(PAIR, "u8", table="shared", create=True, replication=1)
    node.kill()
    store = make_store(PAIR, "u8", table="shared", **address)
    node.start()
    keys = np.array([(1, at) for at in range(8)], PAIR)
    clusters = set()

    def use(at: int) -> None:
        patiently(lambda: store.save_many(keys[at : at + 1], np.array([at], "u8")))
        clusters.add(store._shared.open().cluster)

    together(*(partial(use, at) for at in range(8)))
    assert len(clusters) == 1
    assert store.load_many(keys)[0].tolist() == list(range(8))


FORK = """
    import ctypes, os, sys, threading, time, warnings
    import numpy as np
    from slabcache.stores import CassandraStore
    from support.forks import child, wait
    from support.threads import beside

    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    host, port, keyspace, exits, who = sys.argv[1:]
    fork = os.fork if who == "Python" else ctypes.PyDLL(None).fork
    where = {"port": int(port), "keyspace": keyspace, "table": "forked", "create": True}
    store = CassandraStore(host, **where, key="u8", value="u8")
    keys = np.arange(500, dtype="u8")
    store.save_many(keys, keys + 1)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            store.save_many(keys, keys + 1)
            assert (store.load_many(keys)[0] == keys + 1).all()

    def use(mine):
        assert (store.load_many(keys)[0] == keys + 1).all()
        store.save_many(mine, mine)
        store.delete_many(mine[:10])
        assert store.load_many(mine)[1].sum() == 40
        if exits == "closed":
            store.close()

    # A fork made in C may come in the middle of anything that other threads do, and leave it locked.
    with beside(*[work] * (2 if who == "Python" else 0)):
        for turn in range(1, 5):
            if who == "C":
                time.sleep(1.0)  # let the driver's threads rest: if one wants the GIL now, the child hangs
            wait(child(lambda: use(keys[:50] + 1000 * turn), fork, sys.exit if exits == "exit" else os._exit))
        stop.set()
    mine = np.concatenate([keys[:50] + 1000 * turn for turn in range(1, 5)])
    assert store.load_many(mine)[1].sum() == 160
    store.close()
    print("done")
"""


# The child of a fork made in C leaves by `_exit`: Python's own end would wait for threads of the parent's.
LEAVING = [("closed", "Python"), ("exit", "Python"), ("_exit", "Python"), ("closed", "C"), ("_exit", "C")]


@pytest.mark.parametrize(("exits", "who"), LEAVING)
def test_a_forked_child_opens_its_own(make_store: MakeStore, node: Node, exits: str, who: str) -> None:
    """And leaves the parent's alone, however it ends, while the parent goes on writing and reading."""
    store = make_store()
    told = run(FORK, *node.address().values(), store._table.keyspace, exits, who)
    assert told == "done\n"


def test_each_cluster_has_policies_of_its_own() -> None:
    """A child that used its parent's would wait for ever for a lock that a thread there has held."""
    options = ClusterOptions(["127.0.0.1"], 9042, None, "ONE", None, None, 1.0)
    with options.cluster() as one, options.cluster() as other:
        policies = [cluster.profile_manager.default.load_balancing_policy for cluster in (one, other)]
    assert policies[0] is not policies[1]
    assert policies[0]._child_policy._hosts_lock is not policies[1]._child_policy._hosts_lock


def test_a_datacenter_that_is_not_there(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """As no node of it can be reached. It may come."""
    with caplog.at_level(logging.WARNING, "slabcache"):
        store = make_store(datacenter="nowhere")
    assert "cannot be reached yet" in caplog.text
    with pytest.raises(TEMPORARY):
        store.load_many(np.array([1], "u8"))


LEAVE = """
    import sys, time
    {imports}
    from slabcache import WriteBehindCache
    from slabcache.stores import CassandraStore
    host, port, keyspace, first = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    store = CassandraStore(host, port=port, keyspace=keyspace, table="leave", key="u8", value="u8")
    cache = WriteBehindCache(10, store, flush_interval=1000, exit_timeout=60)
    cache[first] = cache[first + 1] = 7
"""


@pytest.mark.parametrize(("imports", "first"), [("", 10), ("import cassandra.cluster", 20)])
def test_leaving_the_interpreter_saves_all(
    make_store: MakeStore, node: Node, imports: str, first: int
) -> None:
    """Although the driver has a handler for that, too."""
    store = make_store(table="leave", create=True, replication=1)
    run(LEAVE.format(imports=imports), *node.address().values(), KEYSPACE, first)
    values, found = store.load_many(np.arange(first, first + 2, dtype="u8"))
    assert found.all()
    assert values.tolist() == [7, 7]
