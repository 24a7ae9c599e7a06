"""Table of contents of `record.pyx`: the codec of packed records, and the record handed to users."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport uint64_t

from slabcache.arena.field cimport delta_t, field_store, field_t, field_top
from slabcache.machine.integer cimport integer_load
from slabcache.codec.layout cimport span_t


cdef class Schema:
    cdef readonly object dtype          # np.dtype as the user gave it
    cdef readonly object packed         # np.dtype of packed rows; `dtype` itself where the two are equal
    cdef readonly str role              # "key" or "value"
    cdef readonly tuple names           # field names; None for a scalar dtype
    cdef readonly tuple dtypes          # np.dtype of each field, native byte order
    cdef readonly bint is_record        # the dtype is structured
    cdef readonly bint has_arrays       # a field is a subarray
    cdef bint is_integers               # all fields are integers
    cdef bint is_key                    # the role is "key"
    cdef readonly Py_ssize_t size       # bytes of a packed record
    cdef Py_ssize_t count               # fields; 0 in one that was made without arguments
    cdef field_t *fields                # owned
    cdef span_t *spans                  # of the fields in the user's dtype; owned; NULL where that is packed
    cdef Py_ssize_t own_size            # bytes of a row of the user's dtype
    cdef dict positions                 # field name -> position
    cdef void *spare                    # memory of a dropped Record, for the next one; owned, or NULL

    cpdef str label(self, Py_ssize_t position)
    cdef int ready(self) except -1
    cdef int encode(self, object item, char *target) except -1
    cdef object unfit(self, object kind, str message)
    cdef int encode_tuple(self, object items, char *target) except -1
    cdef int encode_field(self, Py_ssize_t position, object item, char *target) except -1
    cdef bytes encode_items(self, Py_ssize_t position, object items)
    cdef int encode_integer(self, Py_ssize_t position, object item, char *target) except -1
    cdef int encode_float(self, Py_ssize_t position, object item, char *target) except -1
    cdef int encode_bytes(self, Py_ssize_t position, object item, char *target) except -1
    cdef int encode_void(self, object item, char *target) except -1
    cdef int encode_named(self, tuple names, object item, char *target) except -1
    cdef void unpack_to(self, char *target, const char *packed, Py_ssize_t rows) noexcept
    cdef object decode(self, const char *source)
    cdef object decode_field(self, Py_ssize_t position, const char *source)
    cdef tuple decode_tuple(self, const char *source)
    cdef Py_ssize_t position_of(self, object name) except -1
    cdef Py_ssize_t number_position(self, object name) except -1
    cdef int encode_delta(self, Py_ssize_t position, object by, delta_t *delta) except -1


cdef class Record:
    # A plain pointer, counted by hand: an object attribute would make the type one of the collector's.
    cdef PyObject *schema               # owned
    cdef char data[8]                   # the packed bytes start here and go on behind the object


cdef extern from "Python.h":
    void *PyObject_Malloc(size_t size)
    object PyObject_Init(void *memory, void *type)      # a new reference


cdef inline bint encode_quickly(const field_t *field, object item, char *target) noexcept:
    """Write an exact, non-negative int that fits an integer field; False for whatever else it is."""
    cdef uint64_t number
    if not integer_load(item, &number) or number > field_top(field):
        return False
    field_store(target + field.offset, field.size, number)
    return True


cdef inline int schema_encode(Schema schema, object item, char *target) except -1:
    """`schema.encode(item, target)`, without a call where fields and items are plain integers."""
    cdef Py_ssize_t position
    if schema.is_integers:
        if not schema.is_record:
            if encode_quickly(schema.fields, item, target):
                return 0
        elif PyTuple_CheckExact(item) and PyTuple_GET_SIZE(item) == schema.count:
            for position in range(schema.count):
                if not encode_quickly(
                    &schema.fields[position], <object>PyTuple_GET_ITEM(item, position), target
                ):
                    break
            else:
                return 0
    return schema.encode(item, target)


cdef inline Schema record_schema(Record record):
    return <Schema>record.schema


cdef inline char *record_data(Record record) noexcept:
    """The packed bytes. Compilers take `record.data` by its declared length."""
    return <char *><PyObject *>record + <size_t>&(<Record>NULL).data[0]


cdef inline PyObject **record_owner(void *memory) noexcept:
    """Where a record in `memory` keeps its schema, without a reference to the record."""
    return <PyObject **>(<char *>memory + <size_t>&(<Record>NULL).schema)


cdef inline Record record_new(Schema schema):
    """A record whose bytes the caller fills in before anybody else sees it."""
    cdef size_t header = <size_t>&(<Record>NULL).data[0]
    cdef void *memory = schema.spare
    if memory is not NULL:
        schema.spare = NULL
    else:
        memory = PyObject_Malloc(header + max(schema.size, <Py_ssize_t>sizeof((<Record>NULL).data)))
        if memory is NULL:
            raise MemoryError()
    cdef Record record = <Record>PyObject_Init(memory, <void *>Record)
    record.schema = <PyObject *>schema
    Py_INCREF(schema)
    return record
