"""The structures below the caches, one by one, for the tests in `tests/structures`.

Built in debug builds alone. Each class owns the memory of one structure and hands its functions on as
they are: hashes and slot numbers come from the test, so that collisions can be chosen.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from slabcache.arena.header cimport (
    BUCKET_CELLS,
    BUCKET_SIZE,
    NIL,
    arena_create,
    arena_destroy,
    seed_t,
    shape_t,
    slot_t,
    trail_t,
)
from slabcache._base cimport SlabBase
from slabcache.behind.arena.slab cimport (
    OUTCOME_FOUND,
    STORED_FOUND,
    behind_delete,
    batch_t,
    behind_drain,
    behind_invalidate,
    behind_put,
    behind_read,
    behind_restore,
    behind_settle,
    row_t,
)
from slabcache.arena.check cimport CHECK_OK, check_slab
from slabcache.behind.arena.check cimport check_behind
from slabcache.arena.field cimport KIND_FLOAT, KIND_SIGNED, KIND_UNSIGNED, delta_t, field_add, field_t
from slabcache.arena.hash cimport hash_key
from slabcache.machine.lock cimport (
    flag_t,
    lock_acquire,
    lock_release,
    overtakes_of,
    running_batches,
    set_rest as set_rest_of_batches,
)
from slabcache.arena.lru cimport (
    link_t,
    lru_least_recent,
    lru_link,
    lru_most_recent,
    lru_move_to_front,
    lru_push,
    lru_t,
    lru_unlink,
)
from slabcache.behind.arena.marks cimport (
    STATE_EVICTED,
    STATE_PASSED,
    link_is_free,
    link_is_marked,
    link_mark,
    link_set_free,
    link_set_used,
    mark_set_state,
    mark_state,
    mark_t,
    marks_give_back,
    marks_of,
    marks_set_hint,
    marks_t,
    marks_take,
    pool_t,
)
from slabcache.machine.native cimport native_first_bit, native_match_tags, native_multiply
from slabcache.arena.slab cimport (
    rows_t,
    slab_attach,
    slab_clear,
    slab_count_look_up,
    slab_erase,
    slab_evict,
    slab_find,
    slab_free,
    slab_hash,
    slab_key,
    slab_move,
    slab_put,
    slab_t,
    slab_value,
)
from slabcache.arena.table cimport bucket_t, table_clear, table_erase, table_find, table_insert, table_t
from slabcache.behind.arena.unsaved cimport (
    behind_at,
    behind_attach,
    behind_is_unsaved,
    behind_t,
    unsaved_pool_size,
    unsaved_size,
)


cdef class Table:
    """A table of `bucket_count` buckets over keys of `key_size` bytes."""

    cdef table_t table
    cdef char *keys
    cdef slot_t slots

    def __cinit__(self, uint64_t bucket_count, slot_t slots, size_t key_size):
        self.slots = slots
        self.keys = <char *>calloc(slots + 1, key_size)
        buckets = <bucket_t *>calloc(bucket_count, BUCKET_SIZE)
        self.table = table_t(buckets, bucket_count, self.keys, key_size, key_size)
        if self.keys is NULL or self.table.buckets is NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.table.buckets)
        free(self.keys)

    def insert(self, uint64_t hash, slot_t slot, bytes key):
        assert <size_t>len(key) == self.table.key_size and 0 < slot <= self.slots
        memcpy(self.keys + slot * self.table.key_stride, PyBytes_AS_STRING(key), self.table.key_size)
        table_insert(&self.table, hash, slot)

    def find(self, uint64_t hash, bytes key):
        assert <size_t>len(key) == self.table.key_size
        return table_find(&self.table, hash, key)

    def erase(self, uint64_t hash, slot_t slot):
        table_erase(&self.table, hash, slot)

    def clear(self):
        table_clear(&self.table)

    def overflow(self):
        cdef list counts = [None] * self.table.bucket_count
        for index in range(self.table.bucket_count):
            counts[index] = self.table.buckets[index].overflow
        return counts

    def cells(self):
        cdef list slots = []
        for index in range(self.table.bucket_count):
            for cell in range(BUCKET_CELLS):
                if self.table.buckets[index].tags[cell]:
                    slots.append(self.table.buckets[index].slots[cell])
        return sorted(slots)


cdef class List:
    """An LRU list over slots 1 to `slots`, with `stride` bytes from links to links."""

    cdef lru_t lru
    cdef trail_t trail

    def __cinit__(self, slot_t slots, size_t stride=12):
        self.lru = lru_t(<char *>calloc(slots + 1, stride), stride, &self.trail)
        if self.lru.links is NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.lru.links)

    def push(self, slot_t slot):
        lru_push(&self.lru, slot)

    def unlink(self, slot_t slot):
        lru_unlink(&self.lru, slot)

    def move_to_front(self, slot_t slot):
        return lru_move_to_front(&self.lru, slot)

    def forward(self):
        """From most to least recent."""
        order = []
        cdef slot_t slot = lru_most_recent(&self.lru)
        while slot != NIL:
            order.append(slot)
            slot = lru_link(&self.lru, slot).next
        return order

    def backward(self):
        """From least to most recent."""
        order = []
        cdef slot_t slot = lru_least_recent(&self.lru)
        while slot != NIL:
            order.append(slot)
            slot = lru_link(&self.lru, slot).prev
        return order


cdef class Slab:
    """A slab in an arena of its own, with chosen secrets."""

    cdef slab_t slab
    cdef seed_t seed

    def __cinit__(self, uint64_t capacity, uint64_t key_size, uint64_t value_size, words=(1, 2, 3, 4)):
        for index in range(4):
            self.seed.words[index] = words[index]
        cdef shape_t shape = shape_t(capacity, 0, key_size, value_size, 0, 0)
        header = arena_create(&shape, &self.seed)
        if header is NULL:
            raise MemoryError()
        slab_attach(&self.slab, header)

    def __dealloc__(self):
        arena_destroy(self.slab.header)

    def check(self):
        """0, or the number of the first broken invariant and the slot where it was seen."""
        cdef slot_t culprit
        status = check_slab(&self.slab, &culprit)
        if status == CHECK_OK:
            return 0
        return status, culprit

    def hash(self, bytes key):
        return slab_hash(&self.slab, key)

    def put(self, bytes key, bytes value):
        """The evicted `(key, value)`, or None."""
        evicted_key, evicted_value = bytearray(len(key)), bytearray(len(value))
        cdef rows_t rows = rows_t(evicted_key, evicted_value, 0)
        assert len(key) == self.slab.header.key_size and len(value) == self.slab.header.value_size
        slab_put(&self.slab, slab_hash(&self.slab, key), key, value, &rows)
        return (bytes(evicted_key), bytes(evicted_value)) if rows.count else None

    def get(self, bytes key):
        slot = slab_find(&self.slab, key)
        slab_count_look_up(&self.slab, slot)
        return slab_value(&self.slab, slot)[: self.slab.header.value_size] if slot != NIL else None

    def find(self, bytes key):
        return slab_find(&self.slab, key)

    def erase(self, bytes key):
        slot = slab_find(&self.slab, key)
        if slot != NIL:
            slab_erase(&self.slab, slab_hash(&self.slab, key), slot)
        return slot != NIL

    def evict(self):
        slab_free(&self.slab, slab_evict(&self.slab, NULL, True))

    def clear(self):
        slab_clear(&self.slab)

    def moved(self, uint64_t capacity):
        """A slab of another capacity with the entries of this one, which must not be used any more."""
        cdef Slab target = Slab(
            capacity, self.slab.header.key_size, self.slab.header.value_size, tuple(self.seed.words)
        )
        slab_move(&target.slab, &self.slab, NULL)
        return target

    def entries(self):
        """`(key, value)` pairs from least to most recent."""
        pairs = []
        cdef slot_t slot = lru_least_recent(&self.slab.lru)
        while slot != NIL:
            pairs.append(
                (
                    slab_key(&self.slab, slot)[: self.slab.header.key_size],
                    slab_value(&self.slab, slot)[: self.slab.header.value_size],
                )
            )
            slot = lru_link(&self.slab.lru, slot).prev
        return pairs

    def counters(self):
        return self.slab.header.counters

    def corrupt(self, str what, slot_t slot):
        """Break one invariant on purpose: a walker that never fails proves nothing."""
        if what == "prev":
            lru_link(&self.slab.lru, slot).prev = slot
        elif what == "next":
            lru_link(&self.slab.lru, slot).next = slot
        elif what == "key":
            (<char *>slab_key(&self.slab, slot))[0] ^= 1
        elif what == "table":
            table_erase(&self.slab.table, slab_hash(&self.slab, slab_key(&self.slab, slot)), slot)
        elif what == "tag":
            for index in range(self.slab.table.bucket_count):
                empty = native_match_tags(self.slab.table.buckets[index].tags, 0)
                if empty:
                    self.slab.table.buckets[index].tags[native_first_bit(empty)] = 77
                    break
        elif what == "overflow":
            self.slab.table.buckets[0].overflow += 1
        elif what == "free":
            self.slab.header.free_head = slot
        elif what == "size":
            self.slab.header.counters.insertions += 1
        elif what == "hint":
            lru_link(&self.slab.lru, slot).hint = self.slab.header.fresh + 1
        elif what == "trail":
            self.slab.header.trail.coming[slot] = self.slab.header.fresh + 1
        elif what == "header":
            self.slab.header.layout += 1
        else:
            raise ValueError(what)


cdef class Marks:
    """The marks of slots 1 to `slots`."""

    cdef marks_t marks
    cdef pool_t pool
    cdef link_t *links

    def __cinit__(self, slot_t slots):
        self.marks.pool = &self.pool
        self.marks.marks = <mark_t *>calloc(slots + 1, sizeof(mark_t))
        self.links = <link_t *>calloc(slots + 1, sizeof(link_t))
        if self.marks.marks is NULL or self.links is NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.marks.marks)
        free(self.links)

    def take(self, slot_t slot):
        number = marks_take(&self.marks, &self.links[slot], slot)
        assert number == link_mark(&self.links[slot]) and self.marks.marks[number].slot == slot
        return number

    def give_back(self, slot_t slot):
        marks_give_back(&self.marks, &self.links[slot])

    def set_free(self, slot_t slot):
        link_set_free(&self.links[slot])

    def set_used(self, slot_t slot):
        link_set_used(&self.links[slot])

    def set_hint(self, slot_t slot, slot_t hint):
        marks_set_hint(&self.marks, &self.links[slot], hint)

    def look(self, slot_t slot):
        """`"free"`, or the number of the mark, or None, and the hint."""
        if link_is_free(&self.links[slot]):
            return "free"
        if link_is_marked(&self.links[slot]):
            return link_mark(&self.links[slot]), marks_of(&self.marks, &self.links[slot]).hint
        return None, self.links[slot].hint

    def touched(self):
        """Marks that were ever taken."""
        return self.pool.fresh


cdef class Unsaved:
    """A cache before a store, with numbers of 8 bytes as keys, which are the values, too."""

    cdef behind_t behind
    cdef slot_t batch[64]
    cdef size_t batch_size

    def __cinit__(self, uint64_t capacity, uint64_t spare):
        cdef seed_t seed = seed_t([1, 2, 3, 4])
        cdef uint64_t slots = capacity + spare
        cdef shape_t shape = shape_t(capacity, spare, 8, 8, unsaved_size(slots), unsaved_pool_size(slots))
        header = arena_create(&shape, &seed)
        if header is NULL:
            raise MemoryError()
        behind_attach(&self.behind, header)
        self.behind.unsaved.max_pending = spare

    def __dealloc__(self):
        arena_destroy(self.behind.slab.header)

    def check(self):
        """0, or the number of the first broken invariant and the slot where it was seen."""
        cdef slot_t culprit
        status = check_behind(&self.behind, &culprit)
        if status == CHECK_OK:
            return 0
        return status, culprit

    cdef row_t row(self, uint64_t *key, uint64_t *value) noexcept:
        cdef row_t row
        row.key = <const char *>key
        row.value = <char *>value
        row.hash = slab_hash(&self.behind.slab, row.key)
        row.stored = STORED_FOUND
        row.since = <uint64_t>-1
        row.default = NULL
        return row

    def find(self, uint64_t key):
        """The slot of a key, or 0."""
        return slab_find(&self.behind.slab, <const char *>&key)

    def write(self, uint64_t key):
        """Whether there was room."""
        cdef uint64_t value = key
        cdef row_t row = self.row(&key, &value)
        cdef slot_t slot = self.find(key)
        return behind_put(&self.behind, slot, &row, <const char *>&value, 1, NULL) == OUTCOME_FOUND

    def delete(self, uint64_t key):
        """Whether there was room, and something to delete."""
        cdef uint64_t value = key
        cdef row_t row = self.row(&key, &value)
        return behind_delete(&self.behind, self.find(key), &row, 1) == OUTCOME_FOUND

    def load(self, uint64_t key):
        """A read of a key that the store has; the new entry needs room, but the read does not."""
        cdef uint64_t value = key
        cdef row_t row = self.row(&key, &value)
        behind_read(&self.behind, self.find(key), &row, True, True)

    def invalidate(self, uint64_t key):
        """Whether it was saved."""
        cdef uint64_t hash = slab_hash(&self.behind.slab, <const char *>&key)
        return behind_invalidate(&self.behind, self.find(key), hash)

    def restore(self):
        cdef uint64_t since[64]
        cdef size_t row
        for row in range(self.batch_size):
            since[row] = 1
        behind_restore(&self.behind, self.batch, since, self.batch_size)
        self.batch_size = 0

    def listed(self):
        """`(key, whether it is unsaved)` of the entries of the LRU list, from least to most recent."""
        cdef list entries = []
        cdef slot_t slot = lru_least_recent(&self.behind.slab.lru)
        cdef uint64_t key
        while slot != NIL:
            memcpy(&key, slab_key(&self.behind.slab, slot), sizeof(key))    # keys lie anywhere
            entries.append((key, behind_is_unsaved(&self.behind, slot) != 0))
            slot = lru_link(&self.behind.slab.lru, slot).prev
        return entries

    def steps(self):
        """Of all searches for a clean entry."""
        return self.behind.unsaved.steps

    def drain(self, size_t limit):
        """How many rows the store is given, at most 64."""
        cdef uint64_t since[64]
        cdef uint8_t deleted[64]
        keys, values = bytearray(64 * 8), bytearray(64 * 8)
        cdef batch_t batch
        batch.slots = self.batch
        batch.since = since
        batch.deleted = deleted
        batch.rows = rows_t(keys, values, 0)
        assert limit <= 64
        behind_drain(&self.behind, <uint64_t>-1, limit, &batch)
        self.batch_size = batch.rows.count
        return self.batch_size

    def settle(self, bint saved=True):
        behind_settle(&self.behind, self.batch, self.batch_size, saved)
        self.batch_size = 0

    def mark(self, slot_t slot):
        """The number of the mark of a slot, or None."""
        if link_is_marked(behind_at(&self.behind, slot)):
            return link_mark(behind_at(&self.behind, slot))

    def touched(self):
        """Marks that were ever taken."""
        return self.behind.marks.pool.fresh

    def unsaved(self):
        return self.behind.unsaved.count

    def corrupt(self, str what, slot_t slot):
        """Break what holds between slots and marks."""
        cdef marks_t *marks = &self.behind.marks
        cdef link_t *link = behind_at(&self.behind, slot)
        cdef mark_t *mark = marks_of(marks, link)
        if what == "slot of mark":
            mark.slot += 1
        elif what == "owner":
            mark.slot = NIL
        elif what == "mark of slot":
            link.hint += 1
        elif what == "shared mark":
            link.hint = behind_at(&self.behind, slot + 1).hint
        elif what == "beyond":
            link.hint += 1000
        elif what == "lost mark":
            link.hint = NIL
        elif what == "clean":
            mark_set_state(mark, 0)
        elif what == "flag":
            mark_set_state(mark, mark_state(mark) | STATE_EVICTED)
        elif what == "hint":
            mark.hint = self.behind.slab.header.fresh + 1
        elif what == "hint of clean":
            link.hint = self.behind.slab.header.fresh + 1
        elif what == "since":
            mark.since = 7
        elif what == "free":
            link_set_free(link)
        elif what == "used":
            link_set_used(link)
        elif what == "leak":
            marks.pool.free = 0
        elif what == "taken again":
            marks.pool.free = link_mark(link)
        elif what == "endless":
            marks.marks[marks.pool.free].next = marks.pool.free
        elif what == "fresh":
            marks.pool.fresh += 1
        elif what == "dirty ring":
            mark.next = mark.prev
        elif what == "passed":
            mark_set_state(mark, mark_state(mark) | STATE_PASSED)
        elif what == "cursor":
            self.behind.unsaved.cursor = slot
        elif what == "overtaken ring":
            self.behind.unsaved.overtaken_ends.next = link_mark(link)
        elif what == "pending ring":
            self.behind.unsaved.pending_ends.next = slot
        else:
            raise ValueError(what)


def match_tags(bytes tags, uint8_t tag):
    assert len(tags) == 16
    return native_match_tags(<const uint8_t *>PyBytes_AS_STRING(tags), tag)


def multiply(uint64_t a, uint64_t b):
    cdef uint64_t high
    cdef uint64_t low = native_multiply(a, b, &high)
    return (<object>high << 64) | low


def hash_of(words, bytes key):
    cdef seed_t seed
    for index in range(4):
        seed.words[index] = words[index]
    return hash_key(&seed, key, len(key))


def add(str kind, bytes packed, *, uint64_t magnitude=0, bint negative=False, double real=0.0):
    """`field_add` on a number of kind "i", "u" or "f": its new bytes, or None where it would wrap."""
    cdef field_t field = field_t(
        0, <uint32_t>len(packed), KIND_FLOAT if kind == "f" else KIND_SIGNED if kind == "i" else KIND_UNSIGNED
    )
    cdef delta_t delta = delta_t(magnitude, real, negative)
    target = bytearray(packed)
    fits = field_add(&field, target, &delta)
    assert fits or target == packed
    return bytes(target) if fits else None


# ---- locks -------------------------------------------------------------------------------------------

def set_rest(bint whether):
    """Have threads that end a batch without the GIL rest before they want it back, or let them go on."""
    set_rest_of_batches(whether)


def batches():
    """Batches, of all caches, that run without the GIL."""
    return running_batches()


def overtakes(SlabBase cache not None):
    """Batches that had the cache before one which had come earlier; 0 on builds without a GIL, where the
    interpreter's mutex sees to the order."""
    return overtakes_of(&cache.lock)


