"""A store in Apache Cassandra, or in what speaks its protocol."""

from __future__ import annotations

import itertools
import logging
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from slabcache.arguments import whole
from slabcache.errors import RowsRejected
from slabcache.stores.calls import Call
from slabcache.stores.cassandra_cluster import (
    UNREACHABLE,
    ClusterOptions,
    check_consistency,
    check_credentials,
    check_hosts,
    check_timeout,
    check_tls,
    is_refused,
)
from slabcache.stores.cassandra_session import Opened, SharedSession, run_all
from slabcache.stores.cassandra_table import (
    ColumnFound,
    Table,
    check_name,
    check_replication,
    keyspace_cql,
)
from slabcache.stores.table_store import TableStore
from slabcache.stores.timestamps import Timestamps

# isort: split
# After cassandra_cluster, which says what to install where there is no driver.
from cassandra import ConsistencyLevel, InvalidRequest
from cassandra.cluster import Session
from cassandra.query import BatchStatement, BatchType, SimpleStatement

__all__ = ["CassandraStore"]

Array = np.ndarray[Any, Any]

logger = logging.getLogger(__name__)

_SELECT_ROWS_MAX = 100  # keys that one SELECT names
_SCHEMA_TIMEOUT = 30.0  # seconds, at least; to create a table takes longer than to write a row


def _of_schema(text: str) -> SimpleStatement:
    # Each node has all of the schema: the consistency of rows is none of its.
    return SimpleStatement(text, consistency_level=ConsistencyLevel.ONE)


_KEYSPACE = _of_schema("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s")
_TABLE = _of_schema("SELECT comment FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s")
_COLUMNS = _of_schema(
    "SELECT column_name, type, kind, position FROM system_schema.columns "
    "WHERE keyspace_name = %s AND table_name = %s"
)

# What nodes say of rows that they will never take. Other complaints may be settled some day.
_OF_ROWS = re.compile(
    "key may not be empty|key length|clustering columns is too long|oversized|constraint", re.I
)


class _Ready(NamedTuple):
    """What a session is used with; a process has one of each."""

    timestamps: Timestamps
    insert: Any  # prepared statements
    delete: Any
    select_one: Any
    select_some: Any  # None where the partition key is the whole key


