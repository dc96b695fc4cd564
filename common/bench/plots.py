#!/usr/bin/env python3
"""Draws pictures of measurements and counts. Needs matplotlib, and nothing else in the project does.

    make plots                                   this machine's own, into build/figures/, from what `make ladder` left
                                                 in build/ladder.json: its ladder, and on a GPU its roofs
    make figures [FIGURES="ladder roofline"]     the documents' pictures in docs/figures/, from docs/data/. A picture
                                                 whose data aren't there is skipped, and a line says which. matplotlib's
                                                 versions differ in small things, so git may show changes
"""
import os
import sys

from figure import Missing  # says so when matplotlib isn't there
import plot_layouts
import plot_measured
import plot_traffic
from measure import ROOT

FIGURES = {**plot_measured.FIGURES, **plot_layouts.FIGURES, **plot_traffic.FIGURES}
BUILD = os.environ.get("FLASH_BUILD", "build")


def in_data(name):
    return os.path.join(ROOT, os.environ.get("FLASH_DATA", "docs/data"), name)


def own():
    ladder = os.path.join(BUILD, "ladder.json")
    if not os.path.exists(os.path.join(ROOT, ladder)):
        print(f"make plots draws what make ladder has measured, and there is no {ladder} yet: run make ladder first.", file=sys.stderr)
        return 2
    for name in ("ladder", "roofline"):
        out = os.path.join(BUILD, "figures", name + ".svg")
        try:
            FIGURES[name](lambda _: os.path.join(ROOT, ladder), out)
            print(out)
        except Missing as missing:
            if name == "ladder":
                print(f"{ladder} doesn't have {missing}: run make ladder again, without WATCH=0.", file=sys.stderr)
                return 2
            # No roofline: nothing was timed on a GPU.
    return 0


def of_the_documents(names):
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
    return 0


def main(words):
    if words[:1] == ["documents"]:
        return of_the_documents(words[1:])
    if words:
        print(__doc__, file=sys.stderr)
        return 2
    return own()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