cdef void write_locked(SlabBase cache, const uint64_t *key, const uint64_t *value) noexcept nogil:
    lock_acquire(&cache.lock)
    slab_put(
        &cache.slab, slab_hash(&cache.slab, <const char *>key), <const char *>key, <const char *>value, NULL
    )
    lock_release(&cache.lock)


cdef class Writer:
    """What a thread without a GIL does in scalar calls: it writes to a cache of u8 keys and values, in C
    alone, so that it never waits for the interpreter."""

    cdef flag_t stopped

    def run(self, SlabBase cache not None, uint64_t keys):
        """Write numbers to keys below `keys`, until `stop` is called from another thread; how many."""
        cdef uint64_t key, count = 0
        with nogil:
            while not self.stopped:
                key = count % keys
                write_locked(cache, &key, &count)
                count += 1
        return count

    def stop(self):
        self.stopped = True


# ---- memory ------------------------------------------------------------------------------------------

cdef extern from *:
    """
    static struct {
        PyMemAllocatorEx under[3]; /* of the domains RAW, MEM and OBJ */
        unsigned long thread;      /* whose allocations are counted; 0: of none */
        long count, fails;         /* allocations so far, and the number of the one that fails */
    } failing;

    static int failing_now(void)
    {
        unsigned long thread = __atomic_load_n(&failing.thread, __ATOMIC_ACQUIRE);
        return thread && PyThread_get_thread_ident() == thread && ++failing.count == failing.fails;
    }

    static void *failing_malloc(void *context, size_t size)
    {
        PyMemAllocatorEx *under = (PyMemAllocatorEx *)context;
        return failing_now() ? NULL : under->malloc(under->ctx, size);
    }

    static void *failing_calloc(void *context, size_t count, size_t size)
    {
        PyMemAllocatorEx *under = (PyMemAllocatorEx *)context;
        return failing_now() ? NULL : under->calloc(under->ctx, count, size);
    }

    static void *failing_realloc(void *context, void *memory, size_t size)
    {
        PyMemAllocatorEx *under = (PyMemAllocatorEx *)context;
        return failing_now() ? NULL : under->realloc(under->ctx, memory, size);
    }

    static void failing_free(void *context, void *memory)
    {
        PyMemAllocatorEx *under = (PyMemAllocatorEx *)context;
        under->free(under->ctx, memory);
    }

    /* Once, for good, and early: other threads allocate by what is exchanged here. */
    static void failing_install(void)
    {
        for (int domain = 0; domain < 3; domain++) {
            PyMemAllocatorEx hook = {
                &failing.under[domain], failing_malloc, failing_calloc, failing_realloc, failing_free
            };
            PyMem_GetAllocator((PyMemAllocatorDomain)domain, &failing.under[domain]);
            PyMem_SetAllocator((PyMemAllocatorDomain)domain, &hook);
        }
    }

    static void failing_start(long number)
    {
        failing.count = 0;
        failing.fails = number;
        __atomic_store_n(&failing.thread, PyThread_get_thread_ident(), __ATOMIC_RELEASE);
    }

    static long failing_stop(void)
    {
        __atomic_store_n(&failing.thread, 0, __ATOMIC_RELEASE);
        return failing.count;
    }
    """
    void failing_install()
    void failing_start(long number)
    long failing_stop()


failing_install()


def without_memory(long number, call, *arguments):
    """`(error, reached)` of a call of which one allocation of the interpreter's fails, the one of this
    number in this thread, counted from 1: what it raised, or None, and whether it came so far."""
    error = None
    failing_start(number)
    try:
        call(*arguments)
    except BaseException as raised:
        error = raised
    finally:
        count = failing_stop()
    return error, count >= number
