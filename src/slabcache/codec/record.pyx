"""`Schema`, the codec between Python objects and packed records, and `Record`, the result of a look-up.

Encoding runs user code (`__index__`, `__float__`, mappings), so it always goes to a buffer of the caller
before a lock is taken.
"""

cimport cython
cimport numpy as cnp
from cpython.bool cimport PyBool_Check
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport PyObject_GenericGetAttr, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport (
    PyTuple_CheckExact,
    PyTuple_GET_ITEM,
    PyTuple_GET_SIZE,
    PyTuple_New,
    PyTuple_SET_ITEM,
)
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from slabcache.arena.field cimport (
    KIND_BOOL,
    KIND_BYTES,
    KIND_FLOAT,
    KIND_NUMPY,
    KIND_SIGNED,
    KIND_UNSIGNED,
    KIND_VOID,
    delta_t,
    field_limit,
    field_load,
    field_store,
    field_t,
    float_load,
    float_store,
    kind_t,
)
from slabcache.codec.layout cimport layout_unpack, span_t

import copyreg
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import index as as_index

import numpy as np
from numpy.ma import MaskedArray    # here, not lazily: an import in a forked child can wait for ever

from slabcache.errors import as_unfit_key
from slabcache.codec.conversions import (
    MASKED, decode_numpy, encode_numpy, equal_arrays, flat_items, named_items, plain_array, structured_rows
)
from slabcache.codec.dtypes import describe

cnp.import_array()

cdef extern from "Python.h":
    unsigned long long PyLong_AsUnsignedLongLong(object number)    # checked by hand: no `except`
    long long PyLong_AsLongLong(object number)
    bint PyLong_CheckExact(object item)
    double PyFloat_AsDouble(object item) except? -1.0
    void PyObject_Free(void *memory)
    unsigned long Py_TPFLAGS_SEQUENCE

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
    #define RECORD_FREE_THREADED 1
    #else
    #define RECORD_FREE_THREADED 0
    #endif
    """
    const bint FREE_THREADED "RECORD_FREE_THREADED"

cdef dict KINDS = {
    "i": KIND_SIGNED,
    "u": KIND_UNSIGNED,
    "f": KIND_FLOAT,
    "b": KIND_BOOL,
    "S": KIND_BYTES,
    "V": KIND_VOID,
    "n": KIND_NUMPY,
}
NOT_AN_ITEM = (
    "numpy cannot take a Record as an item: use tuple(record), numpy.asarray(record), "
    "or the arrays of get_many()"
)
np_bool = np.bool_
np_void = np.void


cdef object shown(object number):
    """A number as error messages show it: Python does not print integers of thousands of digits."""
    try:
        return str(number)
    except ValueError:
        return f"an integer of {number.bit_length()} bits"


cdef bint is_nan(object item):
    return isinstance(item, (float, np.datetime64, np.timedelta64)) and item != item


def is_of_bools(dtype):
    return dtype.base == np_bool


cdef bint is_array(object item):
    if isinstance(item, Record):    # its items are taken one by one
        return False
    return isinstance(item, (np.ndarray, np.generic)) or hasattr(item, "__array__")


cdef inline double real_number(object item) except? -1.0:
    """A number as C has it. `float()` of numpy's objects reads text, and drops masks and imaginary parts."""
    if not PyLong_CheckExact(item) and isinstance(item, (np.ndarray, np.generic)):
        if item.dtype.kind not in "fiub" or isinstance(item, MaskedArray):
            raise TypeError()
    return PyFloat_AsDouble(item)


