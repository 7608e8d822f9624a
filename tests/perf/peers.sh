#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# peers.sh BUILD-DIRECTORY [ROUNDS]
# The 8-byte round trip beside that of other one-sided systems on this machine, one
# after the other: tw bench, ucx_perftest (package ucx-utils) and fi_pingpong
# (libfabric-bin), each with two processes, the near one on the first processor and
# the far one on the last. Prints a line for each with the ratio; says what is missing.
set -euo pipefail
tw=$1/bin/tw
rounds=${2:-20000}
port=$((20000 + $$ % 20000))
near="taskset -c 0" far="taskset -c $(($(nproc) - 1))"
server=
stop() { if [[ -n $server ]]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; fi; }
trap stop EXIT

json=$(timeout 120 "$tw" bench --json --rounds "$rounds" --seconds 0.05 --sizes 1048576)
ours=$(sed -n 's/.*"test":"round_trip".*"mode":"spinning","median_ns":\([0-9]*\).*/\1/p' <<<"$json")
printf '%-34s %9.2f us\n' "tw bench, spinning" "$(awk "BEGIN{print $ours / 1000}")"

# name and round trip in us
line() {
  if [[ -z $2 ]]; then
    printf '%-34s does not run here\n' "$1"
  else
    awk -v name="$1" -v them="$2" -v ours="$ours" \
      'BEGIN{printf "%-34s %9.2f us   ours is %5.2f x that\n", name, them, ours / 1000 / them}'
  fi
}

# ucx NAME TRANSPORTS: puts are one-sided, half a round trip each.
ucx() {
  port=$((port + 1))
  UCX_TLS=$2 UCX_NET_DEVICES=${3:-all} $far timeout 60 ucx_perftest -p "$port" >/dev/null 2>&1 &
  server=$!
  sleep 1
  local out us
  out=$(UCX_TLS=$2 UCX_NET_DEVICES=${3:-all} $near timeout 60 ucx_perftest 127.0.0.1 -p "$port" \
    -t ucp_put_lat -s 8 -n "$rounds" -f 2>/dev/null || true)
  us=$(awk '/^Final:|^ *[0-9]+ +[0-9.]+ +[0-9.]+/ {for (i = 1; i <= NF; i++) if ($i ~ /^[0-9.]+$/) v[++n] = $i; print 2 * v[2]; exit}' <<<"$out")
  stop
  line "$1" "$us"
}

# fabric NAME PROVIDER
fabric() {
  port=$((port + 1))
  $far timeout 60 fi_pingpong -p "$2" -e rdm -I "$rounds" -S 8 -B "$port" >/dev/null 2>&1 &
  server=$!
  sleep 1
  local out us
  out=$($near timeout 60 fi_pingpong -p "$2" -e rdm -I "$rounds" -S 8 -P "$port" 127.0.0.1 2>/dev/null || true)
  us=$(awk '$1 == "8" {print 2 * $(NF - 1); exit}' <<<"$out")
  stop
  line "$1" "$us"
}

if command -v ucx_perftest >/dev/null; then
  ucx "UCX put, shared memory" posix,sysv,self
  ucx "UCX put, TCP" tcp,self lo
else
  echo "ucx_perftest is missing: package ucx-utils"
fi
if command -v fi_pingpong >/dev/null; then
  fabric "libfabric messages, tcp" tcp
  fabric "libfabric messages, shared memory" shm
else
  echo "fi_pingpong is missing: package libfabric-bin"
fi
