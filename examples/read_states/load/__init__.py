"""The load on Read States, and what is measured under it. In the order in which data passes the parts:

population.py   who there is, and what each of them reads
schedule.py     the stream of requests, each with the moment when it is due
generator.py    sends them: at those moments, or as fast as they are answered
instance.py     the service under load, a process of its own on a core of its own
histograms.py   latencies, by second and by kind
in_process.py   the part of the cache alone, without HTTP
results.py      all that was measured, as it is kept in a file
measure.py      the whole
"""