@cython.final
cdef class Schema:
    """The fields of a key or value dtype, and the codec of its packed records. Immutable.

    Made without arguments it refuses every item: what a cache has before its `__init__` has run.
    """

    # Not in __init__, which can be called again, in the middle too: names may have a __hash__ of their own.
    def __cinit__(self, spec=None, str role=None):
        cdef Py_ssize_t position
        cdef field_t *fields
        cdef span_t *spans = NULL
        cdef bint is_integers
        if spec is None and role is None:
            return
        self.dtype, self.packed, self.names, members = describe(spec, role)
        self.role = role
        self.is_key = role == "key"
        self.is_record = self.names is not None
        self.size = sum(member.dtype.itemsize for member in members)
        self.positions = {member.name: position for position, member in enumerate(members)}
        self.dtypes = tuple(member.dtype for member in members)
        self.has_arrays = any(dtype.subdtype is not None for dtype in self.dtypes)
        is_integers = all(member.kind in "iu" for member in members)
        self.own_size = self.dtype.itemsize
        fields = <field_t *>PyMem_Malloc(len(members) * sizeof(field_t))
        if self.packed is not self.dtype:
            spans = <span_t *>PyMem_Malloc(len(members) * sizeof(span_t))
        try:
            if fields is NULL or spans is NULL and self.packed is not self.dtype:
                raise MemoryError()
            for position, member in enumerate(members):
                kind = <kind_t><int>KINDS[member.kind]
                fields[position] = field_t(member.offset, member.dtype.itemsize, kind)
                if spans is not NULL:
                    spans[position] = span_t(
                        member.offset, member.own_offset, member.dtype.itemsize, member.reversed
                    )
        except:     # noqa: E722 - without memory, for example
            PyMem_Free(fields)
            PyMem_Free(spans)
            raise
        # Now, at once: until here it refuses every item, whoever has found it.
        self.is_integers = is_integers
        self.count = len(self.dtypes)
        self.spans = spans
        self.fields = fields

    def __dealloc__(self):
        PyMem_Free(self.fields)
        PyMem_Free(self.spans)
        PyObject_Free(self.spare)

    def __repr__(self):
        return f"Schema({self.dtype!r}, {self.role!r})"

    cpdef str label(self, Py_ssize_t position):
        """What error messages call a field."""
        if not 0 <= position < self.count:
            raise IndexError(f"there is no field number {position}")
        return f"{self.role} field {self.names[position]!r}" if self.is_record else self.role

    # ---- encoding ------------------------------------------------------------------------------------

    cdef int ready(self) except -1:
        if self.fields is NULL:
            raise RuntimeError("the cache is not initialised: its __init__ has not run")
        return 0

    cdef object unfit(self, object kind, str message):
        """The error, a TypeError for example, of an item that is none; of a key a KeyError as well."""
        return as_unfit_key(kind(message)) if self.is_key else kind(message)

    cdef int encode(self, object item, char *target) except -1:
        """Write the packed record of `item` to the `size` bytes at `target`."""
        self.ready()
        if not self.is_record:
            return self.encode_field(0, item, target)
        if PyTuple_CheckExact(item):
            return self.encode_tuple(item, target)
        if isinstance(item, Record):
            if (<Record>item).schema is <PyObject *>self:
                memcpy(target, record_data(<Record>item), self.size)
                return 0
            return self.encode_named(record_schema(<Record>item).names, item, target)
        if isinstance(item, np_void) and item.dtype.names is not None:
            return self.encode_void(item, target) if self.is_key else self.encode_named(
                item.dtype.names, item, target
            )
        if not self.is_key and isinstance(item, Mapping):
            return self.encode_named(tuple(item), item, target)
        named = named_items(item)
        if named is not None:
            return self.encode_named(tuple(named), named, target)
        if isinstance(item, tuple):
            return self.encode_tuple(item, target)
        kinds = "tuple, Record or dataclass" if self.is_key else "tuple, mapping, Record or dataclass"
        raise self.unfit(
            TypeError, f"{self.role}: {type(item).__name__} is not a {kinds} of the fields {self.names}"
        )

    cdef int encode_tuple(self, object items, char *target) except -1:
        cdef Py_ssize_t position
        if PyTuple_GET_SIZE(items) != self.count:
            raise self.unfit(
                TypeError,
                f"{self.role}: {PyTuple_GET_SIZE(items)} items for the {self.count} fields {self.names}",
            )
        for position in range(self.count):
            self.encode_field(
                position, <object>PyTuple_GET_ITEM(items, position), target + self.fields[position].offset
            )
        return 0

    cdef int encode_named(self, tuple names, object item, char *target) except -1:
        cdef Py_ssize_t position
        cdef bint fits = len(names) == self.count
        for name in names:
            fits = fits and name in self.positions
        if not fits:
            raise self.unfit(
                ValueError, f"{self.role}: the fields {names} are not the fields {self.names}"
            )
        for position in range(self.count):
            self.encode_field(position, item[self.names[position]], target + self.fields[position].offset)
        return 0

    cdef int encode_void(self, object item, char *target) except -1:
        """A key that is a row of numpy's: as in an array of them."""
        cdef bytes packed
        try:
            packed = structured_rows(self, plain_array(item, f"{self.role}s")).tobytes()
        except (TypeError, ValueError, OverflowError) as error:
            raise as_unfit_key(error) from None
        memcpy(target, PyBytes_AS_STRING(packed), self.size)
        return 0

    cdef int encode_field(self, Py_ssize_t position, object item, char *target) except -1:
        cdef field_t *field = &self.fields[position]
        cdef bytes packed
        if field.kind == KIND_UNSIGNED or field.kind == KIND_SIGNED:
            return self.encode_integer(position, item, target)
        if field.kind == KIND_FLOAT:
            return self.encode_float(position, item, target)
        if field.kind == KIND_BOOL:
            if not (PyBool_Check(item) or isinstance(item, np_bool)):
                raise TypeError(f"{self.label(position)}: {type(item).__name__} is not a bool")
            target[0] = <bint>item
            return 0
        if field.kind == KIND_NUMPY:
            dtype = self.dtypes[position]
            if dtype.subdtype is not None and not is_array(item):
                packed = self.encode_items(position, item)
            else:
                packed = encode_numpy(dtype, item, self.label(position))
            memcpy(target, PyBytes_AS_STRING(packed), field.size)
            return 0
        return self.encode_bytes(position, item, target)

    cdef bytes encode_items(self, Py_ssize_t position, object items):
        """The packed bytes of a subarray field given as nested sequences: each item as a field takes it."""
        base, shape = self.dtypes[position].subdtype
        label = self.label(position)
        if items is None or isinstance(items, (str, Mapping)):
            raise TypeError(f"{label}: {type(items).__name__} is not an array of {base}")
        try:
            return schema_of(base).encode_rows(flat_items(items, shape, label)).tobytes()
        except Exception as error:
            error.add_note(f"in {label}")
            raise

    cdef int encode_integer(self, Py_ssize_t position, object item, char *target) except -1:
        cdef field_t *field = &self.fields[position]
        cdef uint64_t number
        cdef int64_t signed_number, bound
        cdef bint fits
        if not PyLong_CheckExact(item):
            if PyBool_Check(item) or isinstance(item, np_bool):
                if self.is_key:
                    raise self.unfit(TypeError, f"{self.label(position)}: bool is not an integer key")
                item = bool(item)
            if isinstance(item, MaskedArray):
                raise self.unfit(TypeError, f"{self.label(position)}: {MASKED}")
            try:
                item = as_index(item)
            except TypeError:
                raise self.unfit(
                    TypeError, f"{self.label(position)}: {type(item).__name__} is not an integer"
                ) from None
        if field.kind == KIND_UNSIGNED:
            number = PyLong_AsUnsignedLongLong(item)
            fits = number <= field_limit(field.size)
            if number == <uint64_t>-1 and PyErr_Occurred() is not NULL:
                fits = False
        else:
            signed_number = PyLong_AsLongLong(item)
            number = <uint64_t>signed_number
            bound = <int64_t>(field_limit(field.size) >> 1)
            fits = -bound - 1 <= signed_number <= bound
            if signed_number == -1 and PyErr_Occurred() is not NULL:
                fits = False
        if not fits:
            PyErr_Clear()
            limits = np.iinfo(self.dtypes[position])
            raise self.unfit(
                OverflowError,
                f"{self.label(position)}: {shown(item)} is out of range for {self.dtypes[position]} "
                f"({limits.min} to {limits.max})",
            )
        field_store(target, field.size, number)
        return 0

    cdef int encode_float(self, Py_ssize_t position, object item, char *target) except -1:
        cdef field_t *field = &self.fields[position]
        cdef double number
        cdef bint fits = True
        if PyFloat_CheckExact(item):
            number = PyFloat_AS_DOUBLE(item)
        else:
            try:
                number = real_number(item)
            except TypeError:
                raise TypeError(f"{self.label(position)}: {type(item).__name__} is not a number") from None
            except OverflowError:
                number = INFINITY
                fits = False
        float_store(target, field.size, number)
        if not fits or (isfinite(number) and not isfinite(float_load(target, field.size))):
            raise OverflowError(
                f"{self.label(position)}: {shown(item)} is out of range for {self.dtypes[position]}"
            )
        return 0

    cdef int encode_bytes(self, Py_ssize_t position, object item, char *target) except -1:
        cdef field_t *field = &self.fields[position]
        cdef bytes data
        cdef Py_ssize_t length
        if PyBytes_CheckExact(item):
            data = item
        elif field.kind == KIND_VOID and isinstance(item, np_void) and item.dtype.names is None:
            data = item.tobytes()
        elif isinstance(item, (bytes, bytearray, memoryview)):
            data = bytes(item)
        else:
            raise self.unfit(TypeError, f"{self.label(position)}: {type(item).__name__} is not bytes")
        length = PyBytes_GET_SIZE(data)
        if field.kind == KIND_VOID and length != field.size:
            raise self.unfit(
                ValueError,
                f"{self.label(position)}: {length} bytes are not the {field.size} of V{field.size}",
            )
        if length > field.size:
            raise self.unfit(ValueError, f"{self.label(position)}: {length} bytes are more than {field.size}")
        if field.kind == KIND_BYTES and length and PyBytes_AS_STRING(data)[length - 1] == 0:
            raise self.unfit(
                ValueError,
                f"{self.label(position)}: bytes of S{field.size} cannot end in a NUL byte, which could not "
                f"be told from padding; use V{field.size}",
            )
        memcpy(target, PyBytes_AS_STRING(data), length)
        memset(target + length, 0, field.size - length)
        return 0

    def decode_rows(self, rows):
        """The object that each row of a packed array stands for, as a list; O(rows)."""
        cdef cnp.ndarray packed = np.ascontiguousarray(rows)
        cdef Py_ssize_t row
        cdef list items
        self.ready()
        if packed.dtype != self.packed or packed.ndim != 1:
            raise TypeError(f"{packed.ndim}-dimensional rows of {packed.dtype} are not packed {self.role}s")
        # Not a comprehension: Cython drops an item twice where there is no memory for the list to grow.
        items = [None] * cnp.PyArray_DIM(packed, 0)
        for row in range(len(items)):
            items[row] = self.decode(cnp.PyArray_BYTES(packed) + row * self.size)
        return items

    cdef void unpack_to(self, char *target, const char *packed, Py_ssize_t rows) noexcept:
        """Write packed rows as rows of the user's dtype, where the two differ; needs no memory."""
        layout_unpack(self.spans, self.count, target, self.own_size, packed, self.size, rows)

    def unpack(self, cnp.ndarray rows not None):
        """Packed rows as a new array of the user's dtype, padding bytes zero; O(rows)."""
        cdef cnp.ndarray packed = np.ascontiguousarray(rows), own
        self.ready()
        if packed.dtype != self.packed or packed.ndim != 1:
            raise TypeError(f"{packed.ndim}-dimensional rows of {packed.dtype} are not packed {self.role}s")
        own = np.zeros(cnp.PyArray_DIM(packed, 0), self.dtype)
        if self.spans is NULL:
            own[...] = packed
        else:
            self.unpack_to(cnp.PyArray_BYTES(own), cnp.PyArray_BYTES(packed), cnp.PyArray_DIM(packed, 0))
        return own

    def encode_rows(self, items):
        """A packed array of items that are each what a scalar call takes; O(items)."""
        cdef tuple fixed = tuple(items)     # which the code that an item runs cannot change
        cdef cnp.ndarray rows
        cdef Py_ssize_t row
        self.ready()
        rows = np.zeros(len(fixed), self.packed)
        for row in range(len(fixed)):
            try:
                self.encode(fixed[row], cnp.PyArray_BYTES(rows) + row * self.size)
            except Exception as error:
                error.add_note(f"in row {row} of the {self.role}s")
                raise
        return rows

    # ---- decoding ------------------------------------------------------------------------------------

    cdef object decode(self, const char *source):
        """The Python object of a packed record: a tuple for a structured key, a Record for a structured
        value, else a plain object."""
        cdef Record record
        if not self.is_record:
            return self.decode_field(0, source)
        if self.is_key:
            return self.decode_tuple(source)
        record = record_new(self)
        memcpy(record_data(record), source, self.size)
        return record

    cdef tuple decode_tuple(self, const char *source):
        cdef Py_ssize_t position
        cdef tuple items = PyTuple_New(self.count)
        cdef object item
        for position in range(self.count):
            item = self.decode_field(position, source + self.fields[position].offset)
            Py_INCREF(item)
            PyTuple_SET_ITEM(items, position, item)
        return items

    cdef object decode_field(self, Py_ssize_t position, const char *source):
        cdef field_t *field = &self.fields[position]
        cdef uint64_t number, sign
        cdef Py_ssize_t length
        if field.kind == KIND_UNSIGNED:
            return field_load(source, field.size)
        if field.kind == KIND_SIGNED:
            number = field_load(source, field.size)
            sign = (field_limit(field.size) >> 1) + 1
            return <int64_t>((number ^ sign) - sign)
        if field.kind == KIND_FLOAT:
            return float_load(source, field.size)
        if field.kind == KIND_BOOL:
            return source[0] != 0
        if field.kind == KIND_NUMPY:
            return decode_numpy(self.dtypes[position], PyBytes_FromStringAndSize(source, field.size))
        length = field.size
        if field.kind == KIND_BYTES:
            while length and source[length - 1] == 0:
                length -= 1
        return PyBytes_FromStringAndSize(source, length)

    # ---- fields by name ------------------------------------------------------------------------------

    cdef Py_ssize_t position_of(self, object name) except -1:
        """The position of the field `name`; ValueError when there is none."""
        if not isinstance(name, str):
            raise TypeError(f"a field is named by a str, not by {type(name).__name__} {name!r}")
        position = self.positions.get(name) if self.is_record else None
        if position is None:
            fields = self.names or "none: the value is a scalar"
            raise ValueError(f"there is no field {name!r}; the fields are {fields}")
        return position

    def number_position_of(self, name):
        """`number_position` for callers in Python."""
        self.ready()
        return self.number_position(name)

    def encode_fields(self, dict fields):
        """`(chosen, data)`: a flag for each field of a structured value, and a packed value of which those
        count."""
        self.ready()
        if not self.is_record:
            raise TypeError("update_fields needs a structured value; assign a scalar one")
        cdef bytes data = PyBytes_FromStringAndSize(NULL, self.size)
        cdef bytes chosen = PyBytes_FromStringAndSize(NULL, self.count)
        cdef Py_ssize_t position
        memset(PyBytes_AS_STRING(data), 0, self.size)
        memset(PyBytes_AS_STRING(chosen), 0, self.count)
        for name, item in fields.items():
            position = self.position_of(name)
            self.encode_field(position, item, PyBytes_AS_STRING(data) + self.fields[position].offset)
            PyBytes_AS_STRING(chosen)[position] = 1
        return chosen, data

    cdef Py_ssize_t number_position(self, object name) except -1:
        """The position of a field that can be incremented; `name` is None for a scalar value."""
        cdef Py_ssize_t position = 0
        cdef field_t *field
        if self.is_record or name is not None:
            if name is None:
                raise TypeError(f"name the field to increment, one of {self.names}")
            position = self.position_of(name)
        field = &self.fields[position]
        if field.kind == KIND_SIGNED or field.kind == KIND_UNSIGNED:
            return position
        if field.kind == KIND_FLOAT:
            return position
        raise TypeError(
            f"{self.label(position)}: {self.dtypes[position]} cannot be incremented; integers and floats can"
        )

    cdef int encode_delta(self, Py_ssize_t position, object by, delta_t *delta) except -1:
        """What `increment` adds to the field at `position`."""
        if self.fields[position].kind == KIND_FLOAT:
            delta.magnitude = 0
            delta.negative = False
            try:
                delta.real = real_number(by)
            except TypeError:
                raise TypeError(f"by: {type(by).__name__} is not a number") from None
            return 0
        number = by
        if not PyLong_CheckExact(by):
            if isinstance(by, MaskedArray):
                raise TypeError(f"by: {MASKED}")
            try:
                number = as_index(by)
            except TypeError:
                raise TypeError(
                    f"by: {type(by).__name__} is not an integer, as {self.label(position)} is"
                ) from None
        delta.real = 0.0
        delta.negative = number < 0
        delta.magnitude = PyLong_AsUnsignedLongLong(abs(number))
        if delta.magnitude == <uint64_t>-1 and PyErr_Occurred() is not NULL:
            PyErr_Clear()
            raise OverflowError(f"by: {shown(number)} is out of range for {self.label(position)}")
        return 0

    def deltas_of(self, Py_ssize_t position, items):
        """`encode_delta` of each item, as an array of structs; O(items)."""
        cdef tuple fixed = tuple(items)     # as in encode_rows
        cdef cnp.ndarray rows = np.zeros(len(fixed), DELTA_DTYPE)
        cdef Py_ssize_t row
        self.label(position)    # refuses a position that there is not
        for row in range(len(fixed)):
            self.encode_delta(position, fixed[row], <delta_t *>cnp.PyArray_BYTES(rows) + row)
        return rows


