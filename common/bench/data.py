"""Reads what the bench and the ladder left in docs/data/. What the tables and the plots share."""
import csv
import json
import os
import statistics


def read_csv(path):
    """Rows of a CSV; [] when there is none."""
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def read_json(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class Bench:
    """A CSV of `make bench`: the median over the repetitions of each cell."""

    def __init__(self, path):
        self.rows = read_csv(path)
        self.cells, self.notes = {}, {}  # self.repetitions: how many rows the cells are medians of
        repetitions = {}
        for r in self.rows:
            key = (r["impl"], r["direction"], int(r["seqlen"]), int(r["head_dim"]), int(r["causal"]))
            if r["ms"]:
                repetitions.setdefault(key, []).append(r)
            else:  # a skip may come from a program that never said its direction
                self.notes[key[:1] + key[2:]] = r["verdict"]
        self.repetitions = sorted({len(same) for same in repetitions.values()})
        for key, same in repetitions.items():
            self.cells[key] = {name: statistics.median(float(r[name]) for r in same) for name in ("ms", "tflops")}

    def __bool__(self):
        return bool(self.rows)

    def values(self, column):
        """The different values of a column, in the order of the file."""
        return list(dict.fromkeys(r[column] for r in self.rows))

    def seqlens(self, impls=None):
        return sorted({int(r["seqlen"]) for r in self.rows if not impls or r["impl"] in impls})

    def headdims(self):
        return sorted({int(r["head_dim"]) for r in self.rows})

    def cell(self, impl, direction, seqlen, head_dim, causal):
        """{"ms": …, "tflops": …}, or None where there is no time."""
        return self.cells.get((impl, direction, seqlen, head_dim, causal))

    def why_not(self, impl, seqlen, head_dim, causal):
        """The verdict of a cell without a time: "incorrect", "too slow", "skip"; "" where there is no row."""
        return self.notes.get((impl, seqlen, head_dim, causal), "")

    def source(self):
        """What the figures must be quoted with: GPU, driver, toolkit, commit and date, and the command (commands, when
        rows were appended)."""
        where = "; ".join(dict.fromkeys(map(where_and_when, self.rows)))
        least, most = self.repetitions[0], self.repetitions[-1]
        times = "one repetition" if most == 1 else f"medians of {most if least == most else f'{least} to {most}'} repetitions"
        return f"{where}, {times}", "` and `".join(self.values("command"))


def where_and_when(d):
    parts = [d.get("gpu") or d.get("device"), d.get("driver") and f"driver {d['driver']}",
             d.get("toolkit") and f"CUDA {d['toolkit']}", d.get("commit") and f"commit {d['commit']}", d.get("date")]
    return ", ".join(p for p in parts if p)
