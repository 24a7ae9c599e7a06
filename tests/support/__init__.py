"""What tests of several folders share, and the fuzzers with them.

model.py                what the caches promise, as plain Python: the oracle
strategies.py           dtypes, keys, values, and the layouts that one list of rows can have
faulty_store.py         a store in memory that fails when it is told to
write_behind_core.py    a write-behind cache without its thread
scripts.py              programs in processes of their own
forks.py                children of these, which are watched
threads.py              threads beside a test, which are watched
sqlite_file.py          a database in a file, as another program sees it
cassandra_store.py      stores on a real Cassandra server
read_states_service.py  the service of the example, started
read_states_fleet.py    its fleet, with instances that come and go
"""
