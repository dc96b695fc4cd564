"""The awkward problems that the exercises share with the steps' tests: common/tests/awkward_problems.txt."""
import os
from collections import namedtuple

from exercise_files import ROOT

LIST = os.path.join(ROOT, "common", "tests", "awkward_problems.txt")
Problem = namedtuple("Problem", "batch heads kv_heads seqlen seqlen_k head_dim causal dist")


def check_problems():
    """Those that `make check` runs, and `make grade` with other lengths."""
    found = []
    with open(LIST, encoding="utf-8") as f:
        lines = [line.split() for line in f if line.strip() and not line.startswith("#")]
    for *lengths, head_dim, causal, dist, _, where in lines:
        if where == "check":
            found.append(Problem(*map(int, lengths), 64 if head_dim == "every" else int(head_dim), causal == "yes", dist))
    return found


def options(p):
    """As ./run's options, as few as say it."""
    words = [f"--batch {p.batch}"] if p.batch > 1 else []
    words += [f"--heads {p.heads}"] + ([f"--kv-heads {p.kv_heads}"] if p.kv_heads != p.heads else [])
    words += [f"--seqlen {p.seqlen}"] + ([f"--seqlen-k {p.seqlen_k}"] if p.seqlen_k != p.seqlen else [])
    words += [f"--head-dim {p.head_dim}"] if p.head_dim != 64 else []
    words += (["--causal"] if p.causal else []) + ([f"--dist {p.dist}"] if p.dist != "normal" else [])
    return " ".join(words)