DELTA_DTYPE = np.dtype(
    {
        "names": ["magnitude", "real", "negative"],
        "formats": ["u8", "f8", "i4"],
        "offsets": [0, 8, 16],
        "itemsize": sizeof(delta_t),
    }
)


@lru_cache(maxsize=256)
def schema_of(dtype):
    """The value schema of unpickled records: one for all records of a dtype."""
    return Schema(dtype, "value")


def restored(dtype, tuple items):
    """The Record of which these are the dtype and the items."""
    cdef Schema schema = schema_of(dtype)
    if not schema.is_record:
        raise TypeError(f"{dtype} is no structured dtype")
    record = record_new(schema)
    memset(record_data(record), 0, schema.size)
    schema.encode(items, record_data(record))
    return record


cdef tuple record_items(Record record):
    return record_schema(record).decode_tuple(record_data(record))


cdef object record_field(Record record, Py_ssize_t position):
    cdef Schema schema = record_schema(record)
    return schema.decode_field(position, record_data(record) + schema.fields[position].offset)


cdef cnp.ndarray record_array(Record record):
    cdef Schema schema = record_schema(record)
    cdef cnp.ndarray packed = np.empty((), schema.packed)
    memcpy(cnp.PyArray_BYTES(packed), record_data(record), schema.size)
    return packed


