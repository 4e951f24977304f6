# make demo   sets up what it needs, then shows a real heap in gdb and from its core in the shell
# make test   sets up what it needs, then runs every check and test

PYTHON ?= python3
PY = .venv/bin/python

.PHONY: demo test lint unit live runtimes layouts docs bench setup-demo setup-test

demo: setup-demo
	@PY=$(PY) sh tools/demo.sh

test: setup-test
	@$(MAKE) --no-print-directory lint runtimes unit live

lint:
	@echo "== lint, format, types, oldest Python"
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/vermin -q -t=3.9- --no-tips --eval-annotations --backport typing src gdbext

runtimes:
	@echo "== real C libraries for the live tests (kept in .cache/runtimes)"
	@$(PY) tools/fetch_runtimes.py --archs amd64,i386

unit:
	@echo "== tests that need no download"
	@$(PY) -m pytest tests --ignore tests/live
	@sh tools/other_pythons.sh

live:
	@echo "== tests on real releases: in gdb, on the core in gdb, on the core in the shell"
	@$(PY) -m pytest tests/live

layouts: setup-test
	@$(PY) tools/fetch_runtimes.py --layouts
	@$(PY) tools/read_layouts.py

docs: setup-test
	@$(PY) tools/make_docs.py

bench: setup-demo
	@$(PY) bench/million.py

setup-demo:
	@PYTHON=$(PYTHON) sh tools/setup.sh demo

setup-test:
	@PYTHON=$(PYTHON) sh tools/setup.sh test
