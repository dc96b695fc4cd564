#!/usr/bin/env python3
"""`make bench`: times every step on this GPU and writes CSV, a row a repetition.

    make bench [BENCH="--seqlens 1024,4096 --headdims 64,128 --steps 04,05.6 --reps 3 --peers --out FILE"]

The files in docs/data/ were made by these commands (docs/performance.md says how to read them):

    make bench BENCH="--dtype fp32 --batch 2 --heads 16 --peers --out docs/data/h200_fp32.csv"
    make bench BENCH="--steps 05,06 --dtype bf16 --peers --out docs/data/h200_bf16.csv"

The problem is --tokens queries of --hidden columns (batch = tokens / seqlen, heads = hidden / head_dim) unless --batch
and --heads say otherwise. A repetition goes round all shapes, and for each shape round all steps, so that a drift of the
clock shows in every step alike. In a step's first repetition its result is checked (verdict pass; its later rows say again);
a kernel that is wrong is recorded as incorrect and not timed. How often a step is called follows from how long its last,
shorter problem took; where one call would take longer than --call-ms it isn't made. A row's ms is the median over its calls.

With --peers the steps and the attention that people use are called by turns in one process, in bursts of about --burst-ms
(common/bench/peers.py; needs PyTorch): a repetition is a round in which each makes one burst, and a row's ms is a burst's
time by its calls. A ratio is the median of the rounds' ratios. A step is checked by ./run before.

With --ablations 5.6 that landing is timed beside itself with one part taken out, a part after the other (ablations.py).
"""
import argparse
import csv
import os
import shlex
import sys
import time

import ablations
from command import check_programs, numbers, positive, run_main
from data import read_csv
from files import written_whole
from measure import Clocks, MeasureError, is_backward, landing_of, machine, message_of, number_of, problem_options, progress, run_json, verdict_of

COLUMNS = ["impl", "direction", "dtype", "batch", "heads", "kv_heads", "seqlen", "head_dim", "causal", "rep", "verdict",
           "ms", "ms_min", "ms_max", "iters", "tflops", "of_roof", "sm_mhz", "mem_mhz", "power_w", "gpu", "driver",
           "toolkit", "commit", "date", "note", "command"]
FIRST_ITERS = 20  # where nothing is known yet: a series begins with its shortest problem
MOST_ITERS = 50
DTYPES = ("fp32", "bf16", "fp16")


def arguments(argv):
    p = argparse.ArgumentParser(prog="make bench", description="Time the steps on this GPU; CSV, a row a repetition.",
                                epilog='Write the options as make bench BENCH="--seqlens 1024,4096 --reps 3".')
    p.add_argument("programs", nargs="*", help=argparse.SUPPRESS)
    p.add_argument("--seqlens", type=numbers(1, 2**31 - 1), default=[512, 1024, 2048, 4096, 8192, 16384], metavar="N,N")
    p.add_argument("--headdims", type=numbers(1, 1024), default=[64, 128], metavar="D,D")
    p.add_argument("--causal", type=numbers(0, 1), default=[0, 1], metavar="0,1", help="0, 1, or both (the default)")
    p.add_argument("--tokens", type=positive, default=16384, help="batch x seqlen (16384)")
    p.add_argument("--hidden", type=positive, default=2048, help="heads x head_dim (2048)")
    p.add_argument("--batch", type=positive, help="instead of tokens / seqlen")
    p.add_argument("--heads", type=positive, help="instead of hidden / head_dim")
    p.add_argument("--dtype", choices=DTYPES, help="else each step's first; steps that don't take it are skipped")
    p.add_argument("--steps", default="", metavar="04,05.6", help="else all")
    p.add_argument("--ablations", metavar="5.6", help="this landing, and what it is without each of its parts")
    p.add_argument("--reps", type=positive, help="rounds over everything (3; 9 with --peers)")
    p.add_argument("--cell-ms", type=positive, default=300, help="GPU time for one row, about (300)")
    p.add_argument("--call-ms", type=positive, default=1000, help="a call that would take longer isn't made (1000)")
    p.add_argument("--minutes", type=float, default=float("inf"), help="no further repetitions after so many; the first is always made")
    p.add_argument("--peers", action="store_true", help="by turns with PyTorch's attention, FlashAttention-3 and -4")
    p.add_argument("--burst-ms", type=positive, default=40, help="GPU time of one burst with --peers, about (40)")
    p.add_argument("--append", action="store_true", help="keep the rows that --out has, and add to them")
    p.add_argument("--out", default="bench.csv", metavar="FILE")
    a = p.parse_args(argv)
    a.reps = a.reps or (9 if a.peers else 3)
    return a


