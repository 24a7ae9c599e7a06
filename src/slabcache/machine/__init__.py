"""The machine: what Cython cannot say, in C. It knows nothing of what a cache holds.

    native      prefetch, wide multiplication, matching of tags, copies of a few bytes, memory from the system
    integer     a Python integer, read from its digits and written to them
    lock        the lock of a cache, the gate that keeps fork() out of batches; the only state that is shared

Nothing here runs Python code. Only `integer` knows objects of Python's, and makes them.
"""
