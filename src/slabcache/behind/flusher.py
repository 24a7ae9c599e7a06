"""The thread that writes behind: takes what is due from a cache, in batches, and gives it to the store.

It alone decides what is written, and when: those who wait for it leave a `Waiter` and ring.
So no lock is needed, and none is held while Python code runs (see waiting.py). Nor does the thread end for
want of memory: a batch is made before rows are taken into it, and what is left in it is given back.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from slabcache.behind.core import WriteBehindCore
from slabcache.behind.division import Outcome, divide
from slabcache.behind.drain import IDLE, UNTIL_DUE, Drained
from slabcache.behind.waiting import Bell, deadline_after, look_again, persist, seconds_until, wake_all
from slabcache.codec.rows import from_rows
from slabcache.errors import ClosedError, RowsRejected
from slabcache.stores.base import Store

__all__ = ["Flusher", "OnRejected", "Room", "Saved", "Waiter", "forget_owners", "open_flushers"]

log = logging.getLogger("slabcache")

_random = random.Random()  # that of the module belongs to the program, which may have seeded it

Array = np.ndarray[Any, Any]
OnRejected = Callable[[Array, Array, BaseException], object]

FIRST_DELAY, LONGEST_DELAY = 0.05, 5.0  # seconds between attempts, of a batch or of a row that fails
COLLECT_AGAIN, COLLECTIONS = 0.1, 5  # seconds, and how often within them
EARLY = 16  # a row goes with others up to the 16th part of the interval before it is due


class Rows(NamedTuple):
    """A part of a batch: packed rows, their slots, and since when they are dirty."""

    slots: Array
    since: Array
    deleted: Array
    keys: Array
    values: Array

    def part(self, which: Any) -> Rows:
        return Rows(*(column[which] for column in self))


class Room(NamedTuple):
    """What a write waits for: that so many rows have been freed, until a deadline.

    Where only what is kept for another write is in its way, it is met as well once that is kept no more.
    """

    freed: int
    deadline: float | None  # of time.monotonic()
    again: float | None = None  # of time.monotonic(): when that may be so, though nobody says so

    @property
    def end(self) -> float | None:
        """When the wait ends, of `time.monotonic()`."""
        if self.deadline is None or self.again is None:
            return self.deadline if self.again is None else self.again
        return min(self.deadline, self.again)


class Saved(NamedTuple):
    """What `flush()` waits for: that all that was written until then is in the store."""

    until: int  # of time.monotonic_ns()
    deadline: float | None

    @property
    def end(self) -> float | None:
        """When the wait ends, of `time.monotonic()`."""
        return self.deadline


class Waiter:
    """Somebody who waits for a need, and is woken once it is met, or never will be."""

    def __init__(self, need: Room | Saved) -> None:
        self.need = need
        self.is_met = False


@dataclass
class Counts:
    """What has been written since the last reset."""

    flushes: int = 0
    flushed_rows: int = 0
    flush_errors: int = 0
    rejected_rows: int = 0


class Aside(NamedTuple):
    """A row that fails by itself, or is rejected."""

    since: int  # when it became dirty, of time.monotonic_ns()
    due: float  # when it is tried again, of time.monotonic()
    pause: float  # seconds
    rejected: int | None  # when it was rejected first, of time.monotonic_ns()
    deleted: bool

    @property
    def is_new_rejection(self) -> bool:
        """Whether it was rejected, and not tried again; that needs no pause."""
        return self.rejected is not None and self.pause <= FIRST_DELAY


# Who writes to which store, or table: two caches would not see each other's rows.
_owners: dict[Hashable, Flusher] = {}


def open_flushers() -> list[Flusher]:
    """Those of all caches that are open."""
    return list(dict.fromkeys(_owners.copy().values()))


def forget_owners() -> None:
    """In the child of a fork, which writes to nothing; the lock of the dict may be held by the parent."""
    global _owners
    _owners = {}


class Flusher:
    """One for each cache, which is kept for as long as anything is unsaved, also when nobody else has it."""

    def __init__(
        self,
        cache: WriteBehindCore,
        store: Store,
        flush_interval: float,
        flush_rows: int,
        on_rejected: OnRejected | None,
    ) -> None:
        self._bells: SimpleQueue[int | None] = SimpleQueue()  # what became dirty no later is to be written
        self._cache = weakref.ref(cache)
        self._kept: list[Any] = [None]  # the cache, dropped by its users; its finalizer puts it there
        self._was_dropped = False
        self._idle: dict[object, Callable[[], object]] = {}  # to be called when the thread has no reference
        self.store = store
        self.identities: list[Hashable] = [("store", id(store))]
        identity = getattr(store, "identity", None)
        if identity is not None:
            self.identities.append(("table", identity))
        self._interval = int(flush_interval * 1e9)  # nanoseconds
        self._rows = flush_rows
        self._on_rejected = on_rejected
        self._waiters: dict[Waiter, Callable[[], object]] = {}
        self._denied: dict[Waiter, Callable[[], object]] = {}  # of them, those in whose way only kept room is
        self._is_stopping = False
        self._is_child = False  # of a fork: the thread is the parent's
        # Written by the thread alone:
        self.freed = 0  # rows that are no longer unsaved; what writers wait for
        self.counts = Counts()
        self.last_error: BaseException | None = None
        self.store_is_closed = False
        self._until = 0  # a flush has asked for what became dirty no later, and may have been given up
        self._failures = 0  # attempts in a row that found the store away
        self._trouble = 0  # attempts that failed since the store last had all rows that it was given
        self._drained: Drained | None = None  # under way
        self._since: int | None = None  # when the oldest of its rows became dirty
        self._aside: dict[int, Aside] = {}  # by slot: rows that fail by themselves
        self._again_by: dict[int, Aside] = {}  # those that are tried again, by slot
        self._final: set[int] = set()  # of them, those whose next rejection is for good
        self._again = False  # the last batch was one of them
        self._ended: dict[object, Callable[[], object]] = {}  # to be called when the thread has ended
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="slabcache-flusher", daemon=True)

    # ---- for the cache ---------------------------------------------------------------------------------

    def start(self, timeout: float) -> None:
        """Become the one who writes to the store. A cache that was dropped is saved before, for `timeout`
        seconds at most."""
        deadline = deadline_after(timeout)
        cache = self.cache()
        assert cache is not None
        try:
            for identity in self.identities:
                while (owner := _owners.setdefault(identity, self)) is not self:
                    owner.make_way(deadline)
            cache._attach(self._bells, self._kept)  # before: dropped from here on, it ends the thread
            self._thread.start()
        except BaseException:
            self._disown()
            if self._thread.ident is None:
                cache._detach()
            raise

    def _disown(self) -> None:
        for identity in self.identities:
            if _owners.get(identity) is self:
                _owners.pop(identity, None)

    def make_way(self, deadline: float | None) -> None:
        """Another cache is to write to this store: ValueError while this one is in use, TimeoutError where it
        was dropped, and its rows cannot be saved."""
        if self._is_used():
            idle = Bell()
            self._idle[idle] = idle.ring
            self._bells.put(None)
            while self._is_used() and not idle.wait(look_again(deadline)) and seconds_until(deadline) != 0:
                pass  # the thread itself may have the last reference, until its call of the store ends
            self._idle.pop(idle, None)
            for _ in range(
                COLLECTIONS
            ):  # it may be garbage, of which the thread has a reference for a moment
                gc.collect()
                if not self._is_used():
                    break
                time.sleep(COLLECT_AGAIN / COLLECTIONS)
            if self._is_used():
                raise ValueError(
                    f"store: another cache that is open writes to this {self._name()} or its table, and the "
                    "two would overwrite each other's rows; close() that one first"
                )
        while not self.join(time.monotonic() + COLLECT_AGAIN):
            self._bells.put(None)  # without the GIL a weak reference may be cleared without telling it
            if self._was_dropped and not self.is_dropped:
                gc.collect()  # it is saved, and garbage
            if seconds_until(deadline) != 0:
                continue
            cache = self.cache()
            unsaved = 0 if cache is None else cache._unsaved()[0]
            del cache  # the error keeps what is here
            error = TimeoutError(
                f"store: a cache was dropped without close(), and {unsaved} rows of it cannot be saved"
            )
            error.__cause__ = self.failure
            raise error

    def wait(self, need: Room | Saved) -> bool:
        """Return when a need is met; False at its deadline, or if it never will be."""
        bell = Bell()
        waiter = self.enlist(need, bell.ring)
        try:
            while not bell.wait(look_again(need.end)) and seconds_until(need.end) != 0:
                self.look_at(need)
        finally:
            self.dismiss(waiter)
        return waiter.is_met

    def enlist(self, need: Room | Saved, wake: Callable[[], object]) -> Waiter:
        """Have `wake` called, from some thread, when a need is met, or never will be, unless the waiter is
        dismissed before."""
        self.check_may_wait()
        waiter = Waiter(need)
        self._waiters[waiter] = wake
        if isinstance(need, Room) and need.again is not None:
            self._denied[waiter] = wake
        self._bells.put(need.until if isinstance(need, Saved) else None)
        if self._has_ended:
            wake()
        return waiter

    def look_at(self, need: Room | Saved) -> None:
        """Ring again for one who waits: a bell may be lost for want of memory."""
        with contextlib.suppress(MemoryError):
            self._bells.put(need.until if isinstance(need, Saved) else None)

    def tell_of_room(self) -> None:
        """Wake those who wait for no more than what was kept for another write."""
        for waiter, wake in self._denied.copy().items() if self._denied else ():
            waiter.is_met = True
            wake()

    def dismiss(self, waiter: Waiter) -> None:
        """Nobody waits any more. A need that was met a moment ago, unnoticed, is met."""
        self._waiters.pop(waiter, None)
        self._denied.pop(waiter, None)
        need, cache = waiter.need, self.cache()
        if waiter.is_met:
            return
        if isinstance(need, Saved):
            waiter.is_met = cache is None or cache._unsaved()[0] == 0
        elif need.again is None:
            waiter.is_met = self.freed >= need.freed
        else:
            waiter.is_met = seconds_until(need.again) == 0 or (
                cache is not None and self._is_met(need, cache)
            )

    def check_may_wait(self) -> None:
        if self.is_this_thread():
            raise RuntimeError(
                "the thread that writes behind cannot wait for itself: on_rejected, the methods of the store "
                "and finalizers that run in it can neither flush nor close the cache, nor wait for room"
            )

    def is_this_thread(self) -> bool:
        """Numbers of threads are used again when these have ended."""
        is_there = not self._has_ended and not self._is_child
        return is_there and threading.get_ident() == self._thread.ident

    def oldest(self, cache: WriteBehindCore) -> float:
        """Seconds since the oldest unsaved entry became dirty; 0.0 when there is none."""
        since = cache._unsaved()[3]
        ages = [self._since, self._oldest_aside(), since or None]
        known = [age for age in ages if age is not None]
        return max(0.0, (time.monotonic_ns() - min(known)) / 1e9) if known else 0.0

    def reset_counts(self) -> None:
        self.counts = Counts()

    @property
    def failure(self) -> BaseException | None:
        """Of the last attempt, while the store fails."""
        return self.last_error if self._failures or self._aside or self.store_is_closed else None

    @property
    def is_dropped(self) -> bool:
        """Whether nobody but this thread has the cache."""
        return self._kept[0] is not None

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    def cache(self) -> WriteBehindCore | None:
        kept: WriteBehindCore | None = self._kept[0]
        return self._cache() if kept is None else kept

    def _is_used(self) -> bool:
        cache = self.cache()
        return cache is not None and not self.is_dropped and not cache.closed and not self._has_ended

    def stop(self) -> None:
        self._is_stopping = True
        self._bells.put(None)
        self.join(None)

    def join(self, deadline: float | None) -> bool:
        """Whether the thread has ended before a deadline."""
        bell = Bell()
        self._ended[bell] = bell.ring
        if not self._has_ended and not self.is_this_thread():
            bell.wait(deadline)
        self._ended.pop(bell, None)
        return self._has_ended

    def forked(self) -> None:
        """In the child: the thread is gone."""
        self._bells = SimpleQueue()
        self._waiters = {}
        self._denied = {}
        self._drained = self._since = None
        self._is_child = True

    # ---- what callers wait for; in the thread ----------------------------------------------------------

    def _is_met(self, need: Room | Saved, cache: WriteBehindCore) -> bool:
        if isinstance(need, Room):
            return self.freed >= need.freed or (need.again is not None and not cache._keeps_room())
        older = (self._since, self._oldest_aside(), cache._unsaved()[3] or None)
        return all(since is None or since > need.until for since in older)

    def _tell(self, cache: WriteBehindCore) -> None:
        """Something has changed: wake those whose need is met."""
        for waiter, wake in self._waiters.copy().items():
            if self._is_met(waiter.need, cache):
                waiter.is_met = True
            if waiter.is_met or self.store_is_closed:
                persist(wake)
                self._waiters.pop(waiter, None)

    def _oldest_aside(self) -> int | None:
        return min((aside.since for aside in self._aside.copy().values()), default=None)

    # ---- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                try:
                    if not self._turn():
                        return
                except BaseException as error:  # nothing may end the thread, least of all want of memory
                    try:
                        self._fail(error)
                        self._pause()
                    except BaseException:
                        continue
        finally:
            self._disown()
            self._has_ended = True
            wake_all(self._ended)
            wake_all(self._waiters)

    def _turn(self) -> bool:
        """Write what is due and rest; whether the thread goes on."""
        cache = self.cache()
        if cache is None:
            if self._was_dropped:
                return False
            self._rest(None)  # its finalizer, which puts it into `_kept`, is about to run
            return True
        if self.is_dropped and not self._was_dropped:
            self._cache = weakref.ref(
                cache, lambda _: self._bells.put(None)
            )  # the other may have been cleared
            self._was_dropped = True
        self._restore(cache)  # what the store did not take, or an error of ours has left
        self._tell(cache)
        self._work(cache)
        timeout = self._sleep(cache)
        if timeout is None:
            self._kept[0] = None  # nothing to lose: it may go, unless somebody has come by it again
        del cache
        if self._was_dropped and self.cache() is None:
            return False
        self._rest(timeout)
        return True

    def _rest(self, timeout: float | None) -> None:
        """Until a bell rings, or there was no memory to ring it for long."""
        wake_all(self._idle)
        if self._is_stopping:
            return
        if timeout is None:
            timeout = max(LONGEST_DELAY, self._interval / 1e9)
        with contextlib.suppress(Empty):
            until = self._bells.get(timeout=timeout)
            while True:
                self._until = max(self._until, until or 0)
                until = self._bells.get_nowait()

    def _pause(self) -> None:
        """After a failed attempt. Whoever rings, a store that fails gets its time; but for the end, and for
        those who wait in vain."""
        until = time.monotonic() + _delay(self._failures)
        while not self._is_stopping and (left := until - time.monotonic()) > 0:
            self._rest(left)
            cache = self.cache()
            if cache is not None:
                self._tell(cache)
            del cache

    def _work(self, cache: WriteBehindCore) -> None:
        """Write all that is due; what the store raises is raised."""
        while not self._is_stopping and not self.store_is_closed:
            again = self._take(cache)
            if self._drained is None:
                return
            self._write(cache, again)

    def _sleep(self, cache: WriteBehindCore) -> float | None:
        """Seconds until something is due, None while nothing is unsaved. The cache is told, and looked at
        once more after that: what came in before rings no bell."""
        idle = cache._unsaved()[0] == 0
        unsaved, pends, since = cache._sleep(IDLE if idle else UNTIL_DUE)
        if unsaved == 0:
            # A write in between has rung before or will ring again.
            return None if idle and cache._unsaved()[0] == 0 else 0
        if self.store_is_closed:
            return LONGEST_DELAY
        if idle or pends or 0 < since <= self._wanted():
            return 0
        now = time.monotonic_ns()
        due = [max(0, since + self._interval - now) / 1e9] if since else []
        due += [
            0.0 if aside.is_new_rejection else max(0.0, aside.due - now / 1e9)
            for aside in self._aside.values()
            if self._is_final(aside, since) or aside.rejected is None
        ]
        return min(due, default=LONGEST_DELAY)

    def _wanted(self) -> int:
        """What became dirty no later is to be written now."""
        if self.is_dropped:
            return time.monotonic_ns()
        if any(isinstance(waiter.need, Room) for waiter in self._waiters.copy()):
            return time.monotonic_ns()
        return self._until

    # ---- batches ---------------------------------------------------------------------------------------

    def _take(self, cache: WriteBehindCore) -> bool:
        """Take a batch; whether its rows are some that have failed by themselves. These have every other turn
        at most."""
        again = not self._again and not self._failures and self._take_failing(cache)
        if not again and not self._take_due(cache):
            again = self._take_failing(cache)
        self._again = again
        return again

    def _take_due(self, cache: WriteBehindCore) -> bool:
        due = time.monotonic_ns() - self._interval
        if cache._unsaved()[3] <= due:  # those that are almost due go with it: a batch costs more than a row
            due += self._interval // EARLY
        self._drained = drained = Drained(cache, self._rows)
        cache._drain(drained, max(self._wanted(), due, 0))
        return self._has_taken(drained)

    def _has_taken(self, drained: Drained) -> bool:
        if len(drained):
            self._since = drained.oldest()
        else:
            self._drained = None
        return len(drained) > 0

    def _take_failing(self, cache: WriteBehindCore) -> bool:
        now, since = time.monotonic(), cache._unsaved()[3]
        final = {slot for slot, aside in self._aside.items() if self._is_final(aside, since)}
        slots = [
            slot
            for slot, aside in self._aside.items()
            if (aside.is_new_rejection or aside.due <= now) and (slot in final or aside.rejected is None)
        ][: self._rows]
        if not slots:
            return False
        self._final = final
        self._drained = drained = Drained(cache, len(slots))
        cache._take_again(drained, np.array(slots, np.uint32))
        self._again_by = {slot: self._aside[slot] for slot in slots}
        for slot in slots:
            del self._aside[slot]
        return self._has_taken(drained)

    def _is_final(self, aside: Aside, since: int) -> bool:
        """Whether the next rejection of a row is for good: what was unsaved when it was rejected first is
        saved. Of rows that fail by themselves deletions alone count: one may be what the row needs."""
        if aside.rejected is None or 0 < since <= aside.rejected:
            return False
        deletions = (other for other in self._aside.values() if other.deleted and other.rejected is None)
        return all(deletion.since > aside.rejected for deletion in deletions)

    def _write(self, cache: WriteBehindCore, again: bool) -> None:
        """Give the batch to the store, deletions first: a new row may need what an old one leaves free.

        Where the store is away, that is raised. But rows that have failed by themselves before say nothing
        about others.
        """
        assert self._drained is not None
        rows = Rows(*self._drained.columns())
        outcomes: list[tuple[Rows, Outcome]] = []
        for part in (rows.part(rows.deleted), rows.part(~rows.deleted)):

            def save(which: Any, part: Rows = part) -> None:
                self._save(cache, part.part(which))

            if len(part.slots):
                outcomes.append((part, divide(len(part.slots), save, twice=True, caught=BaseException)))
        errors = [outcome.error for _, outcome in outcomes if outcome.error is not None]
        answered = any(outcome.answered for _, outcome in outcomes)
        if not answered and not again and any(outcome.rest for _, outcome in outcomes):
            raise errors[-1]
        if errors:
            self._note(errors[-1], answered)
        for part, outcome in outcomes:
            failing = list(outcome.rest) if again or not outcome.answered else []
            rejected = []
            for row, error in sorted(outcome.failed.items()):
                if not isinstance(error, RowsRejected):
                    failing.append(row)
                elif int(part.slots[row]) in self._final:
                    self._reject(cache, part.part([row]), error)
                else:
                    rejected.append(row)
            self._put_aside(cache, part.part(failing), is_rejected=False)
            self._put_aside(cache, part.part(rejected), is_rejected=True)
        self._again_by, self._final = {}, set()
        self._restore(cache)  # what nobody knows about
        if answered:
            self._failures = 0
        if self._trouble and not errors and not self._aside:  # told before those who wait go on
            _tell_log("%s takes all rows again, after %d failed attempts", self._name(), self._trouble)
            self._trouble = 0
        self._tell(cache)

    def _save(self, cache: WriteBehindCore, part: Rows) -> None:
        """Save rows that are all to be deleted, or none."""
        keys = _read_only(from_rows(cache._key_schema, part.keys))
        if part.deleted[0]:
            call: Callable[..., object] = self.store.delete_many
            answer = call(keys)
        else:
            call = self.store.save_many
            answer = call(keys, _read_only(from_rows(cache._value_schema, part.values)))
        if isinstance(answer, Coroutine):
            answer.close()
            raise RuntimeError(f"{self._name()} has coroutines for methods, and needs plain ones")
        self._settle(cache, part)

    def _settle(self, cache: WriteBehindCore, part: Rows) -> None:
        cache._settle(part.slots, True)
        self.counts.flushes += 1
        self.counts.flushed_rows += len(part.slots)
        self.freed += len(part.slots)
        self._tell(cache)

    def _reject(self, cache: WriteBehindCore, part: Rows, error: BaseException) -> None:
        keys = from_rows(cache._key_schema, part.keys)
        values = from_rows(cache._value_schema, part.values)
        cache._settle(part.slots, False)
        try:
            self.counts.rejected_rows += len(part.slots)
            self.freed += len(part.slots)
            self._tell(cache)
        finally:  # the row has gone: whatever fails, that is told
            self._tell_rejected(keys, values, part, error)

    def _tell_rejected(self, keys: Array, values: Array, part: Rows, error: BaseException) -> None:
        if self._on_rejected is None:
            what = "the deletion" if part.deleted[0] else "a row"
            text = "%s refused %s for good: key %s: %s"
            _tell_log(text, self._name(), what, keys[0], error, level=logging.ERROR)
            return
        try:
            self._on_rejected(keys, values, error)
        except BaseException as raised:  # nothing may end the thread
            _tell_log("on_rejected raised", level=logging.ERROR, exc_info=raised)

    def _put_aside(self, cache: WriteBehindCore, part: Rows, is_rejected: bool) -> None:
        """Rows that fail by themselves are tried again, each after a pause that doubles."""
        if not len(part.slots):
            return
        now = time.monotonic()
        for slot, since in zip(part.slots.tolist(), part.since.tolist(), strict=True):
            before = self._again_by.get(slot)
            pause = FIRST_DELAY if before is None else min(before.pause * 2, LONGEST_DELAY)
            rejected = None if before is None else before.rejected
            if is_rejected and rejected is None:
                rejected = time.monotonic_ns()
            due = now + pause * _random.uniform(0.5, 1)
            self._aside[slot] = Aside(since, due, pause, rejected, deleted=bool(part.deleted[0]))
        cache._put_aside(part.slots, part.since)

    def _note(self, error: BaseException, answered: bool) -> None:
        """An attempt has failed, for a part at least; where the store has answered, others are saved."""
        if not self._trouble:
            # As text: a log may keep its records, and these would keep the frames, and so the cache.
            where = "".join(traceback.format_exception(error))
            what = "fails for single rows, which" if answered else "fails; rows"
            _tell_log("%s %s are kept and tried again: %r\n%s", self._name(), what, error, where)
        cache = self.cache()
        # One that says so of the cache comes from a store that uses it, while it closes.
        is_of_cache = cache is not None and cache.closed and str(error) == "the cache is closed"
        del cache
        self.store_is_closed |= isinstance(error, ClosedError) and not is_of_cache
        self.last_error = _without_frames(error)
        self._trouble += 1
        self.counts.flush_errors += 1  # last: who sees it finds the error

    def _fail(self, error: BaseException) -> None:
        """An attempt has failed as a whole."""
        self._failures += 1
        self._note(error, answered=False)

    def _restore(self, cache: WriteBehindCore) -> None:
        """Rows of the batch under way that are not settled are dirty again."""
        if self._drained is not None:
            cache._restore(self._drained)
            self._drained = self._since = None

    def _name(self) -> str:
        return type(self.store).__name__


def _delay(failures: int) -> float:
    """Seconds until the next attempt: doubled after each failure, with jitter."""
    delay: float = FIRST_DELAY * 2.0 ** min(max(failures - 1, 0), 20)
    return min(delay, LONGEST_DELAY) * _random.uniform(0.5, 1)


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
