#!/usr/bin/env python3
"""`make ladder`: every step on this machine, one table. On a GPU times; on the CPU back end counts, for its times say
nothing about a GPU's.

    make ladder [LADDER="--seqlen 4096 --head-dim 64 --causal --out FILE.json"]

--out keeps what the table was made of. docs/data/h200_ladder.json and docs/data/emu_ladder.json were made by

    make ladder LADDER="--out docs/data/h200_ladder.json"                     on the H200
    make ladder LADDER="--out docs/data/emu_ladder.json" BACKEND=emu          anywhere: counts don't depend on the machine
"""
import argparse
import json
import shlex
import sys

from command import check_programs, positive, run_main
from files import written_whole
from measure import (MeasureError, is_backward, landing_of, machine, message_of, number_of, problem_options, progress,
                     run_json, verdict_of)


def arguments(argv):
    p = argparse.ArgumentParser(prog="make ladder", description="Every step on one problem, in one table.")
    p.add_argument("programs", nargs="*", help=argparse.SUPPRESS)
    p.add_argument("--batch", type=positive)
    p.add_argument("--heads", type=positive)
    p.add_argument("--seqlen", type=positive)
    p.add_argument("--head-dim", type=positive, default=64)
    p.add_argument("--causal", action="store_true")
    p.add_argument("--out", default="build/ladder.json", metavar="FILE", help="the figures as JSON, for make plots (build/ladder.json)")
    return p.parse_args(argv)


def human_bytes(n):
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000 or unit == "TB":
            return f"{n:.3g} {unit}"
        n /= 1000


def ratio(a, b):
    return "" if not a or not b else f"{a / b:.2f}" if a < 10 * b else f"{a / b:.0f}"


def shortened(text, most=50):
    return text if len(text) <= most else text[: most - 1].rstrip(" ,:;") + "…"


def climb(results):
    """(name, report, TFLOP/s over the step before, over the first, the first's number). Forward and backward are ladders
    of their own: 2.5 times the work, another first step. A step without a time has None."""
    first, previous = {}, {}  # of each direction
    for name, report in results:
        if not report.get("time_ms"):
            yield name, report, None, None, None
            continue
        direction, speed = is_backward(name), report["tflops"]
        first_name, first_speed = first.setdefault(direction, (name, speed))
        before = previous.get(direction)
        yield name, report, before and speed / before, speed / first_speed, number_of(first_name)
        previous[direction] = speed


def share_of_roof(report):
    """Share of the time that the device's peaks allow at the least, and which peak that is."""
    least = report["model"].get("least_ms")
    return f"{100 * least / report['time_ms']['median']:.0f} % {report['model']['bound_by']}" if least else ""


def gpu_rows(results):
    yield ("step", "idea", "dtype", "verdict", "ms", "TFLOP/s", "x over previous", "x over 00", "of the roof")
    for name, r, over_previous, over_first, first in climb(results):
        if over_first is None:
            yield (name, r.get("idea", ""), "", verdict_of(r), "", "", "", "", "")
            continue
        yield (name, r["idea"], r["problem"]["dtype"], verdict_of(r), f"{r['time_ms']['median']:.3f}", f"{r['tflops']:.1f}",
               ratio(over_previous, 1), ratio(over_first, 1) + ("" if first == "00" else f" ({first})"), share_of_roof(r))


def emu_rows(results):
    yield ("step", "idea", "verdict", "read", "written", "x the least", "formula", "sectors a request", "conflicts")
    for name, r in results:
        if not r.get("counts"):
            yield (name, r.get("idea", ""), verdict_of(r), "", "", "", "", "", "")
            continue
        c, m = r["counts"], r["model"]
        read, write = c["global_read_bytes"], c["global_write_bytes"]
        agrees = (read, write) == (m["read_bytes"], m["write_bytes"])
        requests = c["global_read_requests"] + c["global_write_requests"]
        sectors = c["global_read_sectors"] + c["global_write_sectors"]
        yield (name, r["idea"], verdict_of(r), human_bytes(read), human_bytes(write), f"{(read + write) / m['min_bytes']:.1f}",
               "agrees" if agrees else f"{(read + write) / (m['read_bytes'] + m['write_bytes'] or 1):.3f} of it",
               f"{sectors / requests:.1f}" if requests else "", str(c["shared_read_conflicts"] + c["shared_write_conflicts"]))


