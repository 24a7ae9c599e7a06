"""The demo: a Read States service under load, its cache kept in Python objects and kept in slabcache.

Run ``python -m demo`` from the root of the repository. The parts, in the order in which data passes them:

    workload.py    the requests and the records that the caches hold before the first one
    contenders.py  the caches that are compared, each with the collector set as it claims
    service.py     the request: its short-lived objects and its clock
    runner.py      one fresh process for each contender, one after another
    summary.py     from time stamps to percentiles, pauses and bytes
    report.py      the table and the raw results
    picture.py     the picture
"""
