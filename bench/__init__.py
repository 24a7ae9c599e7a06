"""Benchmarks of slabcache beside the caches people use today. CONTRIBUTING.md says how to run them.

``peers`` adapts the caches, ``workload`` draws the data, ``full`` fills a cache with it, by ``sizes``.
Each ``test_*`` file is a suite of pytest-benchmark and asks one question; ``conftest`` has what they share,
``clock`` how they time it. ``tail`` and ``tail_caches`` are a service under load in processes of its own;
``stall`` times the writes that wait for a rebuild; ``zipf`` draws requests of unequal popularity; ``behind``
has the cache in front of a store. What others measure with as well is in the package ``measuring``.
``python -m bench`` runs the suites in several passes, ``results`` reads what they wrote, ``bars`` compares
that with what is demanded, ``report`` and ``pictures`` put it on pages.
"""
