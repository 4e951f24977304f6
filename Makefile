# make demo   sets up what it needs, then shows a real heap in gdb and from its core in the shell
# make test   sets up what it needs, then runs every check and test

PYTHON ?= python3
PY = .venv/bin/python
BOTH = -n auto --dist worksteal
# Compiled once, also where the environment keeps Python from writing bytecode: the tests start it
# some thousand times.
BYTECODE = import compileall, glob; \
  [compileall.compile_dir(at, quiet=1) for at in ("src", "gdbext", *glob.glob(".venv/lib*/*/*/elftools"))]

.PHONY: demo test lint bytecode unit live gdbs runtimes layouts wheels docs bench fuzz-model fuzz-hostile \
  fuzz-native coverage-model abis setup-demo setup-test setup-abis setup-fuzz

demo: setup-demo
	@PY=$(PY) sh tools/demo.sh

test: setup-test
	@$(MAKE) --no-print-directory lint runtimes bytecode unit live gdbs

lint:
	@echo "== lint, format, types, oldest Python"
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/vermin -q -t=3.9- --no-tips --eval-annotations --backport typing src gdbext

bytecode:
	@$(PY) -c '$(BYTECODE)'
	@gdb -nx -batch -ex 'python $(BYTECODE)'

runtimes:
	@echo "== real C libraries for the live tests (kept in .cache/runtimes)"
	@$(PY) tools/fetch_runtimes.py --archs amd64,i386 --static

unit:
	@echo "== tests that need no download"
	@$(PY) -m pytest $(BOTH) tests --ignore tests/live --ignore tests/model_live --ignore tests/gdbs \
	  --ignore tests/abis
	@sh tools/other_pythons.sh

live:
	@echo "== tests on real releases: in gdb, on the core in gdb, on the core in the shell"
	@$(PY) -m pytest tests/live
	@echo "== the model against real malloc, call by call and byte by byte"
	@$(PY) -m pytest $(BOTH) tests/model_live

gdbs:
	@echo "== the extension in gdb 10, 13, 16 and 18 (kept in .cache/gdbs)"
	@$(PY) tools/fetch_gdbs.py
	@$(PY) -m pytest tests/gdbs
	@for suite in bullseye trixie sid; do \
	  echo "== what tests/gdb asks, of $$suite's gdb"; \
	  .cache/gdbs/$$suite/gdb -nx -batch -ex 'python $(BYTECODE)'; \
	  HEAPGLASS_GDB=$(CURDIR)/.cache/gdbs/$$suite/gdb $(PY) -m pytest $(BOTH) tests/gdb || exit 1; \
	done

# The same with a great many random scripts, and new ones each time; EXAMPLES a runtime.
EXAMPLES ?= 500
fuzz-model:
	@HEAPGLASS_FUZZ=$(EXAMPLES) $(PY) -m pytest tests/model_live/test_random.py

# Which lines and branches of the model its tests go through; what is left is named in docs/model.md.
coverage-model: setup-test runtimes
	@COVERAGE_FILE=.cache/coverage-of-model $(PY) -m pytest tests/model tests/model_live \
	  --cov=heapglass.model --cov-branch --cov-report=term-missing --cov-fail-under=97

# Damaged cores, traces and debug files, new ones each time; a failing one becomes a fixture.
TARGETS ?= 20000
fuzz-hostile: setup-test
	@$(PY) -m tests.fuzz.run --count $(TARGETS)

# The compiled loops under libFuzzer with sanitizers, for so many seconds; clang is installed for it.
# Inputs that led somewhere new stay in .cache/fuzz-native.
SECONDS ?= 600
fuzz-native: setup-fuzz
	@mkdir -p .cache/fuzz-native
	@clang -std=gnu11 -O1 -g -DLIBFUZZER -fsanitize=fuzzer,address,undefined \
	  -fno-sanitize-recover=all -o .cache/fuzz-native.bin tests/native/bounds.c
	@.cache/fuzz-native.bin -max_total_time=$(SECONDS) -max_len=4096 -print_final_stats=1 \
	  -artifact_prefix=.cache/fuzz-native- -verbosity=0 .cache/fuzz-native

# Programs on five other machines: cross-compiled, run under qemu, read live through its gdb server.
# 500 MB of compilers and emulators in .cache; four minutes.
abis: setup-abis
	@$(PY) tools/fetch_cross.py
	@$(PY) tools/fetch_runtimes.py --archs arm64,armhf,riscv64,ppc64el,s390x
	@$(PY) -m pytest tests/abis tests/cores/test_foreign_cores.py

layouts: setup-test
	@$(PY) tools/fetch_runtimes.py --layouts
	@$(PY) tools/read_layouts.py

# Wheels with compiled loops for x86_64 and aarch64, glibc 2.17 and later, in dist/. The compiler is
# zig, from PyPI (90 MB in .cache).
wheels: setup-demo
	@$(PY) tools/make_wheels.py

docs: setup-test
	@HEAPGLASS_NATIVE=1 $(PY) tools/make_docs.py
	@$(PY) tools/make_export_doc.py >/dev/null

bench: setup-demo
	@$(PY) bench/run.py --millions 1
	@$(PY) bench/model.py

setup-demo:
	@PYTHON=$(PYTHON) sh tools/setup.sh demo

setup-test:
	@PYTHON=$(PYTHON) sh tools/setup.sh test

setup-abis:
	@PYTHON=$(PYTHON) sh tools/setup.sh abis

setup-fuzz:
	@PYTHON=$(PYTHON) sh tools/setup.sh fuzz
