#!/usr/bin/env python3
"""`make plots`: draws the figures into docs/figures/ from what lies in docs/data/; a figure whose data aren't there is
skipped, and the line says which. Needs matplotlib, and nothing else in the project does.

    make plots [PLOTS="ladder roofline"]

`make ladder` leaves its figures in build/ladder.json: that ladder, this machine's own, is drawn into build/figures/ladder.svg.
"""
import os
import sys

from figure import Missing  # says so when matplotlib isn't there
import plot_layouts
import plot_measured
import plot_traffic
from data import read_json
from measure import ROOT

FIGURES = {**plot_measured.FIGURES, **plot_layouts.FIGURES, **plot_traffic.FIGURES}


def in_data(name):
    return os.path.join(ROOT, os.environ.get("FLASH_DATA", "docs/data"), name)


def main(names):
    unknown = [n for n in names if n not in FIGURES]
    if unknown:
        print(f"There is no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}.", file=sys.stderr)
        return 2
    for name in names or FIGURES:
        out = os.path.join(os.environ.get("FLASH_FIGURES", "docs/figures"), name + ".svg")
        try:
            FIGURES[name](in_data, out)
            print(f"{out}")
        except Missing as missing:
            print(f"{out}: skipped, for there is no {missing}")
    own = read_json(os.path.join(ROOT, "build/ladder.json"))
    if own and not names:
        plot_measured.draw_ladder(own, "build/figures/ladder.svg")
        print("build/figures/ladder.svg: this machine's own, of the last make ladder")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
