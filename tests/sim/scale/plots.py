# SPDX-License-Identifier: BSD-3-Clause
"""plots.py CSV-DIRECTORY OUTPUT-DIRECTORY: draws what scale_sim printed."""
import csv
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
# The same input makes the same file.
matplotlib.rcParams["svg.hashsalt"] = "tripwire"
matplotlib.rcParams["font.size"] = 9
from matplotlib import pyplot as plt  # noqa: E402

STYLES = {"selective": ("selective repeat", "o-", "#1f6f8b"),
          "go-back-n": ("go-back-N", "s--", "#c0561a")}


def curves(path, x, y):
    found = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            xs, ys = found.setdefault(row["way"], ([], []))
            xs.append(float(row[x]))
            ys.append(float(row[y]))
    return found


def draw(axes, path, x, y, title, x_label, y_label, x_scale=1.0, log=False):
    for way, (xs, ys) in curves(path, x, y).items():
        label, style, colour = STYLES[way]
        axes.plot([value * x_scale for value in xs], ys, style, color=colour,
                  label=label, markersize=4, linewidth=1.2)
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, linewidth=0.3)
    if log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend()


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    print(path)


def main():
    source, out = map(pathlib.Path, sys.argv[1:3])
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    goodput = "goodput, Gbit/s of 10"
    draw(axes[0], source / "loss.csv", "x", "gigabits_per_s", "Lost frames",
         "lost, %", goodput, 100)
    draw(axes[1], source / "reorder.csv", "x", "gigabits_per_s",
         "Reordered frames", "held back, %", goodput, 100)
    draw(axes[2], source / "stall.csv", "x", "gigabits_per_s",
         "Stalls of 5 ms, either end", "of the time, %", goodput, 100)
    for one in axes:
        one.set_ylim(0, 10)
    save(figure, out / "sim-faults.svg")
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    draw(axes[0], source / "incast.csv", "senders", "slowdown",
         "Incast: 64 KiB from each at once", "senders",
         "time, to the wire's alone", log=True)
    axes[0].set_yscale("log")
    draw(axes[1], source / "fairness.csv", "senders", "jain",
         "Fairness: all to one, 200 ms", "senders", "Jain's index", log=True)
    axes[1].set_ylim(0, 1.05)
    draw(axes[2], source / "fairness.csv", "senders", "utilisation",
         "Use of the shared wire", "senders", "payload, of the wire's bits",
         log=True)
    axes[2].set_ylim(0, 1.05)
    save(figure, out / "sim-crowds.svg")


if __name__ == "__main__":
    main()
