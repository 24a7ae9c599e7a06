# make demo    the main job: what garbage collection does to a cache, and what it does to this one
# make test    the tests, on a debug build that checks every invariant and on the build users get
# make read-states    the Read States service and its twin under load, and a report: examples/read_states
#
# All create the virtual environment they need.
#
# make demo TRACE=keys.npz    replays a trace of yours: an .npz file with an array `keys` of integers
# make test PYTHON=python3.13 VENV=.venv-3.13    another interpreter, in an environment of its own
# make bench | bench-docs | bench-bars | bench-quick | bench-native: other caches and the bars, CONTRIBUTING.md
# make bench-instructions | bench-against REV=commit: what the hot paths execute, counted by callgrind, CONTRIBUTING.md
# make faults: what becomes of acknowledged writes when something breaks, CONTRIBUTING.md
# make test-cassandra: CassandraStore on a real server, which Maven fetches, CONTRIBUTING.md
# make fuzz: random calls against models, CONTRIBUTING.md
# make lint | types | coverage | sanitize | tsan | test-parallel | package | clean: CONTRIBUTING.md

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --prefer-binary
SOURCES := pyproject.toml setup.py $(wildcard src/slabcache/* src/slabcache/*/* src/slabcache/*/*/*)

.DEFAULT_GOAL := help
.PHONY: help demo read-states test bench bench-docs bench-bars bench-quick bench-native bench-instructions
.PHONY: bench-against faults
.PHONY: test-debug test-release test-read-states
.PHONY: cassandra cassandra-stop test-cassandra
.PHONY: fuzz lint types coverage sanitize tsan test-parallel package clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

# ---- what users run -------------------------------------------------------------------------------

demo: $(VENV)/.demo
	$(BIN)/python -m demo $(if $(TRACE),--trace "$(TRACE)") $(DEMO_ARGS)

# READ_STATES_ARGS=--quick for a check that it works.
read-states: $(VENV)/.release $(VENV)/.example
	PYTHONPATH=.:examples $(BIN)/python -m read_states.load $(READ_STATES_ARGS)

test: test-debug test-release test-read-states
	@$(PYTHON) -m tools.cassandra check || true

test-debug: $(VENV)/.debug $(VENV)/.test
	PYTHONPATH=$(VENV)/debug $(BIN)/python -m pytest $(PYTEST_ARGS)

test-release: $(VENV)/.release $(VENV)/.test
	$(BIN)/python -m pytest --ignore=tests/structures $(PYTEST_ARGS)

# FUZZ_ARGS="--seconds 7200 --seed 1" for longer, and for the same again.
fuzz: $(VENV)/.debug $(VENV)/.test
	PYTHONPATH=tests:$(VENV)/debug $(BIN)/python -m fuzz $(FUZZ_ARGS)

# The service of examples/ through HTTP, on SQLite.
test-read-states: $(VENV)/.release $(VENV)/.test $(VENV)/.example
	$(BIN)/python -m pytest tests/read_states $(PYTEST_ARGS)

# A Cassandra server on loopback, from the jars that Maven fetches once; its folder is build/cassandra.
cassandra:
	@$(PYTHON) -m tools.cassandra start

cassandra-stop:
	@$(PYTHON) -m tools.cassandra stop

# CassandraStore on that server; the tests start it, and stop it again if it did not run before.
test-cassandra: $(VENV)/.release $(VENV)/.test $(VENV)/.example $(VENV)/.cassandra
	$(BIN)/python -m pytest tests/cassandra $(PYTEST_ARGS)

# slabcache beside what one would use instead, and beside what memory allows.
bench: $(VENV)/.release $(VENV)/.bench
	$(BIN)/python -m bench $(BENCH_ARGS)

# The bars alone: does a change hold what is demanded?
bench-bars: $(VENV)/.release $(VENV)/.bench
	$(BIN)/python -m bench --bars --out build/bench-bars $(BENCH_ARGS)

# The results of `bench` on the pages that show them, and as pictures.
bench-docs: $(VENV)/.release $(VENV)/.bench
	$(BIN)/python -m bench.report

