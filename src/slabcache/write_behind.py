"""`WriteBehindCache`: a cache in front of a store, read through and written behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

import numpy as np

from slabcache.arguments import seconds, whole
from slabcache.behind.aio import AsyncCalls
from slabcache.behind.calls import NO_DEFAULT
from slabcache.behind.core import NO_ROOM
from slabcache.behind.ending import flush_before_others_end, forget_parent
from slabcache.behind.flusher import Flusher, OnRejected
from slabcache.behind.loader import Loader
from slabcache.behind.request import READ, Request
from slabcache.behind.waiting import deadline_after
from slabcache.codec.rows import from_rows
from slabcache.errors import ClosedError
from slabcache.machine.lock import forks
from slabcache.mapping import SlabMapping
from slabcache.stats import Stats
from slabcache.stores.base import Store

__all__ = ["WriteBehindCache", "WriteBehindStats"]

Array = np.ndarray[Any, Any]


class WriteBehindStats(NamedTuple):
    """The counts of `Stats`, and how the writing goes.

    `hits` to `capacity` are those of the cache in memory; an entry that is linked back after its eviction
    counts as an insertion. The others are about rows on their way to the store.
    """

    hits: int
    misses: int
    insertions: int
    updates: int
    deletions: int
    evictions: int
    size: int
    capacity: int
    dirty: int  # rows that the store does not have yet, pending ones and deletions included
    pending: int  # of them, those evicted
    failing: int  # of them, those that the store does not take, each by itself; they are tried again
    flushes: int  # calls of the store that succeeded
    flushed_rows: int  # rows that it has confirmed
    flush_errors: int  # attempts that failed
    rejected_rows: int  # rows that it has refused for good
    oldest_dirty_age: float  # seconds since the oldest of the dirty ones became so; 0.0 when there is none
    last_error: BaseException | None  # of the last attempt that failed

    @property
    def hit_ratio(self) -> float:
        """Hits among all look-ups; 0.0 before the first."""
        return Stats(*self[:8]).hit_ratio


class WriteBehindCache(AsyncCalls, SlabMapping):
    """A typed LRU cache in front of a store: what is not in memory is loaded, what is written is saved later.

    Reads see every write that was acknowledged, by any thread, stored or not. A write is acknowledged as soon
    as it is in memory; a thread gives it to the store at most `flush_interval` seconds later, or soon after
    its eviction. No acknowledged write leaves memory before the store has confirmed it. What a crash of the
    process loses is what was written since the last `flush()` and is not in the store yet.

    Parameters
    ----------
    capacity
        Entries at most, besides those that were evicted and are not saved yet; 1 or more, and together with
        `max_pending` at most 2**31 - 1.
    store
        What holds the rows; its dtypes are those of the cache. `close()` closes it.
    flush_interval
        Seconds that a row may be newer in memory than in the store. Many writes of a row within are one.
    flush_rows
        Rows at most that the store gets in one call.
    max_pending
        Evicted rows that may wait for the store; by default a quarter of the capacity.
        `capacity + max_pending` different rows can be unsaved before a write waits.
    backpressure_timeout
        Seconds that a write waits at most; by default as long as it takes.
    default
        The value of rows that the store does not have. Without one they are absent.
    on_rejected
        Called as `on_rejected(keys, values, error)` with arrays of what the store refused for good, by the
        thread that writes; deleted rows have a value that means nothing. By default such rows are logged as
        errors.
    load_timeout
        Seconds that a call waits for a load at most, before TimeoutError; by default as long as it takes. The
        store cannot be interrupted: a load given up goes on in its thread, and others take its place.
    loads
        Loads that run at the same time, at most. Misses that come meanwhile share the next one.
    exit_timeout
        Seconds that leaving the interpreter waits for rows to be saved, if the cache has not been closed.

    Memory: an entry takes what it takes in a `SlabCache`, and half a byte to one (512 KiB at least in all);
    so does a pending one. An unsaved row takes 32 bytes more, which others use once it is saved. `nbytes` is
    what is reserved, with room for all rows being unsaved; resident is what the most of them at a time have
    needed.

    Thread safety: as for `SlabCache`. After `fork()` the child may read, with what was in memory then; its
    writes raise `RuntimeError`, and it writes nothing behind.

    >>> import tempfile
    >>> from slabcache.stores import SQLiteStore
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u4")
    >>> with WriteBehindCache(1000, store, default=0) as counts:
    ...     counts.increment(7), counts.increment(7, by=2)
    (1, 3)
    >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u4")
    >>> with WriteBehindCache(1000, store) as counts:
    ...     counts[7]
    3
    >>> folder.cleanup()
    """

    def __init__(
        self,
        capacity: int,
        store: Store,
        *,
        flush_interval: float = 30.0,
        flush_rows: int = 1000,
        max_pending: int | None = None,
        backpressure_timeout: float | None = None,
        default: Any = None,
        on_rejected: OnRejected | None = None,
        load_timeout: float | None = None,
        loads: int = 2,
        exit_timeout: float = 30.0,
    ) -> None:
        for name in ("key_dtype", "value_dtype", "load_many", "save_many", "delete_many", "close"):
            if not hasattr(store, name):
                raise TypeError(f"store: {type(store).__name__} has no {name}; see slabcache.stores.Store")
        if getattr(store, "closed", False) is True:
            raise ClosedError(
                f"store: this {type(store).__name__} is closed, as a cache closes its store; make a new one"
            )
        if on_rejected is not None and not callable(on_rejected):
            raise TypeError(f"on_rejected must be callable, not {type(on_rejected).__name__}")
        interval = seconds("flush_interval", flush_interval)
        self._patience = (
            None if backpressure_timeout is None else seconds("backpressure_timeout", backpressure_timeout)
        )
        self._exit_timeout = seconds("exit_timeout", exit_timeout)
        patience = None if load_timeout is None else seconds("load_timeout", load_timeout)
        places = whole("loads", loads, 1)
        rows = whole("flush_rows", flush_rows, 1)
        if max_pending is None:
            max_pending = max(int(capacity) // 4, 1) if hasattr(capacity, "__index__") else 1
        pending = whole("max_pending", max_pending, 0)
        self._forks = forks()
        super().__init__(capacity, pending, store.key_dtype, store.value_dtype, default)
        self.store = store
        self._loader = Loader(self, store, places, patience)
        self._closing = threading.RLock()  # held by the one who closes
        self._is_over = False  # it has been closed, and the store too
        forget_parent()
        flusher = Flusher(self, store, interval, rows, on_rejected)
        self._flusher = flusher
        flusher.start(self._exit_timeout)
        if default is not None and hasattr(store, "null_value"):
            packed = self._value_schema.encode_rows([default])
            store.null_value = from_rows(self._value_schema, packed)[0]
        flush_before_others_end()

    # ---- what it is ------------------------------------------------------------------------------------

    def stats(self) -> WriteBehindStats:  # type: ignore[override]
        """Counts since construction or `reset_stats()`, the size, and how the writing goes. O(1)."""
        unsaved, pending, failing, _ = self._unsaved()
        counts = self._flusher.counts
        return WriteBehindStats(
            *self._stats(),
            unsaved,
            pending,
            failing,
            counts.flushes,
            counts.flushed_rows,
            counts.flush_errors,
            counts.rejected_rows,
            self._flusher.oldest(self),
            self._flusher.last_error,
        )

    def reset_stats(self) -> None:
        """Set the counts of `stats()` to zero; the size and what is unsaved stay. O(1)."""
        super().reset_stats()
        self._flusher.reset_counts()

    # ---- one key ---------------------------------------------------------------------------------------

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, written as `default` first where there is none; counted as a look-up."""
        return self._drive(self._setting_default(key, default))

    def update_fields(self, key: Any, /, **fields: Any) -> None:
        """Overwrite some fields of the entry, which is loaded where need be. O(fields)."""
        self._drive(self._updating_fields(key, fields))

    def pop(self, key: Any, default: Any = NO_DEFAULT) -> Any:
        """Delete the entry of `key`, in the store too, and return its value, or `default`."""
        return self._drive(self._popping(key, default))

    def popitem(self) -> tuple[Any, Any]:
        """Delete the least recent entry in memory, in the store too, and return it as `(key, value)`."""
        item: tuple[Any, Any] | None = self._delete_least_recent()
        if item is NO_ROOM:
            item = self._drive(self._popping_item())
        if item is None:
            raise KeyError("the cache is empty")
        return item

    def clear(self) -> None:
        """Not supported, as it could mean two things: TypeError, which names them."""
        raise TypeError(
            "clear() of a WriteBehindCache could mean two things: invalidate_all() drops entries from memory "
            "alone; delete_many(keys) deletes rows, in the store too"
        )

    # ---- many keys -------------------------------------------------------------------------------------

    def get_many(self, keys: Any, *, out: Array | None = None) -> tuple[Array, Array]:
        """The values of n keys, as in `SlabCache.get_many`; those that are missing are loaded together."""
        return self._drive(self._getting(keys, out, counted=True, moves=True))

    def peek_many(self, keys: Any, *, out: Array | None = None) -> tuple[Array, Array]:
        """What `get_many` returns, without counting, changing the order or keeping what was loaded."""
        return self._drive(self._getting(keys, out, counted=False, moves=False))

    def contains_many(self, keys: Any) -> Array:
        """Whether each of n keys has a row, in memory or in the store, or a default."""
        return self._drive(self._getting(keys, None, counted=False, moves=False))[1]

    def touch_many(self, keys: Any) -> Array:
        """Make the entries of n keys the most recent, loading them where need be; whether each has a row."""
        return self._drive(self._getting(keys, None, counted=False, moves=True))[1]

    def put_many(self, keys: Any, values: Any, *, return_evicted: bool = False) -> Any:
        """Write n entries, all or none: as `SlabCache.put_many`.

        Raises
        ------
        BackpressureError
            There was no room for `backpressure_timeout` seconds.
        ValueError
            There are more different keys than can be unsaved.
        """
        return self._drive(self._putting(keys, values, return_evicted))

    def delete_many(self, keys: Any) -> Array:
        """Delete the entries of n keys, in the store too; whether each had a row. All or none."""
        return self._drive(self._deleting(keys))

    def invalidate_many(self, keys: Any) -> Array:
        """Drop the entries of n keys from memory, so that the next use of each asks the store; whether each
        has gone. For rows that somebody else has changed in the store, or is to have from now on.

        An entry that is unsaved stays: `flush()` first. What a load finds that has begun before is not kept.
        O(n).

        >>> import tempfile
        >>> from slabcache.stores import SQLiteStore
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u8")
        >>> cache = WriteBehindCache(100, store)
        >>> cache[7] = 1
        >>> cache.invalidate_many([7, 8]).tolist()
        [False, True]
        >>> cache.flush()
        >>> cache.invalidate_many([7, 8]).tolist(), len(cache), cache[7]
        ([True, True], 0, 1)
        >>> cache.close()
        >>> folder.cleanup()
        """
        self._check_open()
        request = Request(self, keys, READ)
        self._invalidate(request)
        return request.found.reshape(request.shape)

    def invalidate_all(self) -> int:
        """Drop all saved entries from memory, so that the next use of each asks the store; how many.

        Unsaved entries stay, as in `invalidate_many`: `flush()` first. O(capacity).

        >>> import tempfile
        >>> from slabcache.stores import SQLiteStore
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u8")
        >>> with WriteBehindCache(100, store) as cache:
        ...     cache[7] = 1
        ...     cache.flush()
        ...     cache[8] = 2
        ...     cache.invalidate_all(), list(cache), cache[7]
        (1, [8], 1)
        >>> folder.cleanup()
        """
        self._check_open()
        self._outdate_loads()
        return sum(self._invalidate(Request(self, keys, READ)) for keys in self.scan_keys())

    def scan_keys(self, rows: int = 4096) -> Iterator[Array]:
        """The keys that are being loaded, then those in memory, in no order, as arrays of at most `rows`.

        Other threads wait no longer than one array takes, where `snapshot` keeps them waiting for all. The
        cache may change meanwhile: what is in memory all the while is in one array, what comes or goes
        perhaps. A key that is being loaded may come twice. O(capacity).

        >>> import tempfile
        >>> from slabcache.stores import SQLiteStore
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u8")
        >>> with WriteBehindCache(100, store) as cache:
        ...     cache.put_many([7, 8, 9], [1, 1, 1])
        ...     [keys.tolist() for keys in cache.scan_keys(2)]
        0
        [[7, 8], [9]]
        >>> folder.cleanup()
        """
        self._check_open()
        step = whole("rows", rows, 1)
        loading = self._loader.keys()
        yield from (loading[start : start + step] for start in range(0, len(loading), step))
        start = 1
        while (keys := self._scan(start, step)) is not None:
            if len(keys):
                yield keys
            start += step

    def increment_many(self, keys: Any, field: str | None = None, by: Any = 1) -> tuple[Array, Array]:
        """Add to a numeric field of n entries, loaded where need be: as `SlabCache.increment_many`."""
        return self._drive(self._incrementing(keys, field, by))

    # ---- the store -------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Return when all that was written before the call is in the store.

        Raises
        ------
        TimeoutError
            It is not after `timeout` seconds; it says how many rows are unsaved, and goes on trying.
        ClosedError
            The store was closed before; it says how many rows are unsaved.
        """
        self._drive(self._flushing(deadline_after(timeout)))

    def __enter__(self) -> WriteBehindCache:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what it has not -------------------------------------------------------------------------------

    def __copy__(self) -> WriteBehindCache:
        raise TypeError("a WriteBehindCache cannot be copied: both would write to one store; take snapshot()")

    def __deepcopy__(self, memo: object) -> WriteBehindCache:
        return self.__copy__()

    def __reduce__(self) -> Any:
        raise TypeError("a WriteBehindCache cannot be pickled; take snapshot()")


MutableMapping.register(WriteBehindCache)
