#!/usr/bin/env python3
"""`make bench`: times every step on this GPU and writes CSV, a row a repetition.

    make bench [BENCH="--seqlens 1024,4096 --headdims 64,128 --steps 04,05.3 --reps 3 --peers --out FILE"]

The problem is --tokens queries of --hidden columns: batch = tokens / seqlen, heads = hidden / head_dim. Repetitions go
round over the steps (all steps once, then all again), so that a drift of the clock shows in every step alike. A kernel
whose check fails is recorded as incorrect and not timed. With --peers PyTorch's attention is timed by turns with the
steps (common/bench/peers.py; needs PyTorch).
"""
import argparse
import csv
import os
import sys
import time

from measure import MeasureError, clocks, landing_of, machine, problem_options, run_json

COLUMNS = ["impl", "direction", "dtype", "batch", "heads", "kv_heads", "seqlen", "head_dim", "causal", "rep", "verdict",
           "ms", "ms_min", "ms_max", "tflops", "sm_mhz", "mem_mhz", "power_w", "gpu", "driver", "toolkit", "commit",
           "date", "note"]


def numbers(text):
    return [int(n) for n in text.split(",")]


def arguments(argv):
    p = argparse.ArgumentParser(prog="make bench", description="Time the steps on this GPU; CSV, a row a repetition.")
    p.add_argument("programs", nargs="+", help=argparse.SUPPRESS)
    p.add_argument("--seqlens", type=numbers, default=numbers("512,1024,2048,4096,8192,16384"))
    p.add_argument("--headdims", type=numbers, default=numbers("64,128"))
    p.add_argument("--causal", type=numbers, default=[0, 1])
    p.add_argument("--tokens", type=int, default=16384)
    p.add_argument("--hidden", type=int, default=2048)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--iters", type=int, default=20)
    p.add_argument("--dtype", default="", help="only steps that take it; else each step's first")
    p.add_argument("--steps", default="", help="numbers, such as 04,05.3; else all")
    p.add_argument("--peers", action="store_true", help="PyTorch's attention as well")
    p.add_argument("--out", default="bench.csv")
    return p.parse_args(argv)


def number_of(program):
    folder, file = landing_of(program).split("/")
    part = file.split("_")[0]
    return folder.split("_")[0] + ("." + part if part.isdigit() else "")


def row_of(impl, report, shape, rep, note=""):
    batch, heads, seqlen, head_dim, causal = shape
    time_ms = report.get("time_ms") or {}
    verdict = report["check"]["verdict"]
    problem = report.get("problem", {})
    return {
        "impl": impl, "direction": report.get("direction", ""), "dtype": problem.get("dtype", ""), "batch": batch,
        "heads": heads, "kv_heads": heads, "seqlen": seqlen, "head_dim": head_dim, "causal": causal, "rep": rep,
        "verdict": "incorrect" if verdict == "fail" else verdict, "ms": time_ms.get("median", ""),
        "ms_min": time_ms.get("min", ""), "ms_max": time_ms.get("max", ""), "tflops": report.get("tflops") or "",
        "note": note or (report["check"].get("message", "").splitlines() or [""])[0] if verdict in ("skip", "error", "fail") else "",
    }


def main(argv):
    a = arguments(argv)
    wanted = a.steps.split(",") if a.steps else None
    programs = [p for p in a.programs if not wanted or number_of(p) in wanted]
    if not programs:
        raise MeasureError(f"no step is called {a.steps}")
    where = dict(machine(), date=time.strftime("%Y-%m-%d"))
    if not where["gpu"]:
        raise MeasureError("make bench times kernels on a GPU, and there is none here; `make ladder` shows counts instead")
    peers = None
    if a.peers:
        from peers import Peers

        peers = Peers()

    shapes = [(max(1, a.tokens // n), a.hidden // d, n, d, c) for d in a.headdims for n in a.seqlens for c in a.causal]
    rows, begin, incorrect = [], time.time(), set()
    unfinished = a.out + ".part"
    with open(unfinished, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        for done, shape in enumerate(shapes):
            for rep in range(a.reps):
                todo = [(landing_of(p), p) for p in programs]
                for impl, program in todo:
                    if (impl, shape) in incorrect:
                        continue
                    options = problem_options(*shape[:4], causal=shape[4], dtype=a.dtype or None)
                    options += ["--iters", str(a.iters)] + (["--no-check"] if rep else [])
                    report = run_json(program, options)
                    if not report.get("time_ms"):
                        incorrect.add((impl, shape))  # skipped, wrong or broken: said once
                    rows.append(dict(row_of(impl, report, shape, rep), **clocks(), **where))
                    writer.writerow(rows[-1])
                for report in peers.time(shape, a.iters) if peers else ():
                    rows.append(dict(row_of(report["impl"], report, shape, rep), **clocks(), **where))
                    writer.writerow(rows[-1])
                f.flush()
            print(f"\r\033[K{done + 1} of {len(shapes)} shapes, {time.time() - begin:.0f} s", end="", file=sys.stderr)
    os.replace(unfinished, a.out)
    print(f"\n{len(rows)} rows in {a.out}", file=sys.stderr)
    wrong = sorted({r["impl"] for r in rows if r["verdict"] in ("incorrect", "error")})
    if wrong:
        print(f"incorrect: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MeasureError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
