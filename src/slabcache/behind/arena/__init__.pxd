"""The bytes of a cache before a store: what the arena has besides, and what is done to it.

    ring        an order by age: of slots, or of marks
    marks       what is kept of an unsaved slot, and the way from the slot to it
    unsaved     the state of each slot, the order of writing, numbers of writes: what makes a load stale (I6)
    room        how many more slots may become unsaved, and for whom room is kept
    slab        the cache itself: read, put, edit, delete; what is evicted waits; drain, settle, restore
    batch       loops of that, over rows; what is missing, and the room that a change takes
    check       walks all of it

The rules are those of the arena (slabcache/arena).
"""