# Does it run? Small caches; fails on an error, never on a time.
bench-quick: $(VENV)/.release $(VENV)/.bench
	$(BIN)/python -m bench --quick --out build/bench-quick

# Instructions of the hot paths, by callgrind: the same in each run, so they tell what times cannot.
bench-instructions: $(VENV)/.release $(VENV)/.bench
	$(BIN)/python -m bench.instructions $(BENCH_ARGS)

# This tree beside another commit of it: instructions and times of the hot paths. REV=main~3
bench-against: $(VENV)/.release $(VENV)/.bench
	$(BIN)/python -m bench.against $(REV)

# slabcache beside caches of Go and Rust, where their toolchains are.
bench-native: $(VENV)/.release $(VENV)/.bench
	$(BIN)/python -m bench.native $(BENCH_ARGS)

# What becomes of acknowledged writes when the disk is full, the store fails, the process is killed. What
# cannot be injected on this machine is left out with a line, so what it takes need not be there.
faults: $(VENV)/.release
	@$(MAKE) --no-print-directory $(VENV)/.cassandra >/dev/null 2>&1 || true
	$(BIN)/python -m faults $(FAULTS_ARGS)

# ---- what contributors and CI run as well ---------------------------------------------------------

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src/slabcache

types: $(VENV)/.release $(VENV)/.dev
	$(BIN)/mypy
	MYPYPATH=src:examples:. $(BIN)/mypy --package measuring --package read_states
	$(BIN)/python -m mypy.stubtest --ignore-missing-stub slabcache._base slabcache._batch slabcache._core \
		slabcache.codec.record slabcache.behind.core slabcache.behind.drain slabcache.behind.flights \
		slabcache.behind.request slabcache.behind.steps slabcache.machine.lock

coverage: $(VENV)/.dev
	tools/coverage $(BIN)/python

sanitize: $(VENV)/.dev
	tools/sanitize $(BIN)/python

# Races on a cache, on an interpreter without a GIL, which is found or built.
tsan:
	@python=$$(tools/free-threaded-python | tail -1) && $(MAKE) PYTHON="$$python" VENV=.venv-free .venv-free/.base \
		&& tools/tsan .venv-free/bin/python $(TSAN_ARGS)

# The tests on that interpreter, each in several threads at a time.
test-parallel:
	@python=$$(tools/free-threaded-python | tail -1) \
		&& $(MAKE) PYTHON="$$python" VENV=.venv-free .venv-free/.debug .venv-free/.test \
		&& tools/test-parallel .venv-free/bin/python $(PYTEST_ARGS)

package: $(VENV)/.dev
	tools/package $(BIN)/python

clean:
	rm -rf $(VENV) build dist src/*.egg-info

# ---- environments ---------------------------------------------------------------------------------

$(VENV)/.base: pyproject.toml tools/check-machine
	@tools/check-machine $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(PIP) "setuptools>=77" "Cython>=3.3,<3.4" "numpy>=2.0"
	@touch $@

$(VENV)/.release: $(VENV)/.base $(SOURCES)
	$(PIP) --no-build-isolation --no-deps --force-reinstall .
	@touch $@

$(VENV)/.debug: $(VENV)/.base $(SOURCES)
	SLABCACHE_DEBUG=1 $(PIP) --no-build-isolation --no-deps --upgrade --target $(VENV)/debug .
	@touch $@

# The dependencies of one extra each; the package itself is installed above.
$(VENV)/.demo: $(VENV)/.release
	$(PIP) $$($(BIN)/python tools/extra.py demo)
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	$(PIP) $$($(BIN)/python tools/extra.py bench)
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) $$($(BIN)/python tools/extra.py test)
	@touch $@

$(VENV)/.cassandra: $(VENV)/.base
	$(PIP) $$($(BIN)/python tools/extra.py cassandra)
	@touch $@

$(VENV)/.example: $(VENV)/.base
	$(PIP) $$($(BIN)/python tools/extra.py example)
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) $$($(BIN)/python tools/extra.py demo test example bench dev)
	@touch $@
