"""Benchmarks of slabcache beside the caches people use today.

``python -m bench.compare`` prints the table of the README. A further benchmark takes the caches from
`peers`, its data from `workload`, and gets a module of its own beside `compare`.
"""
