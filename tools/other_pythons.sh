#!/bin/sh
# Runs the tests that need neither gdb nor a download under the oldest and the newest Python that this
# machine has beside its own (3.9 to 3.14): gdb brings a Python of its own, whatever its age.
set -eu
cd "$(dirname "$0")/.."

find_python() {
  command -v "python$1" 2>/dev/null && "python$1" -c '' 2>/dev/null && return
  command -v pyenv >/dev/null || return 0
  found=$(ls -d "$(pyenv root)"/versions/"$1".*/bin/python 2>/dev/null | tail -n 1)
  [ -z "$found" ] || echo "$found"
}

own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.9 3.14 3.13; do
  [ "$version" = "$own" ] && continue
  python=$(find_python "$version" | tail -n 1)
  if [ -z "$python" ]; then
    echo "== Python $version is not on this machine: not tested under it"
    continue
  fi
  folder=.cache/python-$version
  if [ ! -e "$folder/.ready-2" ]; then
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install -q --disable-pip-version-check \
      pyelftools pytest pytest-xdist hypothesis zstandard lz4
    touch "$folder/.ready-2"
  fi
  echo "== tests under Python $version"
  "$folder/bin/python" -m compileall -q src
  # The oldest goes by the Python loops, the newest by the compiled ones.
  HEAPGLASS_NATIVE=$([ "$version" = 3.9 ] && echo 0 || echo 1) \
    "$folder/bin/python" -m pytest -n auto --dist worksteal tests --ignore tests/live \
    --ignore tests/model_live --ignore tests/gdb --ignore tests/gdbs --ignore tests/tools \
    --ignore tests/abis --ignore tests/native/test_bounds.py \
    --ignore tests/fuzz
  if [ "$version" = 3.14 ]; then
    break # the newest is enough
  fi
done
