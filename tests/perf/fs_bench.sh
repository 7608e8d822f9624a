#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Times a mounted export against a local FUSE pass-through (libfuse's own
# passthrough_ll example, from Debian's libfuse3-dev) over the same file system,
# in one run. Both let the kernel check permissions or both do not, as the mount
# has it by default: root's does, which costs a request for the directory's
# attributes with each change of it. With --busy, so many other processes want
# the processors all the time.
# Usage: tests/perf/fs_bench.sh [BUILD_DIR] [--busy N] [tw-fs-bench options]
set -euo pipefail
build=${1:-build/release}
shift || true
busy=0
if [ "${1:-}" = --busy ]; then
  busy=${2:?--busy needs a number}
  shift 2
fi
bin=$build/bin
example=/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c
[ -x "$bin/tw-fsd" ] || { echo "fs_bench: no tw-fsd in $bin; build first" >&2; exit 1; }

work=$(mktemp -d)
pids=()
cleanup() {
  for m in "$work"/local "$work"/remote; do
    mountpoint -q "$m" && { umount "$m" 2>/dev/null || fusermount3 -u "$m"; }
  done
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

mkdir "$work"/{local,remote,local-data,remote-data}
cc -O2 -o "$work/passthrough" "$example" $(pkg-config --cflags --libs fuse3) -w
checks=''
if ((EUID == 0)); then checks=,default_permissions; fi
"$work/passthrough" -f -o "source=$work/local-data,cache=auto$checks" "$work/local" & pids+=($!)
port=memif:$work/nic.sock
"$bin/tw-fsd" --export "bench=$work/remote-data,squash=none" --port "$port,listen" \
  --state "$work/state" --node bench 2>"$work/fsd.log" & pids+=($!)
for _ in $(seq 100); do [ -S "$work/nic.sock" ] && break; sleep 0.05; done
"$bin/tw-mount" :bench "$work/remote" --port "$port"
for _ in $(seq 100); do mountpoint -q "$work/local" && break; sleep 0.05; done
for ((i = 0; i < busy; i++)); do
  while :; do :; done & pids+=($!)
done
"$bin/tw-fs-bench" "$work/local" "$work/remote" --count "$work/remote" "$@"
