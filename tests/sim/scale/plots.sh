#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# plots.sh BUILD-DIRECTORY [OUTPUT-DIRECTORY]
# Runs the simulations behind docs/simulation.md and draws their plots as SVG
# (Debian package python3-matplotlib). Takes a minute or two; a run is a function
# of its seed, so the same code draws the same curves.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
build=${1:?plots.sh BUILD-DIRECTORY [OUTPUT-DIRECTORY]}
out=${2:-$here/../../../docs}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for scenario in loss reorder stall incast fairness; do
  "$build/tests/bin/scale_sim" "$scenario" >"$work/$scenario.csv"
done
/usr/bin/python3 "$here/plots.py" "$work" "$out"
