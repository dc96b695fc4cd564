#!/usr/bin/env python3
"""Draws pictures of measurements and counts. Needs matplotlib, and nothing else in the project does.

    make plots                                   this machine's own, into build/figures/, from what `make ladder` left
                                                 in build/ladder.json: its ladder, and on a GPU its roofs
    make figures [FIGURES="ladder roofline"]     the documents' pictures in docs/figures/, from docs/data/. Where its data
                                                 aren't there or are broken, a picture stays as it is, and the status is 1.
                                                 matplotlib's versions differ in small things, so git may show changes
"""
import os
import sys

import plot_layouts  # matplotlib: says so when it isn't there
import plot_measured
import plot_traffic
from command import run_main
from data import read_ladder
from files import shown
from measure import ROOT, MeasureError

FIGURES = {**plot_measured.FIGURES, **plot_layouts.FIGURES, **plot_traffic.FIGURES}
BUILD = os.environ.get("FLASH_BUILD", "build")


def in_data(name):
    return os.path.join(ROOT, os.environ.get("FLASH_DATA", "docs/data"), name)


def own():
    path = os.path.join(ROOT, BUILD, "ladder.json")
    if not os.path.exists(path):
        raise MeasureError(f"make plots draws what make ladder has measured, and there is no {shown(path)} yet: run make ladder first.")
    for name in ["ladder"] + (["roofline"] if plot_measured.under_a_roof(read_ladder(path)) else []):
        out = os.path.join(BUILD, "figures", name + ".svg")
        FIGURES[name](lambda _: path, out)
        print(out)
    return 0


def of_the_documents(names):
    unknown = [n for n in names if n not in FIGURES]
    if unknown:
        raise MeasureError(f"There is no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}.")
    status = 0
    for name in names or FIGURES:
        out = os.path.join(os.environ.get("FLASH_FIGURES", "docs/figures"), name + ".svg")
        try:
            FIGURES[name](in_data, out)
            print(out)
        except MeasureError as error:
            print(f"{out} is left as it is: {error}", file=sys.stderr)
            status = 1
    return status


def main(words):
    if words[:1] == ["documents"]:
        return of_the_documents(words[1:])
    if words:
        raise MeasureError(__doc__)
    return own()


if __name__ == "__main__":
    run_main(main)