def shapes_of(a):
    """(batch, heads, seqlen, head_dim, causal), the shortest sequence of a series first."""
    return [(a.batch or max(1, a.tokens // n), a.heads or max(1, a.hidden // d), n, d, c)
            for d in a.headdims for c in a.causal for n in a.seqlens]


def short(x):
    """Six significant digits: more than a clock gives."""
    return f"{x:.6g}" if x else ""


def row_of(impl, report, shape, rep, dtype=""):
    batch, heads, seqlen, head_dim, causal = shape
    time_ms, verdict = report.get("time_ms") or {}, verdict_of(report)
    least = (report.get("model") or {}).get("least_ms")
    return {
        "impl": impl, "direction": report.get("direction", ""), "dtype": report.get("problem", {}).get("dtype", dtype),
        "batch": batch, "heads": heads, "kv_heads": heads, "seqlen": seqlen, "head_dim": head_dim, "causal": causal,
        "rep": rep, "verdict": {"fail": "incorrect"}.get(verdict, verdict),
        "ms": short(time_ms.get("median")), "ms_min": short(time_ms.get("min")), "ms_max": short(time_ms.get("max")),
        "iters": time_ms.get("iters", ""), "tflops": short(report.get("tflops")) if time_ms else "",
        "of_roof": f"{least / time_ms['median']:.4f}" if least and time_ms else "",
        "note": "" if time_ms else message_of(report),
    }


class Steps:
    """Times the steps, a shape at a time, and remembers how long they took."""

    def __init__(self, programs, a):
        self.programs, self.a = programs, a
        self.took = {}     # (program, head_dim, causal) -> {shape: ms}
        self.settled = {}  # (program, shape) -> True: checked; False: not to be tried again

    def expected_ms(self, program, shape):
        batch, heads, seqlen, head_dim, causal = shape
        known = {s: ms for s, ms in self.took.get((program, head_dim, causal), {}).items() if s[2] <= seqlen}
        if not known:
            return None
        like = max(known, key=lambda s: s[2])
        return known[like] * (batch * heads * seqlen**2) / (like[0] * like[1] * like[2] ** 2)

    def time(self, program, shape):
        a, seen = self.a, (program, shape)
        if self.settled.get(seen) is False:
            return None
        expected = self.expected_ms(program, shape)
        if expected and expected > a.call_ms:
            self.settled[seen] = False
            return {"check": {"verdict": "too slow", "message": f"not run: a call would take about {expected:.0f} ms"}}
        iters = min(MOST_ITERS, max(3, int(a.cell_ms / expected))) if expected else FIRST_ITERS
        options = problem_options(*shape, dtype=a.dtype) + ["--iters", str(iters)]
        checked = bool(self.settled.get(seen))
        report = run_json(program, options + (["--no-check"] if checked else []))
        if checked and report.get("time_ms"):
            report["check"]["verdict"] = "again"
        self.settled[seen] = bool(report.get("time_ms"))
        if self.settled[seen]:
            report["time_ms"]["iters"] = iters
            self.took.setdefault((program, shape[3], shape[4]), {})[shape] = report["time_ms"]["median"]
        return report


def direction_of(landing):
    return "backward" if is_backward(landing) else "forward"


def rows_by_turns(turns, shape, dtype, direction, landings):
    """(implementation, round, report shaped like ./run's): of the steps that are right, and of the peers."""
    batch, heads, seqlen, head_dim, causal = shape
    pairs = seqlen * (seqlen + 1) / 2 if causal else seqlen * seqlen  # as problem.h counts them
    work = 4.0 * batch * heads * pairs * head_dim * (2.5 if direction == "backward" else 1)
    times, skipped = turns.time(shape, dtype, direction, landings)
    for impl, rounds in times.items():
        for number, ms in enumerate(rounds):
            yield impl, number, {
                "direction": direction, "problem": {"dtype": dtype}, "tflops": work / ms * 1e-9,
                "time_ms": {"median": ms, "min": ms, "max": ms},
                "check": {"verdict": "peer" if impl not in landings else "again" if number else "pass"}}
    for impl, why in skipped.items():
        yield impl, 0, {"direction": direction, "problem": {"dtype": dtype}, "check": {"verdict": "skip", "message": why}}


def main(argv):
    a = arguments(argv)
    check_programs(a.programs)
    wanted = a.steps.split(",") if a.steps else None
    known = {p: {number_of(landing_of(p)), number_of(landing_of(p)).split(".")[0]} for p in a.programs}
    programs = [p for p in a.programs if not wanted or known[p] & set(wanted)]
    unknown = set(wanted or ()).difference(*known.values())
    where = machine()
    if not where["gpu"] or not a.programs:
        raise MeasureError("make bench times kernels on a GPU, and there is none here, or no nvcc; `make ladder` shows counts instead.")
    if unknown:
        raise MeasureError(f"There is no step {', '.join(sorted(unknown))}; there are "
                           f"{', '.join(number_of(landing_of(p)) for p in a.programs)}.")
    if a.ablations:
        programs = ablations.build(a.ablations, a.programs, [".run", ".so"] if a.peers else [".run"])
    turns = None
    if a.peers:
        from peers import ByTurns

        turns = ByTurns(programs, a.reps, a.burst_ms)

    options = argv[len(a.programs):] if argv[:len(a.programs)] == a.programs else [w for w in argv if w not in a.programs]
    where["command"] = f'make bench BENCH="{shlex.join(options)}"' if options else "make bench"
    shapes, steps, verdicts = shapes_of(a), Steps(programs, a), {}
    begin, done, rows = time.monotonic(), 0, 0
    before = read_csv(a.out) if a.append and os.path.exists(a.out) else []
    if before and list(before[0]) != COLUMNS:
        raise MeasureError(f"--append: {a.out} has other columns than make bench writes.")
    with written_whole(a.out, keep_part=True) as f, Clocks() as clocks:
        writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(before)

        def write(impl, report, shape, rep, since):
            nonlocal rows
            row = row_of(impl, report, shape, rep, a.dtype or "")
            writer.writerow(dict(row, **clocks.since(since), **where))
            f.flush()
            rows += 1
            verdicts.setdefault(row["verdict"], set()).add(impl)

        for rep in range(1 if turns else a.reps):
            for shape in shapes:
                if rows and time.monotonic() - begin > a.minutes * 60 and (rep or turns):
                    continue
                progress(f"repetition {rep + 1} of {a.reps}, shape {shapes.index(shape) + 1} of {len(shapes)} "
                         f"(seqlen {shape[2]}, head_dim {shape[3]}), {time.monotonic() - begin:.0f} s")
                since, right = time.monotonic(), {}
                for program in programs:
                    since = time.monotonic()
                    report = steps.time(program, shape)
                    if report and turns and report.get("time_ms"):
                        right.setdefault(report["problem"]["dtype"], []).append(landing_of(program))
                    elif report:
                        write(landing_of(program), report, shape, rep, since)
                for dtype, direction in [(t, d) for t in right for d in sorted({direction_of(l) for l in right[t]}, reverse=True)]:
                    since = time.monotonic()
                    for impl, round_, report in rows_by_turns(turns, shape, dtype, direction, right[dtype]):
                        write(impl, report, shape, round_, since)
                done += 1
    progress("")
    print(f"{rows} rows in {a.out}, {time.monotonic() - begin:.0f} s", file=sys.stderr)
    planned = len(shapes) * (1 if turns else a.reps)
    if done < planned:
        print(f"--minutes: {done} of {planned} rounds were made", file=sys.stderr)
    for verdict in ("incorrect", "error"):
        if verdicts.get(verdict):
            print(f"{verdict}: {', '.join(sorted(verdicts[verdict]))} (see the note column)", file=sys.stderr)
    return 1 if verdicts.get("incorrect") or verdicts.get("error") else 0


if __name__ == "__main__":
    run_main(main)
