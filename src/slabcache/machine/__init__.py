"""The machine: what Cython cannot say, in C. It knows nothing of caches.

    native      prefetch, wide multiplication, matching of tags, copies of a few bytes, memory from the system
    integer     a Python integer, read from its digits and written to them
    lock        the lock of a cache, the gate that keeps fork() out of batches; the only state that is shared

Nothing here allocates Python objects, but for `integer`, or runs Python code.
"""
