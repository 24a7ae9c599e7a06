"""The calls that take many keys: arrays to packed rows, one kernel under the lock, arrays back.

The steps are those of `_core.pyx`. All arguments are checked and all results allocated before the lock is
taken; the kernels of `arena/batch.pxd` then run without the GIL where the batch is large.
"""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState
from libc.stdint cimport uint8_t, uint64_t

from slabcache._base cimport Evicted, empty_rows, evicted_rows, is_packed, new_evicted
from slabcache._core cimport CacheCore
from slabcache.arena.field cimport delta_t, field_t
from slabcache.machine.integer cimport integer_fill, integer_room
from slabcache.arena.batch cimport (
    batch_contains,
    batch_delete,
    batch_increment,
    batch_put,
    batch_read,
)
from slabcache.arena.lookahead cimport column_t
from slabcache.codec.record cimport Schema

import numpy as np

from slabcache.errors import SumOverflowError
from slabcache.codec.rows import as_deltas, as_rows, out_array, write_rows

cnp.import_array()


cdef column_t column_of(cnp.ndarray rows, Py_ssize_t size, cnp.npy_intp count) except *:
    """Where `count` rows of `size` bytes lie. Asked for after all code of the caller has run, right before
    the lock: that code may have changed the array."""
    cdef column_t column
    if cnp.PyArray_NDIM(rows) != 1 or cnp.PyArray_DIM(rows, 0) != count or cnp.PyArray_ITEMSIZE(rows) != size:
        raise ValueError("an array was changed while the other arguments were read")
    column.base = cnp.PyArray_BYTES(rows)
    column.stride = cnp.PyArray_STRIDE(rows, 0)
    return column


cdef object packed_rows(Schema schema, object source):
    """`source` as packed rows: itself where it is an array of them already."""
    cdef cnp.ndarray rows
    if cnp.PyArray_CheckExact(source):
        rows = <cnp.ndarray>source
        if cnp.PyArray_NDIM(rows) == 1:
            if <PyObject *>cnp.PyArray_DESCR(rows) == <PyObject *>schema.packed:
                return source
            if schema.is_record and cnp.PyArray_EquivTypes(rows.dtype, <cnp.dtype>schema.packed):
                return source
    return as_rows(schema, source)


cdef bint is_single(object keys):
    """Whether `keys` is zero-dimensional: results then are too, as numpy's are."""
    return isinstance(keys, (np.ndarray, np.generic)) and keys.ndim == 0


