"""The bytes of a cache in front of a store: what its arena has besides, and what is done to it. From the
ground up:

    ring        an order by age: of slots, or of marks
    marks       what is kept of an unsaved slot, and the way from the slot to it
    unsaved     the state of each slot and the order of writing (I6); numbers of writes, by which what was
                loaded is refused as stale
    room        how many more slots may become unsaved, and for whom room is kept
    slab        the cache itself: read, put, edit, delete; which entry goes, and what waits for the store;
                drain, settle, restore
    batch       loops of that, over rows; what is missing, and the room that a change takes
    check       walks all of it

The rules are those of the arena (slabcache/arena).
"""