class CassandraStore(TableStore):
    """Rows in a table of a Cassandra cluster, for `slabcache.WriteBehindCache`.

    Parameters
    ----------
    hosts
        One or more nodes to ask for the others, by name or address.
    keyspace, table
        Where the rows are; 1 to 48 letters, digits and underscores each, of the case given.
    key, value
        Dtypes, as of `SlabCache`. The first field of the key is the partition key, the other fields are
        clustering columns: rows that differ in them alone lie together, and are read and written together.
    create
        Create the table if it is not there.
    replication
        With `create`: create the keyspace as well, with so many replicas in each datacenter, or in those that
        a mapping names. Without it the keyspace must be there.
    consistency
        Of reads and writes, by its name in the driver: ONE, LOCAL_QUORUM and so on. Rows that were saved are
        seen by all only where reads and writes overlap, as quorums do.
    username, password, tls
        Credentials, and an `ssl.SSLContext` for connections that are encrypted.
    port, datacenter
        The port of all nodes; the datacenter whose nodes are asked, by default that of the first host.
    request_timeout
        Seconds to wait for an answer, and for a connection.
    concurrency
        Requests of one call that are under way at the same time.

    Attributes
    ----------
    null_value
        What an empty cell of the value is read as, one of a column added later, say: a value of
        `value_dtype`, of which each column takes its field. Zeros at first; assign another before loading.

    The constructor connects, and checks the table or creates it. When no node can be reached it does not
    fail: it logs a warning, calls raise what the driver raises, and the first that reaches a node does the
    rest. So a service may be started before its database. A table that turns out not to fit only then is a
    `RuntimeError` of each call, until it is mended: rows are kept for it.

    Every batch has one time stamp, later than that of every batch before. So a write that was given up and
    reaches a node late never overwrites a newer row. Between processes the later clock wins: keep clocks in
    step.

    A row that the server will never take, for example one whose partition key is an empty string, raises
    `RowsRejected`. A table that is gone, nodes that are down, time-outs, refused credentials and limits that
    the cluster sets for requests raise what the driver raises. A call that raises may have stored some rows;
    all that it sent has settled by then.

    May be used by any thread. A forked child opens its own connection when it first uses the store, whether
    Python made the fork or C, as uWSGI does.

    Raises
    ------
    TypeError
        A dtype that no cache can have.
    ValueError
        An option is wrong; there is no such keyspace or table, and it is not to be created; or the table's
        columns are not those of `key` and `value`: which ones is said.
    Exception
        The driver's own, when the server can be reached and refuses to talk.
    """

    def __init__(
        self,
        hosts: str | Sequence[str],
        *,
        keyspace: str,
        table: str,
        key: npt.DTypeLike,
        value: npt.DTypeLike,
        create: bool = False,
        replication: int | Mapping[str, int] | None = None,
        consistency: str = "LOCAL_QUORUM",
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        port: int = 9042,
        datacenter: str | None = None,
        request_timeout: float = 10.0,
        concurrency: int = 128,
    ) -> None:
        super().__init__(key, value)
        names = check_name(keyspace, "keyspace"), check_name(table, "table")
        self._table = Table(*names, self._key, self._value)
        self._options = ClusterOptions(
            hosts=check_hosts(hosts),
            consistency=check_consistency(consistency),
            credentials=check_credentials(username, password),
            request_timeout=check_timeout(request_timeout),
            tls=check_tls(tls),
            port=whole("port", port, 1, 65535),
            datacenter=datacenter,
        )
        self._concurrency = whole("concurrency", concurrency, 1)
        self._create = create
        self._replication = check_replication(replication, create)
        patience = self._options.request_timeout + 2 * _SCHEMA_TIMEOUT
        self._shared = SharedSession(self._options.cluster, self._make_ready, repr(self), patience)
        self._try_to_connect()

    def __repr__(self) -> str:
        hosts = ", ".join(self._options.hosts)
        return f"<CassandraStore {self._table.keyspace}.{self._table.name} at {hosts}>"

    @property
    def identity(self) -> tuple[object, ...]:
        """What stores of the same table, asked for at the same nodes, have in common."""
        nodes = frozenset(self._options.hosts), self._options.port
        return "cassandra", *nodes, self._table.keyspace, self._table.name

    def load_many(self, keys: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """`(values, found)` of n keys, repeated ones included: n values, zero where not found, and n bools.

        Keys of one partition are read together; O(n), one request for each partition and 100 of its keys.
        Raises what the driver raises; where somebody else has written into a row what its dtype cannot hold,
        `RowsRejected` with the key of the row. An empty cell is read as zero, or as `null_value` says.
        """
        asked = self._rows(keys)
        # A partition key is never empty. The server would refuse to look.
        wanted = [key for key in dict.fromkeys(asked) if key[0] != b""]
        with self._shared.call() as call:
            opened = self._open(call)
            answers, errors = self._run(opened.session, self._selects(opened.ready, wanted))
        if errors:
            raise errors[0]
        rows = list(itertools.chain.from_iterable(answers))
        width = len(self._table.keys)
        places = {row[:width]: at for at, row in enumerate(rows)}
        loaded = self._decoded(list(places), list(zip(*rows, strict=True))[width:])
        where = np.fromiter((places.get(key, -1) for key in asked), "i8", len(asked))
        found = where >= 0
        values = np.zeros(len(asked), self.value_dtype)
        values[found] = loaded[where[found]]
        return values, found

    def save_many(self, keys: Array, values: Array) -> None:
        """Create or overwrite n rows; when it returns, as many nodes as `consistency` says have them.

        Rows of one partition are sent together, and appear together; O(n).
        """
        self._check(keys, "key")
        self._check(values, "value")
        columns = [column.to_driver(keys) for column in self._table.keys]
        columns += [column.to_driver(values) for column in self._table.values]
        with self._shared.call() as call:
            opened = self._open(call)
            stamps = itertools.repeat(opened.ready.timestamps.next(), len(keys))
            rows = list(zip(*columns, stamps, strict=True))
            self._write(opened, opened.ready.insert, rows, partition_at=0)

    def delete_many(self, keys: Array) -> None:
        """Delete those of n rows that there are; O(n)."""
        named = self._rows(keys)
        with self._shared.call() as call:
            opened = self._open(call)
            stamp = opened.ready.timestamps.next()
            rows = [(stamp, *key) for key in named if key[0] != b""]
            self._write(opened, opened.ready.delete, rows, partition_at=1)

    def close(self) -> None:
        """Give connections back, when the calls under way have ended. More calls raise `ClosedError`, but for
        this one."""
        self._shared.close()

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._shared.here().is_closed()

    # ---- requests -----------------------------------------------------------------------------------

    def _open(self, call: Call) -> Opened:
        try:
            return self._shared.open(call)
        except ValueError as error:
            # The table does not fit, and the arguments were right.
            raise RuntimeError(str(error)) from error

    def _rows(self, keys: Array) -> list[tuple[Any, ...]]:
        """Keys, each as a tuple of what the driver takes and gives back."""
        self._check(keys, "key")
        return list(zip(*(column.to_driver(keys) for column in self._table.keys), strict=True))

    def _selects(self, ready: _Ready, keys: list[tuple[Any, ...]]) -> Iterator[tuple[Any, Any]]:
        one_column = len(self._table.keys) == 2
        for partition, group in _partitions(keys, 0).items():
            if len(group) == 1:
                yield ready.select_one, group[0]
                continue
            for at in range(0, len(group), _SELECT_ROWS_MAX):
                some = group[at : at + _SELECT_ROWS_MAX]
                yield ready.select_some, (partition, [key[1] if one_column else key[1:] for key in some])

    def _write(self, opened: Opened, statement: Any, rows: list[tuple[Any, ...]], partition_at: int) -> None:
        errors = self._attempt(opened, statement, rows, partition_at)
        if not errors:
            return
        # A node calls a request invalid for its rows, and also when the table is gone or altered, or when the
        # node itself is behind with that. So it must say so again when all have the same table, and it fits.
        if self._differences(opened.session):
            raise errors[0]
        names = self._table[:2]
        opened.cluster.refresh_table_metadata(*names, max_schema_agreement_wait=_SCHEMA_TIMEOUT)
        errors = self._attempt(opened, statement, rows, partition_at)
        for error in errors:
            if _OF_ROWS.search(str(error)):
                raise RowsRejected(str(error)) from error
        if errors:  # of a guardrail of the cluster's, for example, which has nothing to do with the rows
            raise errors[0]

    def _attempt(
        self, opened: Opened, statement: Any, rows: list[tuple[Any, ...]], partition_at: int
    ) -> list[Exception]:
        """Send rows; the errors that may be for good. One that may pass is raised and hides the others, which
        come again when the call is repeated."""
        _, errors = self._run(opened.session, self._batches(statement, rows, partition_at))
        for error in errors:
            if not isinstance(error, InvalidRequest):
                raise error
        return errors

    def _batches(
        self, statement: Any, rows: list[tuple[Any, ...]], partition_at: int
    ) -> Iterator[tuple[Any, Any]]:
        """Rows of one partition are one mutation for its replicas, whatever their number."""
        size = self._table.batch_rows
        for group in _partitions(rows, partition_at).values():
            if len(group) == 1:
                yield statement, group[0]
                continue
            for at in range(0, len(group), size):
                batch = BatchStatement(BatchType.UNLOGGED)
                for row in group[at : at + size]:
                    batch.add(statement, row)
                yield batch, None

    def _run(
        self, session: Session, requests: Iterator[tuple[Any, Any]]
    ) -> tuple[list[list[tuple[Any, ...]]], list[Exception]]:
        timeout = self._options.request_timeout
        return run_all(session, requests, concurrency=self._concurrency, timeout=timeout)

    # ---- connecting ---------------------------------------------------------------------------------

    def _try_to_connect(self) -> None:
        """Open the session, so that what is wrong is told at once. Nodes may be away."""
        try:
            with self._shared.call() as call:
                self._shared.open(call)
        except UNREACHABLE as error:
            if is_refused(error):
                raise
            logger.warning("%r cannot be reached yet: %s", self, error)

    def _make_ready(self, session: Session) -> _Ready:
        """Create what is to be created, check the table, prepare the statements."""
        table = self._table
        if self._create:
            self._create_table(session)
        differences = self._differences(session)
        if differences:
            raise ValueError(f"{self._table_name()} does not fit: {'; '.join(differences)}")
        return _Ready(
            Timestamps(),
            insert=session.prepare(table.insert),
            delete=session.prepare(table.delete),
            select_one=session.prepare(table.select_one),
            select_some=session.prepare(table.select_some) if len(table.keys) > 1 else None,
        )

    def _create_table(self, session: Session) -> None:
        # Asked first: a user who may not create them needs no right to, where they are there.
        table, seconds = self._table, max(self._options.request_timeout, _SCHEMA_TIMEOUT)
        if self._replication is not None and not session.execute(_KEYSPACE, [table.keyspace]).all():
            session.execute(keyspace_cql(table.keyspace, self._replication), timeout=seconds)
        if not session.execute(_TABLE, table[:2]).all():
            try:
                session.execute(table.create, timeout=seconds)
            except InvalidRequest as error:
                raise ValueError(f"{self._table_name()}: {error}") from error

    def _table_name(self) -> str:
        return f"table {self._table.keyspace}.{self._table.name}"

    def _differences(self, session: Session) -> list[str]:
        names = self._table[:2]
        found = session.execute(_TABLE, names).all()
        if not found:
            return ["it is not there; create=True creates it, and replication= its keyspace"]
        columns = [ColumnFound(*row) for row in session.execute(_COLUMNS, names)]
        return self._table.differences(columns, comment=found[0][0] or "")


def _partitions(rows: list[tuple[Any, ...]], at: int) -> dict[Any, list[tuple[Any, ...]]]:
    """Rows by the item that tells their partition."""
    groups: dict[Any, list[tuple[Any, ...]]] = {}
    for row in rows:
        groups.setdefault(row[at], []).append(row)
    return groups