cdef tuple void_items(object row):
    """The items of a structured numpy scalar, as those of a Record are."""
    cdef Schema schema = schema_of(row.dtype)
    cdef cnp.ndarray packed = schema.encode_rows((row,))
    return schema.decode_tuple(cnp.PyArray_BYTES(packed))


cdef void record_free(void *memory) noexcept:
    """What `tp_free` of Record does: a `__dealloc__` would save and restore the exception state each time.

    Most records are dropped before the next one is made: the memory of one is kept for it. Without a GIL,
    two threads could take it.
    """
    cdef PyObject *owner = record_owner(memory)[0]
    if owner is NULL:               # a record that could not be made by hand
        PyObject_Free(memory)
        return
    if not FREE_THREADED and (<Schema>owner).spare is NULL:
        (<Schema>owner).spare = memory
    else:
        PyObject_Free(memory)
    Py_DECREF(<object>owner)        # last: it may be what frees the spare


@cython.final
cdef class Record:
    """An immutable snapshot of a structured value, as a look-up returns it.

    It behaves like a named tuple (attributes, unpacking, comparison with tuples), is a copy of the entry
    at the moment of the look-up, and is never tracked by the garbage collector. A field named like a
    method hides the method. Reading a field is O(1).

    >>> from slabcache import SlabCache
    >>> states = SlabCache(10, key="u8", value=[("last_message_id", "u8"), ("mention_count", "u4")])
    >>> states[7] = (1001, 2)
    >>> record = states[7]
    >>> record
    Record(last_message_id=1001, mention_count=2)
    >>> record.mention_count, record["mention_count"], record[-1]
    (2, 2, 2)
    >>> last_message_id, mention_count = record
    >>> record == (1001, 2)
    True
    """

    __array_ufunc__ = None      # comparisons with numpy's scalars and arrays come here

    def __cinit__(self):
        raise TypeError("records come from a cache; they cannot be made by hand")

    def __getattribute__(self, name):
        position = record_schema(self).positions.get(name)
        if position is None:
            return PyObject_GenericGetAttr(self, name)
        return record_field(self, position)

    def __setattr__(self, name, value):
        raise AttributeError(f"a Record is immutable; write {name!r} with update_fields() of the cache")

    def __getitem__(self, index):
        cdef Schema schema = record_schema(self)
        cdef Py_ssize_t position
        if isinstance(index, str):
            return record_field(self, schema.positions[index])
        if isinstance(index, slice):
            return schema.decode_tuple(record_data(self))[index]
        position = PyNumber_AsSsize_t(index, IndexError)
        if position < 0:
            position += schema.count
        if not 0 <= position < schema.count:
            raise IndexError(f"record index {index} is out of range for {schema.count} fields")
        return record_field(self, position)

    def __len__(self):
        return record_schema(self).count

    def __iter__(self):
        return iter(record_items(self))

    def __contains__(self, item):
        return item in record_items(self)

    def __eq__(self, other):
        """Equal to a record or tuple of equal items, whatever the field names, as named tuples are."""
        cdef tuple mine = record_items(self)
        cdef object theirs
        if self is other:
            return True
        if isinstance(other, Record):
            theirs = record_items(<Record>other)
        elif isinstance(other, tuple):
            theirs = other
        elif isinstance(other, np_void) and other.dtype.names is not None:
            try:
                theirs = void_items(other)
            except TypeError:           # it has fields that no record has
                return NotImplemented
        elif isinstance(other, np.ndarray):
            return other == record_array(self)
        else:
            return NotImplemented
        if not record_schema(self).has_arrays:
            return mine == theirs
        return len(mine) == len(theirs) and all(map(equal_arrays, mine, theirs))

    def __ne__(self, other):
        if isinstance(other, np.ndarray):
            return other != record_array(self)
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self):
        # NaN has another hash in each object that stands for it.
        cdef list items = list(record_items(self))
        cdef Py_ssize_t position
        for position in range(len(items)):
            if is_nan(items[position]):
                items[position] = "nan"
        return hash(tuple(items))

    def __repr__(self):
        return f"Record({', '.join(map('{}={!r}'.format, record_schema(self).names, record_items(self)))})"

    def __array__(self, dtype=None, copy=None):
        """What `numpy.asarray` makes of a record: a structured array of no dimensions."""
        if all(map(is_of_bools, record_schema(self).dtypes)):
            raise TypeError(NOT_AN_ITEM)    # numpy would take the record as an item, and that for True
        if copy is False:
            raise ValueError("the fields of a Record cannot be taken without a copy")
        array = record_array(self)
        return array if dtype is None else array.astype(dtype)

    # numpy asks for these where a record is an item of a list.
    def __int__(self):
        raise TypeError(NOT_AN_ITEM)

    def __float__(self):
        raise TypeError(NOT_AN_ITEM)

    def __dir__(self):
        return [*object.__dir__(self), *record_schema(self).names]

    def __sizeof__(self):
        return object.__sizeof__(self) - sizeof(self.data) + record_schema(self).size

    def __reduce__(self):
        """What `slabcache.pickles` has registered: here, too, for picklers with a table of their own."""
        return copyreg.dispatch_table[Record](self)

    def index(self, item, *limits):
        """The position of the first field that is equal to `item`. ValueError where there is none."""
        return record_items(self).index(item, *limits)

    def count(self, item):
        """How many fields are equal to `item`."""
        return record_items(self).count(item)

    @property
    def _fields(self):
        """The field names, in order."""
        return record_schema(self).names

    def _asdict(self):
        """The fields as a dict from name to value."""
        return dict(zip(record_schema(self).names, record_items(self), strict=True))


def dtype_and_items(Record record not None):
    """What a pickle keeps of a record."""
    return record_schema(record).dtype, record_items(record)


(<PyTypeObject *>Record).tp_free = record_free
Sequence.register(Record)       # pandas then takes the names from _fields
(<PyTypeObject *>Record).tp_flags |= Py_TPFLAGS_SEQUENCE    # `match record: case (a, b)`
