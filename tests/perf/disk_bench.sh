#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Times an attached disk with fio against the same image locally, and against nbdkit and
# qemu-nbd with nbdfuse (a user-level client that makes a file of them, as tw-periph does),
# in one run. Needs root, fio; nbdkit, qemu-utils and libnbd-bin for those two.
# Usage: tests/perf/disk_bench.sh [BUILD_DIR] [SECONDS_PER_JOB] [JOB...]
# Jobs are NAME=FIO_OPTIONS; without any, a table of eight. Prints MiB/s or thousands of
# operations a second, and the ratio to the local image.
set -euo pipefail
build=${1:-build/release}
seconds=${2:-2}
shift $(($# > 2 ? 2 : $#))
bin=$(realpath "$build")/bin
[ -x "$bin/tw-periph" ] || { echo "disk_bench: no tw-periph in $bin; build first" >&2; exit 1; }
command -v fio >/dev/null || { echo "disk_bench: fio is missing" >&2; exit 1; }
size=512M

if [ $# -gt 0 ]; then jobs=("$@"); else
  jobs=(
    "read-1M=--rw=read --bs=1M"
    "write-1M=--rw=write --bs=1M --end_fsync=1"
    "read-4k=--rw=randread --bs=4k --direct=1"
    "write-4k=--rw=randwrite --bs=4k --direct=1"
    "read-1M-qd8=--rw=read --bs=1M --direct=1 --ioengine=libaio --iodepth=8"
    "write-1M-qd8=--rw=write --bs=1M --direct=1 --ioengine=libaio --iodepth=8"
    "read-4k-qd16=--rw=randread --bs=4k --direct=1 --ioengine=libaio --iodepth=16"
    "write-4k-qd16=--rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16"
  )
fi

work=$(mktemp -d)
pids=()
cleanup() {
  for m in "$work"/tw "$work"/nbdkit "$work"/qemu; do
    mountpoint -q "$m" && { umount "$m" 2>/dev/null || fusermount3 -u -z "$m" || true; }
  done
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

wait_for() {  # PATH
  for _ in $(seq 200); do [ -e "$1" ] && return; sleep 0.05; done
  echo "disk_bench: $1 does not appear" >&2; exit 1
}

# Images are in memory: what is measured is the way there, not a disk.
images=${DISK_BENCH_IMAGES:-/dev/shm}
images=$(mktemp -d "$images/disk-bench-XXXXXX")
trap 'cleanup; rm -rf "$images"' EXIT
declare -A file
names=(local tw)
file[local]=$images/local
file[tw]=$work/tw/disk
mkdir "$work"/{tw,nbdkit,qemu}
for name in local tw nbdkit qemu; do
  fio --name=fill --filename="$images/$name" --size=$size --rw=write --bs=1M --output=/dev/null
done

port=memif:$work/nic.sock
"$bin/tw-periphd" --device "disk=blk:$images/tw" --node far --port "$port,listen" \
  ${DISK_BENCH_SERVER:-} 2>"$work/periphd.log" & pids+=($!)
wait_for "$work/nic.sock"
"$bin/tw-periph" attach far:disk "$work/tw" --port "$port" ${DISK_BENCH_ATTACH:-} \
  >"$work/attach.out" 2>&1 & pids+=($!)
wait_for "${file[tw]}"

if command -v nbdfuse >/dev/null; then
  if command -v nbdkit >/dev/null; then
    nbdkit -f -U "$work/nbdkit.sock" file "$images/nbdkit" & pids+=($!)
    wait_for "$work/nbdkit.sock"
    nbdfuse "$work/nbdkit/disk" --unix "$work/nbdkit.sock" & pids+=($!)
    wait_for "$work/nbdkit/disk"
    names+=(nbdkit)
    file[nbdkit]=$work/nbdkit/disk
  fi
  if command -v qemu-nbd >/dev/null; then
    qemu-nbd --persistent --shared=16 -f raw -k "$work/qemu.sock" "$images/qemu" & pids+=($!)
    wait_for "$work/qemu.sock"
    nbdfuse "$work/qemu/disk" --unix "$work/qemu.sock" & pids+=($!)
    wait_for "$work/qemu/disk"
    names+=(qemu)
    file[qemu]=$work/qemu/disk
  fi
else
  echo "disk_bench: no nbdfuse (libnbd-bin): not against NBD" >&2
fi

# Prints the job's figure: MiB/s for large blocks, thousand operations a second for small.
measure() {  # FILE OPTIONS
  local out
  # shellcheck disable=SC2086
  out=$(fio --name=job --filename="$1" --size=$size --runtime="$seconds" --time_based \
    --ioengine=psync --minimal --invalidate=1 $2 2>/dev/null) || { echo 0; return; }
  # Terse version 3: read bandwidth (KiB/s) 7, iops 8; write 48, 49.
  awk -F';' -v small="$([[ $2 == *bs=4k* ]] && echo 1 || echo 0)" \
    '{ bw = $7 + $48; iops = $8 + $49; printf "%.1f\n", small ? iops / 1000 : bw / 1024; exit }' <<<"$out"
}

printf '%-16s' job
for name in "${names[@]}"; do printf '%18s' "$name"; done
printf '\n'
for job in "${jobs[@]}"; do
  printf '%-16s' "${job%%=*}"
  floor=
  for name in "${names[@]}"; do
    value=$(measure "${file[$name]}" "${job#*=}")
    floor=${floor:-$value}
    printf '%18s' "$value ($(awk -v a="$value" -v b="$floor" 'BEGIN { printf "%.2f", (b > 0 ? a / b : 0) }'))"
  done
  printf '\n'
done
