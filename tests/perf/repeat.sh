#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs a benchmark several times and prints its output once, with medians in place of
# the numbers; under a line that differed from run to run, in brackets, from where to
# where each of them went.
# Usage: tests/perf/repeat.sh TIMES COMMAND [ARGUMENT...]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: repeat.sh TIMES COMMAND [ARGUMENT...]" >&2; exit 2; }
times=$1
shift
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for i in $(seq "$times"); do
  "$@" >"$out/$i" || { echo "repeat: run $i of $times failed" >&2; exit 1; }
  echo "repeat: $i of $times" >&2
done
# A number begins a word or follows a bracket or an equals sign; 1280x720 is none.
awk '
  function sort(v, n,   i, j, t) {
    for (i = 2; i <= n; i++) {
      t = v[i]
      for (j = i; j > 1 && v[j - 1] + 0 > t + 0; j--) v[j] = v[j - 1]
      v[j] = t
    }
  }
  # Cuts a line into text[0] number[1] text[1] ...; returns how many numbers.
  function cut(line, text, number,   n, at, before, after) {
    n = 0
    text[0] = ""
    while (match(line, /[0-9]+([.][0-9]+)?/)) {
      before = RSTART > 1 ? substr(line, RSTART - 1, 1) : substr(text[n], length(text[n]), 1)
      after = substr(line, RSTART + RLENGTH, 1)
      if (before !~ /^[ (=]?$/ || after !~ /^[ ),;%]?$/) {
        text[n] = text[n] substr(line, 1, RSTART + RLENGTH - 1)
      } else {
        text[n] = text[n] substr(line, 1, RSTART - 1)
        number[++n] = substr(line, RSTART, RLENGTH)
        text[n] = ""
      }
      line = substr(line, RSTART + RLENGTH)
    }
    text[n] = text[n] line
    return n
  }
  FNR == 1 { run++ }
  {
    count = cut($0, text, number)
    if (run == 1) { lines = FNR; numbers[FNR] = count; first[FNR] = $0 }
    else if (count != numbers[FNR]) { print "repeat: line " FNR " of run " run " is another" > "/dev/stderr"; exit 1 }
    for (i = 1; i <= count; i++) value[FNR, i, run] = number[i]
  }
  END {
    for (l = 1; l <= lines; l++) {
      n = cut(first[l], text, number)
      line = text[0]
      range = ""
      for (i = 1; i <= n; i++) {
        for (r = 1; r <= run; r++) v[r] = value[l, i, r]
        sort(v, run)
        width = length(number[i])
        median = v[int((run + 1) / 2)]
        # As wide as the first was, so that tables stay tables.
        while (length(median) > width && line ~ /  $/) { line = substr(line, 1, length(line) - 1); width++ }
        line = line sprintf("%" width "s", median) text[i]
        if (v[1] + 0 != v[run] + 0) range = range (range == "" ? "" : ", ") v[1] " to " v[run]
      }
      print line
      if (range != "") print "    (" range ")"
    }
  }' $(seq -f "$out/%g" "$times")
