"""The bytes of a cache: one arena, and what is done to it. In the order in which a call passes them:

    header      the whole: what lies where, sizes, counters, secrets; memory is taken and given back here
    hash        from a key to 64 bits, with secrets
    table       from a hash and a key to a slot: find, insert, erase (I1)
    lru         the order of recency: push, unlink, move to the front (I2)
    slab        the cache itself, from table and list: put, evict, erase, move to another arena (I3 to I5)
    field       arithmetic on a number inside a value
    lookahead   the rows of a batch that come next: what they will touch is fetched
    batch       loops of what slab does, over rows
    check       walks all of it, and names the first invariant that is broken

Each function is `noexcept nogil`: it touches no Python object, allocates nothing, cannot fail half-way, and
wants the lock of the cache held. Each is compiled into the modules that use it, so a call of it costs nothing.
"""
