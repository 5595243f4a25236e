# make demo      a running example, nothing needed but Python 3.11+ and make
# make test      lint, types and the whole suite
# make test-all  the same suite on every newer Python found on this machine
# make browser   the example in Chromium and curl, in each content coding
# make conformance  the public tests of HTTP caches against ours, over servers; needs Node.js and npm
# make bench     what each layer costs beside what others offer: the short form, under five minutes
# make bench-full  the same at length, then docs/performance.md and the README's table from it
# make bench-compare BASE=<rev>  whether this tree is slower than that revision: exit code 1 if so

PYTHON ?= $(shell sh scripts/find-pythons.sh | head -n 1)
VENV   ?= .venv
BENCH_VENV ?= .venv-bench
PORT   ?= 8000
PIP    = $(VENV)/bin/python -m pip --disable-pip-version-check -q
PYTEST = $(VENV)/bin/python -m pytest
# By whole files: their servers are started once.  Twice as many as two cores, since many wait.
# In the order of tests/conftest.py, which spreads those that wait for a minute.
PARALLEL ?= -n 4 --dist loadscope --no-loadscope-reorder

# What is compiled is kept, whatever the environment says: each server that a test starts reads it.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test test-all lint types compiled format browser conformance bench bench-full bench-compare clean

help:
	@sed -n 's/^# //p' Makefile

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or newer that can make virtual environments was found."; \
		echo "Debian and Ubuntu: apt install python3-venv.  Elsewhere: make PYTHON=/path/to/python3"; \
		exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) install --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(PIP) install -e ".[demo,cli]"
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(PIP) install -e ".[dev]"
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@$(VENV)/bin/python -m examples.fastapi_app --port $(PORT)

test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j 3 lint types compiled
	$(PYTEST) $(PARALLEL)

test-all: test
	VENV="$(VENV)" sh scripts/test-all.sh

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

# Once for all processes of pytest, beside the type checker, which keeps one core busy.
compiled: $(VENV)/.dev
	@test -d tests/__pycache__ || $(PYTEST) --collect-only -q > $(VENV)/collected || { \
		tail -n 50 $(VENV)/collected; exit 1; }

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

browser: $(VENV)/.dev
	$(VENV)/bin/python scripts/browser_check.py

conformance: $(VENV)/.dev
	$(VENV)/bin/python scripts/conformance.py

# The peers stay out of the environment of the tests.
$(BENCH_VENV)/.peers: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/python -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check -q install -e ".[bench-peers]"
	@touch $@

bench: $(BENCH_VENV)/.peers
	$(BENCH_VENV)/bin/python -m benchmarks.report --short

bench-full: $(BENCH_VENV)/.peers
	$(BENCH_VENV)/bin/python -m benchmarks.report --full --publish

bench-compare: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks.compare $(BASE)

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .hypothesis build dist
