#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Times small round trips over an attached remote serial line (a pty that a process
# echoes on, tw-periphd, memif, tw-periph attach, a pty) against the same echo on a
# local pty, in one run. Usage: tests/perf/serial_bench.sh [BUILD_DIR] [options of
# tw-serial-bench, such as --count or --bytes]
set -euo pipefail
build=${1:-build/release}
shift || true
bin=$build/bin
for p in tw-periphd tw-periph tw-serial-bench; do
  [ -x "$bin/$p" ] || { echo "serial_bench: no $p in $bin; build first" >&2; exit 1; }
done

work=$(mktemp -d)
pids=()
cleanup() {
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
# Waits for a file to have a line, and prints the first.
first_line() {
  for _ in $(seq 200); do
    if [ -s "$1" ]; then head -n 1 "$1"; return; fi
    sleep 0.05
  done
  echo "serial_bench: nothing in $1" >&2
  return 1
}

for side in local far; do
  "$bin/tw-serial-bench" --echo >"$work/$side" & pids+=($!)
done
port=memif:$work/nic.sock
"$bin/tw-periphd" --device "line=tty:$(first_line "$work/far")" --port "$port,listen" \
  --node bench 2>"$work/periphd.log" & pids+=($!)
for _ in $(seq 100); do [ -S "$work/nic.sock" ] && break; sleep 0.05; done
"$bin/tw-periph" --log-level info attach bench:line --port "$port" >"$work/near" \
  2>"$work/attach.log" & pids+=($!)
near=$(first_line "$work/near")

"$bin/tw-serial-bench" --label local "$(first_line "$work/local")" "$@" | tee "$work/result"
"$bin/tw-serial-bench" --label remote "$near" "$@" | tee -a "$work/result"
awk '{ split($4, a, "="); p[$1] = a[2] }
     END { printf "ratio p50 remote/local %.2f, %.1f us more\n", p["remote"] / p["local"],
           p["remote"] - p["local"] }' "$work/result"
# What the carrier says of its wake-ups.
kill -INT "${pids[-1]}"; wait "${pids[-1]}" || true
grep -o 'carried .*' "$work/attach.log" || true
