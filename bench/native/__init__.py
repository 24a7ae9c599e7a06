"""slabcache beside caches of other languages: ``python -m bench.native``.

Each subject is measured by a program of its own, which takes SUBJECT ENTRIES ROWS SEED and prints one JSON
object a line. `go/` and `rust/` hold the peers, `slab` measures slabcache; all do the same in the same
order:

1. fill, then read all entries in random order, so that recency has nothing to do with the order in memory;
2. `hit`: read one field of fresh random draws of the keys that are there;
3. `turnover`: replace everything once by new keys, watching for the longest gap between writes; Go's
   collector is made to run meanwhile, as it does once in a while;
4. `write`: further new keys, each of which evicts one;
5. `collection`, where there is a collector: one full collection.

Key number i is the same in every program, so the sums of what they read must agree. Keys and arrays are made
outside of the clock, a chunk at a time, and read from beginning to end. Times are CPU time of the one thread;
gaps are wall time, as whoever waits feels them.
"""
