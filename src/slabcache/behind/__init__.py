"""A cache before a store: what is below `WriteBehindCache`. In the order in which a write passes it:

    arena/      its bytes
    drain       the cache as its flusher sees it: batches taken, settled, given back; open or closed
    request     the rows of a call that may have to wait
    core        the calls that never wait: done, or told what is missing
    steps       a call that may have to wait, run step by step, by no more memory than it has
    calls       those calls, as generators, and run by blocking; closing
    aio         the same, awaited
    flusher     the thread that writes behind: what is due, in what order, and what becomes of rows that fail
    division    which rows of a failing batch fail by themselves
    flights     which keys are being loaded, and by whom: one step each, under a lock of its own
    loader      loads from the store, one for all who miss a key at a time
    workers     threads for what must not be interrupted
    waiting     deadlines and bells: how one thread waits for another
    ending      the end of the interpreter, and the child of a fork

`drain`, `request`, `core`, `steps` and `flights` are extension modules: they never wait, and call no store.
The others wait and call the store, and hold no lock while they do.
"""
