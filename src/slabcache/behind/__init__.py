"""A cache in front of a store: what is below `WriteBehindCache`. From the ground up:

    arena/      its bytes
    drain       the cache as its flusher sees it: rows taken for the store, settled, restored; open or closed
    request     the rows of a call that may have to wait, and what the store has for them
    core        the calls as far as they do not wait: what is missing, or has no room, is told
    steps       runs a generator until it wants to wait again
    calls       the calls that may have to wait, as generators; running them by blocking; closing
    aio         running them in an event loop
    flusher     the thread that writes behind: what is due, in what order, and what becomes of rows that fail
    division    which rows of a failing batch fail by themselves
    flights     which keys are being loaded, and who waits for them: where misses of one key meet
    loader      carries out the loads, and keeps what they bring
    workers     threads for what must not be interrupted
    waiting     deadlines and bells: how one thread waits for another
    ending      the end of the interpreter, and the child of a fork

`drain`, `request`, `core`, `steps` and `flights` are extension modules: they never wait, and call no store.
The others wait and call the store, and hold no lock while Python code runs.
"""
