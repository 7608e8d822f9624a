#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Looks for what no fuzzer has found yet: each with new seeds, one after another,
# from what it learnt before and the stored seeds. What breaks one is kept, and
# the next goes on. Usage: tests/fuzz/fuzz.sh [BUILD_DIR [SECONDS [FUZZER ...]]],
# of 300 seconds each, all of them, unless told otherwise.
set -euo pipefail
here=$(dirname "$0")
build=${1:-build/asan-ubsan}
seconds=${2:-300}
shift $(($# < 2 ? $# : 2))
fuzzers=("$@")
if ((${#fuzzers[@]} == 0)); then
  for source in "$here"/*_fuzzer.cc; do fuzzers+=("$(basename "$source" .cc)"); done
fi
failed=0
for name in "${fuzzers[@]}"; do
  program=$build/tests/bin/$name
  [ -x "$program" ] || { echo "fuzz: no $program; build the asan-ubsan preset first" >&2; exit 2; }
  learnt=$build/fuzz/$name
  mkdir -p "$learnt"
  log=$learnt.log
  if "$program" -max_total_time="$seconds" -max_len=4096 -timeout=40 -rss_limit_mb=3000 \
      -artifact_prefix="$learnt-" "$learnt" "$here/corpus/$name" >"$log" 2>&1; then
    echo "$name: $(tail -1 "$log")"
  else
    failed=1
    echo "$name: FAILED, see $log"
    grep -a -e 'ERROR:' -e 'does not hold' -e 'Test unit written' "$log" || true
  fi
done
exit $failed
