#!/bin/sh
# Sets up what `make demo`, `make test`, `make abis` or `make fuzz-native` needs on Debian or Ubuntu,
# and says what it does: system packages by apt (as root or with sudo; otherwise the line to run is
# printed), and a virtual environment of its own in .venv. Does nothing, quickly, where all is there.
set -eu
cd "$(dirname "$0")/.."
what=${1:-test}
python=${PYTHON:-python3}

demo="python3 python3-venv gdb gcc libc6-dev libc6-dbg make"
tests="$demo gcc-multilib g++-multilib libc6-dev-i386 binutils strace gdbserver xz-utils zstd lz4 debian-archive-keyring"
wanted=$demo
[ "$what" = test ] && wanted=$tests
[ "$what" = abis ] && wanted="$tests gdb-multiarch"
[ "$what" = fuzz ] && wanted="$tests clang libclang-rt-dev"

missing=""
for package in $wanted; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed$' ||
    missing="$missing $package"
done

if [ -n "$missing" ]; then
  install="apt-get install -y --no-install-recommends$missing"
  if [ "$(id -u)" = 0 ]; then
    as=""
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as="sudo"
  else
    echo "heapglass needs system packages that only root can install. Run this, then make again:"
    echo "  sudo apt-get update && sudo $install"
    exit 1
  fi
  echo "setup: installing system packages:$missing"
  $as apt-get update -q >/dev/null
  $as env DEBIAN_FRONTEND=noninteractive $install -q >/dev/null
fi

stamp=.venv/.heapglass-$what
old=""
for file in pyproject.toml setup.py src/heapglass/native/heapglass.c \
  src/heapglass/recorder/recorder.c; do
  [ -e "$stamp" ] && [ ! "$file" -nt "$stamp" ] || old=yes
done
if [ -n "$old" ]; then
  extra=""
  [ "$what" = demo ] || extra="[dev]"
  echo "setup: making a virtual environment in .venv (heapglass$extra)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -e ".$extra"
  touch "$stamp"
fi