cdef class BatchCore(CacheCore):
    """The typed LRU cache below `SlabCache`, with its batch calls."""

    # ---- reading ---------------------------------------------------------------------------------------

    cdef object rows_of(self, Schema schema, object source):
        self.ready()
        return packed_rows(schema, source)

    cdef void read_rows(
        self, column_t keys, size_t rows, column_t values, uint8_t *found, bint counted
    ) noexcept:
        cdef PyThreadState *state = self.enter(rows)
        batch_read(self.slab, keys, rows, values, found, counted)
        self.leave(state)

    cdef object read_many(self, object keys, bint counted):
        """`(values, found)`, new arrays, which are made before anything is counted or moved."""
        cdef Schema schema = self._value_schema
        cdef cnp.ndarray rows = self.rows_of(self._key_schema, keys)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(rows, 0)
        cdef cnp.ndarray found = cnp.PyArray_EMPTY(1, &count, cnp.NPY_BOOL, 0)
        cdef cnp.ndarray packed = empty_rows(schema.packed, count)
        cdef cnp.ndarray values = packed if is_packed(schema) else np.zeros(count, schema.dtype)
        cdef object result = (values, found)
        if rows is not keys and is_single(keys):
            result = values[0, ...], found.reshape(())
        self.read_rows(
            column_of(rows, self._key_schema.size, count),
            count,
            column_of(packed, schema.size, count),
            <uint8_t *>cnp.PyArray_DATA(found),
            counted,
        )
        if values is not packed:
            schema.unpack_to(cnp.PyArray_BYTES(values), cnp.PyArray_BYTES(packed), count)
        return result

    cdef object read_into(self, object keys, object out, bint counted):
        """`(out, found)`. Where `out` has another layout than packed rows, numpy converts at the end."""
        cdef Schema schema = self._value_schema
        cdef cnp.ndarray rows = self.rows_of(self._key_schema, keys)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(rows, 0)
        cdef bint single = rows is not keys and is_single(keys)
        cdef tuple shape = () if single else (count,)
        cdef cnp.ndarray found = cnp.PyArray_EMPTY(1, &count, cnp.NPY_BOOL, 0)
        cdef cnp.ndarray target = out_array(schema, out, shape)
        cdef bint direct = is_packed(schema) and not single
        cdef cnp.ndarray packed = target if direct else empty_rows(schema.packed, count)
        cdef object result = (out, found.reshape(shape))
        if direct and np.may_share_memory(target, rows):
            rows = rows.copy()
        self.read_rows(
            column_of(rows, self._key_schema.size, count),
            count,
            column_of(packed, schema.size, count),
            <uint8_t *>cnp.PyArray_DATA(found),
            counted,
        )
        if not direct:
            write_rows(schema, packed.reshape(shape), target)
        return result

    def get_many(self, keys, *, out=None):
        """The values of `keys`: a loop of `get`, in order, at memory speed and without the GIL.

        Parameters
        ----------
        keys
            n keys: an array of the key dtype, an (n, fields) array of integers where the key's fields are
            integers of one type, or any iterable of keys.
        out
            An array of n values to fill and return as `values`.

        Returns
        -------
        values, found
            n values of the value dtype, zero where the key is absent, and n bools.

        Raises
        ------
        TypeError, ValueError, OverflowError
            The keys are of another type, shape or range; nothing has happened then. O(n).

        >>> import numpy as np
        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> values, found = cache.get_many(np.array([2, 3, 1]))
        >>> values, found
        (array([20,  0, 10], dtype=int32), array([ True, False,  True]))
        """
        return self.read_many(keys, True) if out is None else self.read_into(keys, out, True)

    def peek_many(self, keys, *, out=None):
        """What `get_many` returns, without counting look-ups or changing the order. O(n).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> cache.peek_many([1, 5])[0], list(cache)
        (array([10,  0], dtype=int32), [1, 2])
        """
        return self.read_many(keys, False) if out is None else self.read_into(keys, out, False)

    cdef object test_many(self, object keys, bint touch):
        cdef cnp.ndarray rows = self.rows_of(self._key_schema, keys)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(rows, 0)
        cdef cnp.ndarray found = cnp.PyArray_EMPTY(1, &count, cnp.NPY_BOOL, 0)
        cdef column_t column = column_of(rows, self._key_schema.size, count)
        cdef uint8_t *found_data = <uint8_t *>cnp.PyArray_DATA(found)
        cdef object result = found.reshape(()) if rows is not keys and is_single(keys) else found
        cdef PyThreadState *state = self.enter(count)
        batch_contains(self.slab, column, count, found_data, touch)
        self.leave(state)
        return result

    def contains_many(self, keys):
        """Whether each of n keys is there, as n bools; order and counts stay. O(n).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache[1] = 10
        >>> cache.contains_many([1, 2])
        array([ True, False])
        """
        return self.test_many(keys, False)

    def touch_many(self, keys):
        """A loop of `touch`: whether each of n keys is there, as n bools. O(n).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> cache.touch_many([1, 9]), list(cache)
        (array([ True, False]), [2, 1])
        """
        return self.test_many(keys, True)

    # ---- writing ---------------------------------------------------------------------------------------

    cdef uint64_t put_rows(self, column_t keys, column_t values, size_t rows, rows_t *evicted) noexcept:
        """How many were evicted. The stack that the kernel takes, kilobytes, is free when `on_evict` runs."""
        cdef PyThreadState *state = self.enter(rows)
        cdef uint64_t before = self.slab.header.counters.evictions
        batch_put(self.slab, keys, values, rows, evicted)
        before = self.slab.header.counters.evictions - before
        self.leave(state)
        return before

    def put_many(self, keys, values, *, bint return_evicted=False):
        """Write n entries: a loop of `cache[key] = value`, in order, without the GIL.

        Parameters
        ----------
        keys
            n keys, as in `get_many`.
        values
            n values: an array of the value dtype, or any iterable of values.
        return_evicted
            Return the evicted rows instead of their number.

        Returns
        -------
        evicted
            How many entries were evicted, or `(keys, values)` of them in order of eviction.

        Raises
        ------
        TypeError, ValueError, OverflowError
            The rows are of another type, length, shape or range; nothing has happened then. O(n).

        >>> import numpy as np
        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache.put_many(np.arange(3), np.arange(3) * 10)
        1
        >>> cache.put_many([5], [50], return_evicted=True)
        (array([1], dtype=uint64), array([10], dtype=int32))
        """
        cdef cnp.ndarray rows = self.rows_of(self._key_schema, keys)
        cdef cnp.ndarray value_rows = self.rows_of(self._value_schema, values)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(rows, 0)
        cdef column_t key_column, value_column
        cdef Evicted evicted = None
        cdef uint64_t count_evicted
        cdef object result = integer_room(count)
        if cnp.PyArray_DIM(value_rows, 0) != count:
            raise ValueError(f"{count} keys do not match {len(value_rows)} values")
        key_column = column_of(rows, self._key_schema.size, count)
        value_column = column_of(value_rows, self._value_schema.size, count)
        if return_evicted or self.on_evict is not None:
            evicted = new_evicted(self._key_schema, self._value_schema, count)
        count_evicted = self.put_rows(key_column, value_column, count, evicted_rows(evicted))
        if self.on_evict is not None:
            self.report(evicted)
        return evicted.finish() if return_evicted else integer_fill(result, count_evicted)

    def delete_many(self, keys):
        """Delete the entries of n keys; whether each was there, as n bools. O(n).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> cache.delete_many([2, 2])
        array([ True, False])
        """
        cdef cnp.ndarray rows = self.rows_of(self._key_schema, keys)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(rows, 0)
        cdef cnp.ndarray found = cnp.PyArray_EMPTY(1, &count, cnp.NPY_BOOL, 0)
        cdef column_t column = column_of(rows, self._key_schema.size, count)
        cdef uint8_t *found_data = <uint8_t *>cnp.PyArray_DATA(found)
        cdef object result = found.reshape(()) if rows is not keys and is_single(keys) else found
        cdef PyThreadState *state = self.enter(count)
        batch_delete(self.slab, column, count, found_data)
        self.leave(state)
        return result

    def increment_many(self, keys, field=None, by=1):
        """Add to a numeric field of n entries, in place: a loop of `increment`, without the GIL.

        `by` is a number, or an array or iterable of n of them.

        Returns
        -------
        values, found
            The n new values of the field, zero where the key is absent, and n bools.

        Raises
        ------
        SumOverflowError
            An `OverflowError`: a sum does not fit the field. The rows before its `row` are done, that row and
            those after it are not.
        TypeError, ValueError
            As in `increment` and `get_many`; nothing has happened then. O(n).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value=[("seen", "u8"), ("mentions", "u4")])
        >>> cache.put_many([1, 2], [(1001, 0), (1002, 5)])
        0
        >>> cache.increment_many([1, 2, 1, 3], "mentions")
        (array([1, 6, 2, 0], dtype=uint32), array([ True,  True,  True, False]))
        """
        cdef Schema schema = self._value_schema
        cdef cnp.ndarray rows = self.rows_of(self._key_schema, keys)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(rows, 0)
        cdef Py_ssize_t position = schema.number_position(field)
        cdef cnp.ndarray deltas = as_deltas(schema, position, by, count)
        cdef object dtype = schema.dtype[field] if schema.is_record else schema.dtype
        cdef cnp.ndarray results = empty_rows(dtype, count)
        cdef cnp.ndarray found = cnp.PyArray_EMPTY(1, &count, cnp.NPY_BOOL, 0)
        cdef column_t key_column = column_of(rows, self._key_schema.size, count)
        cdef column_t delta_column = column_of(deltas, sizeof(delta_t), cnp.PyArray_DIM(deltas, 0))
        cdef column_t result_column = column_of(results, schema.fields[position].size, count)
        cdef uint8_t *found_data = <uint8_t *>cnp.PyArray_DATA(found)
        cdef field_t *spec = &schema.fields[position]
        cdef cnp.npy_intp done
        cdef PyThreadState *state
        cdef bint single = rows is not keys and is_single(keys)
        cdef object result
        cdef bint native = results.dtype.isnative
        result = (results.reshape(()), found.reshape(())) if single else (results, found)
        if cnp.PyArray_DIM(deltas, 0) == 1:
            delta_column.stride = 0
        state = self.enter(count)
        done = batch_increment(
            self.slab, key_column, count, spec, delta_column, result_column, found_data
        )
        self.leave(state)
        if done < count:
            raise SumOverflowError(schema.label(position), done)
        if not native:          # in place: the rows are done, and there may be no memory
            cnp.PyArray_Byteswap(results, True)
        return result
