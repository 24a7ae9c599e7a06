"""The thread that writes behind: takes what is due from a cache, in batches, and gives it to the store."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from slabcache.arguments import seconds
from slabcache.errors import is_refusal
from slabcache.rows import from_rows

if TYPE_CHECKING:
    from slabcache.stores.base import Store
    from slabcache.write_behind import WriteBehindCache

__all__ = ["Flusher", "OnRejected", "Room", "Saved", "deadline_after", "seconds_until", "wait_for"]

log = logging.getLogger("slabcache")

Array = np.ndarray[Any, Any]
OnRejected = Callable[[Array, Array, BaseException], object]

FIRST_DELAY, LONGEST_DELAY = 0.05, 5.0  # seconds between attempts
LOOK_AGAIN = 1.0  # seconds
EARLY = 16  # a row goes with others up to the 16th part of the interval before it is due
SLEEP_UNTIL_DUE, SLEEP_IDLE = 1, 2  # as in _unsaved.pxd


class Rows(NamedTuple):
    """A part of a batch: packed rows, their slots, and since when they are dirty."""

    slots: Array
    since: Array
    deleted: Array
    keys: Array
    values: Array

    def part(self, which: Any) -> Rows:
        return Rows(*(column[which] for column in self))

    def halves(self) -> list[Rows]:
        middle = len(self.slots) // 2
        return [self.part(slice(middle)), self.part(slice(middle, None))]


class Room(NamedTuple):
    """What a write waits for: that so many rows have been freed, until a deadline."""

    freed: int
    deadline: float | None  # of time.monotonic()


class Saved(NamedTuple):
    """What `flush()` waits for: that all that was written until then is in the store."""

    until: int  # of time.monotonic_ns()
    deadline: float | None


class Waiter(NamedTuple):
    """An event loop that waits."""

    need: Room | Saved
    callback: Callable[[], object]


@dataclass
class Counts:
    """What has been written since the last reset."""

    flushes: int = 0
    flushed_rows: int = 0
    flush_errors: int = 0
    rejected_rows: int = 0


class Flusher:
    """One for each cache. It keeps the cache alive while anything is unsaved."""

    def __init__(
        self,
        cache: WriteBehindCache,
        store: Store,
        flush_interval: float,
        flush_rows: int,
        on_rejected: OnRejected | None,
    ) -> None:
        # Not an Event: a signal handler may write while the main thread is about to set it.
        self._bells: SimpleQueue[None] = SimpleQueue()
        self._cache = weakref.ref(cache, lambda _: self._bells.put(None))
        self._held: WriteBehindCache | None = None
        self._store = store
        self._interval = int(flush_interval * 1e9)  # nanoseconds
        self._rows = flush_rows
        self._on_rejected = on_rejected
        self._lock = threading.RLock()  # owns all that follows
        self._changed = threading.Condition(self._lock)  # notified after each attempt
        self.freed = 0  # rows that are no longer unsaved; what writers wait for
        self.counts = Counts()
        self.last_error: BaseException | None = None
        self._until = 0  # what became dirty no later is due
        self._hurry = 0  # writers that wait for room: everything is due
        self._batch: Rows | None = None  # under way
        self._failures = 0  # in a row
        self._stopping = threading.Event()
        self._waiters: dict[int, Waiter] = {}  # by id()
        self._is_child = False  # of a fork: the thread is the parent's
        self._thread = threading.Thread(target=self._run, name="slabcache-flusher", daemon=True)
        self._thread.start()

    # ---- for the cache ---------------------------------------------------------------------------------

    def wait(self, need: Room | Saved) -> bool:
        """Return when a need is met; False at its deadline."""
        self.check_may_wait()
        with self._lock:
            self._begin(need)
            try:
                return wait_for(self._changed, lambda: self._is_met(need), need.deadline)
            finally:
                self._end(need)

    def is_met(self, need: Room | Saved) -> bool:
        with self._lock:
            return self._is_met(need)

    def check_may_wait(self) -> None:
        if threading.current_thread() is self._thread and not self._is_child:
            raise RuntimeError("on_rejected runs in the thread that writes behind: it cannot wait for it")

    def call_when_met(self, need: Room | Saved, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back from some thread when a need is met. What is returned is to be called when nobody waits
        any more."""
        self.check_may_wait()
        waiter = Waiter(need, callback)
        with self._lock:
            self._begin(need)
            is_met = self._is_met(need)
            if not is_met:
                self._waiters[id(waiter)] = waiter

        def leave() -> None:
            with self._lock:
                self._end(need)
                self._waiters.pop(id(waiter), None)

        if is_met:
            callback()
        return leave

    def oldest(self, cache: WriteBehindCache) -> float:
        """Seconds since the oldest unsaved entry became dirty; 0.0 when there is none."""
        with self._lock:
            since = [number for number in (self._batch_since(), cache._unsaved()[3]) if number]
        return max(0.0, (time.monotonic_ns() - min(since)) / 1e9) if since else 0.0

    def reset_counts(self) -> None:
        with self._lock:
            self.counts = Counts()

    @property
    def failure(self) -> BaseException | None:
        """Of the last attempt, while the store fails."""
        with self._lock:
            return self.last_error if self._failures else None

    def stop(self) -> None:
        self._stopping.set()
        self._bells.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def forked(self) -> None:
        """In the child: the thread is gone, and may have held the locks."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._bells = SimpleQueue()
        self._waiters = {}
        self._batch = None
        self._is_child = True

    # ---- what callers wait for; all need the lock ------------------------------------------------------

    def _begin(self, need: Room | Saved) -> None:
        if isinstance(need, Room):
            self._hurry += 1
        else:
            self._until = max(self._until, need.until)
        self._bells.put(None)

    def _end(self, need: Room | Saved) -> None:
        self._hurry -= isinstance(need, Room)

    def _is_met(self, need: Room | Saved) -> bool:
        if isinstance(need, Room):
            return self.freed >= need.freed
        cache = self._cache()
        if cache is None:
            return True
        batch_since = self._batch_since()
        if batch_since is not None and batch_since <= need.until:
            return False
        unsaved, _, _, since = cache._unsaved()
        return unsaved == 0 or since > need.until

    def _tell(self) -> list[Waiter]:
        """Something has changed. Those whose need is met are to be called back without the lock."""
        self._changed.notify_all()
        met = [waiter for waiter in self._waiters.values() if self._is_met(waiter.need)]
        for waiter in met:
            del self._waiters[id(waiter)]
        return met

    def _batch_since(self) -> int | None:
        """When the oldest row of the batch under way became dirty."""
        return None if self._batch is None else int(self._batch.since.min())

    # ---- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            cache = self._cache()
            if cache is None:
                return
            try:
                self._give_back(cache)  # what the store did not take, or an error of ours has left
                self._work(cache)
                timeout = self._sleep(cache)
            except BaseException as error:  # nothing may end the thread
                with contextlib.suppress(BaseException):
                    self._fail(error)
                self._stopping.wait(self._delay())  # whoever wakes it, a store that fails gets its time
                continue
            if timeout is None:
                del cache  # nothing to lose: it may go
            self._rest(timeout)

    def _rest(self, timeout: float | None) -> None:
        """Until a bell rings."""
        with contextlib.suppress(Empty):
            self._bells.get(timeout=timeout)
            while True:
                self._bells.get_nowait()

    def _work(self, cache: WriteBehindCache) -> None:
        """Write all that is due; what the store raises is raised."""
        while not self._stopping.is_set():
            rows = self._take(cache)
            if not len(rows.slots):
                return
            self._write(cache, rows)

    def _sleep(self, cache: WriteBehindCache) -> float | None:
        """Seconds until something is due, None while nothing is unsaved. The cache is told, and looked at
        once more after that: what came in before rings no bell."""
        idle = cache._unsaved()[0] == 0
        unsaved, pending, _, since = cache._sleep(SLEEP_IDLE if idle else SLEEP_UNTIL_DUE)
        if unsaved == 0:
            if idle:
                self._held = None
            # A write in between has rung before or will ring again.
            return None if idle and cache._unsaved()[0] == 0 else 0
        if idle or pending or self._is_wanted(since):
            return 0
        return max(0, since + self._interval - time.monotonic_ns()) / 1e9

    def _is_wanted(self, since: int) -> bool:
        with self._lock:
            return self._hurry > 0 or since <= self._until

    def _take(self, cache: WriteBehindCache) -> Rows:
        now = time.monotonic_ns()
        due = now - self._interval
        if cache._unsaved()[3] <= due:  # those that are almost due go with it: a batch costs more than a row
            due += self._interval // EARLY
        with self._lock:
            until = now if self._hurry else max(self._until, due)
            rows = Rows(*cache._drain(max(until, 0), self._rows))
            self._batch = rows if len(rows.slots) else None
        return rows

    def _write(self, cache: WriteBehindCache, rows: Rows) -> None:
        """Give a batch to the store. What it refuses for good is found by halving."""
        deleted = rows.deleted
        parts = [part for part in (rows.part(deleted), rows.part(~deleted)) if len(part.slots)]
        while parts:
            part = parts.pop()
            try:
                self._save(cache, part)
            except BaseException as error:
                if not is_refusal(error):
                    raise
                if len(part.slots) == 1:
                    self._reject(cache, part, error)
                else:
                    parts += reversed(part.halves())
            else:
                self._settle(cache, part)
        if self._failures:  # told before anybody who waits for the batch goes on
            _tell_log("%s takes rows again, after %d failed attempts", self._name(), self._failures)
        with self._lock:
            self._batch = None
            self._failures = 0
            met = self._tell()
        _call_back(met)

    def _save(self, cache: WriteBehindCache, part: Rows) -> None:
        keys = _read_only(from_rows(cache._key_schema, part.keys))
        if part.deleted[0]:
            call: Callable[..., object] = self._store.delete_many
            answer = call(keys)
        else:
            call = self._store.save_many
            answer = call(keys, _read_only(from_rows(cache._value_schema, part.values)))
        if isinstance(answer, Coroutine):
            answer.close()
            raise RuntimeError(f"{self._name()} has coroutines for methods, and needs plain ones")

    def _settle(self, cache: WriteBehindCache, part: Rows, saved: bool = True) -> None:
        cache._settle(part.slots, saved)
        with self._lock:
            if saved:
                self.counts.flushes += 1
                self.counts.flushed_rows += len(part.slots)
            else:
                self.counts.rejected_rows += len(part.slots)
            self.freed += len(part.slots)
            met = self._tell()
        _call_back(met)

    def _reject(self, cache: WriteBehindCache, part: Rows, error: BaseException) -> None:
        keys = from_rows(cache._key_schema, part.keys)
        values = from_rows(cache._value_schema, part.values)
        self._settle(cache, part, saved=False)
        if self._on_rejected is None:
            what = "the deletion" if part.deleted[0] else "a row"
            text = "%s refused %s for good: key %s: %s"
            _tell_log(text, self._name(), what, keys[0], error, level=logging.ERROR)
            return
        try:
            self._on_rejected(keys, values, error)
        except BaseException as raised:  # nothing may end the thread
            _tell_log("on_rejected raised", level=logging.ERROR, exc_info=raised)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failures += 1
            first = self._failures == 1
            self.counts.flush_errors += 1
            self.last_error = _without_frames(error)
            met = self._tell()
        _call_back(met)
        if first:
            _tell_log("%s fails; rows are kept and tried again: %r", self._name(), error)

    def _give_back(self, cache: WriteBehindCache) -> None:
        """Rows of the batch under way that are not settled are dirty again."""
        rows = self._batch
        if rows is not None:
            order = np.argsort(rows.since, kind="stable")
            cache._restore(rows.slots[order], rows.since[order])
            with self._lock:
                self._batch = None

    def _delay(self) -> float:
        """Seconds until the next attempt: doubled after each failure, with jitter."""
        return min(FIRST_DELAY * 2.0 ** min(self._failures - 1, 20), LONGEST_DELAY) * random.uniform(0.5, 1)

    def _name(self) -> str:
        return type(self._store).__name__


def deadline_after(timeout: float | None) -> float | None:
    """When a timeout that starts now ends, of `time.monotonic()`."""
    return None if timeout is None else time.monotonic() + seconds("timeout", timeout)


def seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def wait_for(changed: threading.Condition, is_met: Callable[[], bool], deadline: float | None) -> bool:
    """`changed.wait_for` until a deadline, which looks again now and then.

    A signal handler of the thread that waits may have waited, too, between the look and the wait, and so
    have taken the notification.
    """
    while not is_met():
        left = seconds_until(deadline)
        if left == 0:
            return False
        changed.wait(LOOK_AGAIN if left is None else min(left, LOOK_AGAIN))
    return True


def _tell_log(
    text: str, *arguments: object, level: int = logging.WARNING, exc_info: BaseException | None = None
) -> None:
    """A handler that raises must not end the thread that writes."""
    with contextlib.suppress(BaseException):
        log.log(level, text, *arguments, exc_info=exc_info)


def _without_frames(error: BaseException) -> BaseException:
    """An error that is kept must not keep what was on the stack, a cache among it."""
    chain: list[BaseException | None] = [error]
    seen = set()
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            chain += [link.__cause__, link.__context__]
    return error


def _read_only(rows: Array) -> Array:
    """What a store gets is what it gets again, should it fail."""
    view = rows.view()
    view.flags.writeable = False
    return view


def _call_back(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        waiter.callback()
