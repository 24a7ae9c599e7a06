"""What today's code does otherwise than the rules say. A name goes when its mend is in, this file when all
are: the fuzzers then hold the code to the rules."""

TODAY = {
    # of both caches
    "nan is unequal",  # cache == cache.copy() with NaN or NaT in it
    "void arrays raise",  # ==, in values() and in items() with nested lists for a subarray of V<n>
    "timedeltas wrap",  # those of more than 2**63 - 1 microseconds
    "NUL is cut off",  # S<n> values that end in NUL are taken
    "void is padded",  # V<n> takes fewer than n bytes
    "tuples go by position",  # named tuples, whatever their names are
    "by is anything",  # masked arrays, sets, dicts and bytes as by=
    # of the cache before a store
    "mistakes refuse rows",  # TypeError, ValueError and OverflowError of a store
    "waiting puts of subarrays fail",  # cache[key] = value, and aset
    "waiters share exceptions",  # of a load that fails
    "clear deletes",  # what is in memory from the store, and there is no invalidate_all
    "loads have no options",  # load_timeout and loads
    "late loads tell of the store",  # close(timeout) ends before a load does: its error, not ClosedError
    "scan_keys repeats",  # a key that is being loaded, and was written meanwhile
    "one row holds up others",  # a row that cannot be saved for now
    "finalizers break loads",  # one that reads, inside another load
    "one key fails others",  # a key that cannot be loaded fails a load as a whole
}
