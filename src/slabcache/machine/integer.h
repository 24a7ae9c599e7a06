/* Reading a Python integer from its digits, and writing a new one.
 *
 * CPython keeps 30 bits to a digit, and its own conversion takes the long way for more than one of them; the
 * identifiers of services have three. Layout: PyLongObject of CPython 3.11 to 3.14. Everywhere else, and for all
 * that is not an exact int from 0 to 2**64 - 1, the answer is no, and the caller takes the interpreter's way.
 */
#ifndef SLABCACHE_INTEGER_H
#define SLABCACHE_INTEGER_H

#include <Python.h>
#include <stdint.h>

#if !defined(PYPY_VERSION) && !defined(GRAALVM_PYTHON) && !defined(Py_LIMITED_API) && \
    PyLong_SHIFT == 30 && PY_VERSION_HEX < 0x030F0000
#define SLABCACHE_DIGITS 1
#endif

static inline int integer_load(PyObject *item, uint64_t *number)
{
#if defined(SLABCACHE_DIGITS)
    const PyLongObject *integer = (const PyLongObject *)item;
    const digit *digits;
    size_t count;
    if (!PyLong_CheckExact(item))
        return 0;
#if PY_VERSION_HEX >= 0x030C0000
    if ((integer->long_value.lv_tag & 3) == 2) /* negative */
        return 0;
    count = integer->long_value.lv_tag >> 3;
    digits = integer->long_value.ob_digit;
#else
    count = (size_t)Py_SIZE(integer); /* that of a negative one is negative: huge here */
    digits = integer->ob_digit;
#endif
    if (count == 3 && digits[2] < 16)
        *number = digits[0] | (uint64_t)digits[1] << 30 | (uint64_t)digits[2] << 60;
    else if (count == 2)
        *number = digits[0] | (uint64_t)digits[1] << 30;
    else if (count == 1)
        *number = digits[0];
    else if (count == 0)
        *number = 0;
    else
        return 0;
    return 1;
#else
    (void)item;
    (void)number;
    return 0;
#endif
}

/* An int of which only the limit is known yet, so that making it cannot fail when it is. The room belongs to the
   caller alone; up to 256 the interpreter has all ints ready. */
static inline PyObject *integer_room(uint64_t limit)
{
    return PyLong_FromUnsignedLongLong(limit);
}

static inline PyObject *integer_fill(PyObject *room, uint64_t number) /* a new reference */
{
#if defined(SLABCACHE_DIGITS)
    PyLongObject *integer = (PyLongObject *)room;
    digit *digits;
    size_t count = number >> 60 ? 3 : number >> 30 ? 2 : 1;
    if (number > 256) {
#if PY_VERSION_HEX >= 0x030C0000
        integer->long_value.lv_tag = count << 3;
        digits = integer->long_value.ob_digit;
#else
        Py_SET_SIZE(integer, (Py_ssize_t)count);
        digits = integer->ob_digit;
#endif
        digits[0] = (digit)(number & PyLong_MASK);
        if (count > 1)
            digits[1] = (digit)(number >> 30 & PyLong_MASK);
        if (count > 2)
            digits[2] = (digit)(number >> 60);
        Py_INCREF(room);
        return room;
    }
#endif
    return PyLong_FromUnsignedLongLong(number);
}

#endif
