"""Reads what the bench, the ladder and the counts left in docs/data/. What the tables and the plots share. A file that isn't
there, is empty or broken is a MeasureError that says which and where."""
import csv
import io
import json
import statistics

from files import shown
from measure import MeasureError
from turns import spread


class Row(dict):
    """A row of a CSV, or an object of a JSON file. What it lacks, and what should be a number and isn't, is a sentence."""

    def __init__(self, where, values):
        super().__init__(values)
        self.where = where

    def __missing__(self, name):
        raise MeasureError(f"{self.where} has no '{name}'")

    def number(self, name, kind=float):
        try:
            return kind(self[name])
        except ValueError:
            raise MeasureError(f"{self.where}: {name} is '{self[name]}', which is no {'integer' if kind is int else 'number'}") from None

    def integer(self, name):
        return self.number(name, int)


def read_text(path):
    try:
        with open(path, newline="", encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        raise MeasureError(f"there is no {shown(path)}") from None
    except UnicodeDecodeError:
        raise MeasureError(f"{shown(path)} is not text") from None


def read_csv(path):
    """The rows, at least one."""
    reader, rows, name = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True), [], shown(path)
    try:
        for values in reader:
            rows.append(Row(f"{name}, line {reader.line_num}", values))
            if None in values or None in values.values():
                raise MeasureError(f"{rows[-1].where} doesn't have as many fields as the first")
    except csv.Error as error:
        raise MeasureError(f"{name}, line {reader.line_num}: {error}") from None
    if not rows:
        raise MeasureError(f"{name} has no rows")
    return rows


def read_ladder(path):
    """What `make ladder` kept, with at least one step."""
    name = shown(path)
    try:
        ladder = json.loads(read_text(path), object_hook=lambda values: Row(name, values))
    except ValueError as error:
        raise MeasureError(f"{name} is not JSON: {error}") from None
    if not isinstance(ladder, Row) or not isinstance(ladder["steps"], list) or not ladder["steps"]:
        raise MeasureError(f"{name} has no steps")
    return ladder


class Bench:
    """A CSV of `make bench`: the median over the repetitions of each cell."""

    def __init__(self, path):
        self.rows = read_csv(path)
        self.cells, self.notes = {}, {}  # self.repetitions: how many rows the cells are medians of
        self.timed = repetitions = {}
        for r in self.rows:
            key = (r["impl"], r["direction"], r.integer("seqlen"), r.integer("head_dim"), r.integer("causal"))
            if r["ms"]:
                repetitions.setdefault(key, []).append(r)
            else:  # a skip may come from a program that never said its direction
                self.notes[key[:1] + key[2:]] = r["verdict"]
        self.repetitions = sorted({len(same) for same in repetitions.values()})
        for key, same in repetitions.items():
            self.cells[key] = {name: statistics.median(r.number(name) for r in same) for name in ("ms", "tflops")}
        if not self.cells:
            raise MeasureError(f"{shown(path)} has no times")

    def values(self, column):
        """The different values of a column, in the order of the file."""
        return list(dict.fromkeys(r[column] for r in self.rows))

    def seqlens(self, impls=None):
        return sorted({r.integer("seqlen") for r in self.rows if not impls or r["impl"] in impls})

    def headdims(self):
        return sorted({r.integer("head_dim") for r in self.rows})

    def cell(self, impl, direction, seqlen, head_dim, causal):
        """{"ms": …, "tflops": …}, or None where there is no time."""
        return self.cells.get((impl, direction, seqlen, head_dim, causal))

    def ratio(self, mine, other, direction, seqlen, head_dim, causal):
        """(median, least, greatest) of how much faster `mine` is than `other`, a repetition at a time; None without both."""
        ms = [{r["rep"]: r.number("ms") for r in self.timed.get((impl, direction, seqlen, head_dim, causal), ())} for impl in (mine, other)]
        return spread([ms[1][rep] / ms[0][rep] for rep in ms[0] if rep in ms[1]]) if ms[0].keys() & ms[1].keys() else None

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
