#!/bin/sh
# A real process stopped in gdb, its heap shown; then its core, the same tables in the shell.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gcc -g -O1 -pthread -o "$folder/demo" fixtures/programs/demo.c

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

say "== gdb, the live process: heap info, arenas, chunks, bins, tcache; then gcore"
gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set startup-with-shell off' \
  -ex 'source gdbext/heapglass.py' -ex 'break ready' -ex run \
  -ex 'echo \n(gdb) heap info\n' -ex 'heap info' \
  -ex 'echo \n(gdb) heap arenas\n' -ex 'heap arenas' \
  -ex 'echo \n(gdb) heap chunks --limit 14\n' -ex 'heap chunks --limit 14' \
  -ex 'echo \n(gdb) heap bins\n' -ex 'heap bins' \
  -ex 'echo \n(gdb) heap tcache\n' -ex 'heap tcache' \
  -ex 'echo \n(gdb) heap chunk head\n' -ex 'up' -ex 'heap chunk head' \
  -ex "generate-core-file $folder/core" "$folder/demo" 2>"$folder/gdb.err" ||
  { cat "$folder/gdb.err"; exit 1; }
[ -s "$folder/core" ] || { cat "$folder/gdb.err"; exit 1; }

for name in arenas "chunks --limit 14" bins tcache; do
  say "\$ heapglass ${name%% *} core${name#"${name%% *}"}"
  # shellcheck disable=SC2086
  set -- $name
  command=$1
  shift
  "${PY:-.venv/bin/python}" -m heapglass "$command" "$folder/core" "$@"
done
