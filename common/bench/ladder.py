#!/usr/bin/env python3
"""`make ladder`: every step on this machine, one table. On a GPU times; on the CPU back end counts, for its times say
nothing about a GPU's."""
import sys

from measure import MeasureError, landing_of, machine, problem_options, run_json


def options_for(on_gpu):
    # One problem for all steps: it fills a GPU; on the CPU back end it has several tiles and takes seconds.
    return problem_options(2, 16, 4096, 64) if on_gpu else problem_options(1, 1, 256, 64)


def human_bytes(n):
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if n < 1000 or unit == "TB":
            return f"{n:.3g} {unit}"
        n /= 1000


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def ratio(a, b):
    return f"{a / b:.2f}x" if a and b else ""


def gpu_rows(results):
    yield ("step", "idea", "verdict", "ms", "TFLOP/s", "over previous", "over 00", "of the roof")
    first = previous = direction = None
    for name, r in results:
        verdict = r["check"]["verdict"]
        if not r.get("time_ms"):
            yield (name, r.get("idea", ""), verdict, "", "", "", "", r["check"].get("message", "").splitlines()[0][:70])
            continue
        # Forward and backward are ladders of their own: 2.5 times the work, another first rung.
        speed = r["tflops"]
        if r["direction"] == "backward" and direction == "forward":
            first = previous = None
        direction = r["direction"]
        first = first or speed
        share = r["model"]["least_ms"] / r["time_ms"]["median"] if r["model"]["least_ms"] else None
        yield (name, r["idea"], verdict, f"{r['time_ms']['median']:.3f}", f"{speed:.1f}", ratio(speed, previous),
               ratio(speed, first), f"{100 * share:.0f} % {r['model']['bound_by']}" if share else "")
        previous = speed


def emu_rows(results):
    yield ("step", "idea", "verdict", "read", "written", "of the least", "formula", "sectors/request", "conflicts")
    for name, r in results:
        if not r.get("counts"):
            yield (name, r.get("idea", ""), r["check"]["verdict"], "", "", "", "", "", r["check"].get("message", "")[:60])
            continue
        c, m = r["counts"], r["model"]
        read, write = c["global_read_bytes"], c["global_write_bytes"]
        agrees = (read, write) == (m["read_bytes"], m["write_bytes"])
        requests = c["global_read_requests"] or 1
        conflicts = c["shared_read_conflicts"] + c["shared_write_conflicts"]
        yield (name, r["idea"], r["check"]["verdict"], human_bytes(read), human_bytes(write),
               f"{(read + write) / m['min_bytes']:.1f}x", "agrees" if agrees else "differs",
               f"{c['global_read_sectors'] / requests:.1f}", str(conflicts))


def print_table(rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for n, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |")
        if n == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


def main(programs):
    if not programs:
        raise MeasureError("usage: make ladder")
    on_gpu = "build/cuda" in programs[0]
    results = []
    for n, program in enumerate(programs, 1):
        progress(f"{n} of {len(programs)}: {landing_of(program)}")
        results.append((landing_of(program), run_json(program, options_for(on_gpu))))
    progress("")
    device = next((r["device"] for _, r in results if "device" in r), "no device")
    where = machine()
    problem = "batch 2, heads 16, seqlen 4096, head_dim 64" if on_gpu else "batch 1, heads 1, seqlen 256, head_dim 64"
    print(f"{device}; {problem}; each step in its first dtype")
    if on_gpu:
        print(f"driver {where['driver']}, CUDA {where['toolkit']}, commit {where['commit'] or 'unknown'}")
    print()
    print_table(list(gpu_rows(results) if on_gpu else emu_rows(results)))
    wrong = [name for name, r in results if r["check"]["verdict"] in ("fail", "error")]
    if wrong:
        print(f"\nWrong: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MeasureError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
