"""The bytes of a cache: one arena, and what is done to it. From the ground up:

    header      the whole: what lies where, sizes, counters, secrets; memory is taken and given back here
    hash        from a key to 64 bits, with secrets
    table       from a hash and a key to a slot: find, insert, erase (I1)
    lru         the order of recency: push, unlink, move to the front (I2)
    slab        the cache itself, from table and list: put, evict, erase, move to another arena (I3 to I5)
    field       arithmetic on a number inside a value, as far as the sum fits
    lookahead   the rows of a batch that come next: what they will touch is fetched
    batch       loops of what slab does, over rows
    check       walks all of it, and names the first invariant that is broken

Each function is `noexcept nogil`: it touches no Python object and cannot fail half-way. Apart from those that
create and destroy an arena, it allocates nothing. What changes or reads an arena wants its lock held. Each is
compiled into the modules that use it, so a call costs nothing.

Heads say which words of the bytes are *base*, which are *derived*, so that they can be built again from those
that are base, and which are *advice*: that may be wrong, and costs time then. Invariants I1 to I6 are told
as a whole in docs/design.md.
"""