def kept_of(name, report):
    """A report without what no table shows."""
    check = {"verdict": verdict_of(report), "message": message_of(report)}
    return {**{k: v for k, v in report.items() if k not in ("kernels", "faults")}, "name": name, "check": check}


EMU_LEGEND = """\
read, written      bytes that the threads ask global memory for; "x the least": against each input read and each output written once
formula            whether the step's own prediction (Plan::traffic) says the same, to the byte
sectors a request  32-byte pieces of global memory that a warp's load or store touches
conflicts          passes over the shared-memory banks beyond those the loads and stores need"""
GPU_LEGEND = """\
x over 00    TFLOP/s against step 00's; a backward step's against the first backward step's
of the roof  the least time that the GPU's peaks allow, as a share of the time taken, and which peak it is"""


def markdown(rows, right=()):
    """A table whose columns line up as text too; the columns in `right` are aligned right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    pad = lambda row: [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
    lines = ["| " + " | ".join(pad(row)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i in right else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def measure(a, options):
    """-> [(landing, report)], and what --out keeps of them."""
    on_gpu = is_cuda(a.programs)
    # One problem for all steps: it fills a GPU; on the CPU back end it has several tiles and takes seconds.
    batch, heads, seqlen = a.batch or (2 if on_gpu else 1), a.heads or (16 if on_gpu else 1), a.seqlen or (4096 if on_gpu else 256)
    results = []
    for n, program in enumerate(a.programs, 1):
        progress(f"{n} of {len(a.programs)}: {landing_of(program)}")
        results.append((landing_of(program), run_json(program, problem_options(batch, heads, seqlen, a.head_dim, a.causal))))
    progress("")
    return results, {
        "command": "make ladder" + (f' LADDER="{shlex.join(options)}"' if options else "") + ("" if on_gpu else " BACKEND=emu"),
        "problem": f"batch {batch}, heads {heads}, seqlen {seqlen}, head_dim {a.head_dim}{', causal' if a.causal else ''}",
        "device": next((r["device"] for _, r in results if "device" in r), "no device"),
        **machine(), "steps": [kept_of(name, r) for name, r in results]}


def is_cuda(programs):
    return "build/cuda" in programs[0]


def show(results, kept, on_gpu):
    print(f"{kept['device']}; {kept['problem']}; each step in its first dtype")
    if on_gpu:
        print(f"driver {kept['driver']}, CUDA {kept['toolkit']}, commit {kept['commit'] or 'unknown'}")
    print()
    rows = [(row[0], shortened(row[1]), *row[2:]) for row in (gpu_rows(results) if on_gpu else emu_rows(results))]
    print(markdown(rows, right=range(4 if on_gpu else 3, 9)))
    print("\n" + (GPU_LEGEND if on_gpu else EMU_LEGEND))
    without = [(name, r) for name, r in results if verdict_of(r) != "pass"]
    if without:
        print()
    for name, r in without:
        print(f"{verdict_of(r).upper()} {name}: {message_of(r)}")


def text_of(kept):
    return json.dumps(kept, indent=1) + "\n"


def main(argv):
    a = arguments(argv)
    if not a.programs:
        raise MeasureError("usage: make ladder")
    check_programs(a.programs)
    with written_whole(a.out) as out:
        results, kept = measure(a, argv[len(a.programs):])
        show(results, kept, is_cuda(a.programs))
        if not any(r.get("time_ms") or r.get("counts") for _, r in results):
            raise MeasureError(f"No step has a figure; {a.out} is left as it was.")
        out.write(text_of(kept))
    return 1 if any(verdict_of(r) in ("fail", "error") for _, r in results) else 0


if __name__ == "__main__":
    run_main(main)
