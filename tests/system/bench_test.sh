#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# bench_test.sh BUILD-DIRECTORY (in in_sandbox)
# Short runs of tw bench over every wire: that it measures, not what.
set -euo pipefail
tw=$1/bin/tw
run() {
  local out
  out=$(timeout 120 "$tw" bench --json --rounds 500 --seconds 0.1 --sizes 64,4096,1048576 "$@")
  echo "$out"
  [[ $(grep -c '"test":"round_trip".*"ratio":[0-9.]*}' <<<"$out") == 2 ]]
  # The two shorter ones also in lists.
  [[ $(grep -c '"test":"goodput".*"same_frames_ratio":[0-9.]*,"ratio":[0-9.]*}' <<<"$out") == 5 ]]
  [[ $(grep -c '"test":"goodput".*"list":32,' <<<"$out") == 2 ]]
  [[ $(grep -c '"test":"peer","peer":"eventfd".*"ratio":[0-9.]*}' <<<"$out") == 1 ]]
}
run
unshare --net sleep infinity &
far=$!
trap 'kill $far' EXIT
until [[ $(readlink "/proc/$far/ns/net") != $(readlink /proc/self/ns/net) ]]; do sleep 0.05; done
ip link add tw0 type veth peer name tw0 netns "$far"
ip link set tw0 up
nsenter -t "$far" -n ip link set tw0 up
for kind in eth xdp; do
  run --port "$kind:tw0" --far-port "$kind:tw0" --far-netns "/proc/$far/ns/net"
done
