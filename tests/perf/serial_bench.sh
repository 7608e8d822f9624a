#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Times small round trips over an attached remote serial line (a pty that a process
# echoes on, tw-periphd, memif, tw-periph attach, a pty) against the same echo on a
# local pty and, if socat is there, against the same line carried by two of them over
# TCP, in one run. Usage: tests/perf/serial_bench.sh [BUILD_DIR] [options of
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

names=(local tripwire)
command -v socat >/dev/null && names+=(socat) || echo "serial_bench: no socat: not against it" >&2
for side in "${names[@]}"; do
  "$bin/tw-serial-bench" --echo >"$work/$side" & pids+=($!)
done
port=memif:$work/nic.sock
"$bin/tw-periphd" --device "line=tty:$(first_line "$work/tripwire")" --port "$port,listen" \
  --node bench 2>"$work/periphd.log" & pids+=($!)
for _ in $(seq 100); do [ -S "$work/nic.sock" ] && break; sleep 0.05; done
"$bin/tw-periph" --log-level info attach bench:line --port "$port" >"$work/near" \
  2>"$work/attach.log" & pids+=($!)
attach=$!
declare -A line
line[local]=$(first_line "$work/local")
line[tripwire]=$(first_line "$work/near")
if [[ " ${names[*]} " == *" socat "* ]]; then
  # The far one says which port it was given.
  socat -d -d TCP-LISTEN:0,bind=127.0.0.1,nodelay "FILE:$(first_line "$work/socat"),raw,echo=0" \
    2>"$work/listen.log" & pids+=($!)
  for _ in $(seq 100); do grep -q 'listening on' "$work/listen.log" && break; sleep 0.05; done
  tcp=$(sed -n 's/.*listening on.*:\([0-9]*\)$/\1/p' "$work/listen.log")
  line[socat]=$work/socat.pty
  socat "PTY,raw,echo=0,link=${line[socat]}" "TCP:127.0.0.1:$tcp,nodelay" & pids+=($!)
  for _ in $(seq 100); do [ -e "${line[socat]}" ] && break; sleep 0.05; done
fi

for name in "${names[@]}"; do
  "$bin/tw-serial-bench" --label "$name" "${line[$name]}" "$@"
done | tee "$work/result"
awk '{ split($4, a, "="); p[NR] = a[2]; name[NR] = $1 }
     END { for (i = 2; i <= NR; i++) printf "%s/local: p50 %.2f\n", name[i], p[i] / p[1]
           if (NR > 2) printf "%s/%s: p50 %.2f\n", name[2], name[3], p[2] / p[3] }' "$work/result"
# What the carrier says of its wake-ups.
kill -INT "$attach"; wait "$attach" || true
grep -o 'carried .*' "$work/attach.log" || true
