#!/usr/bin/env python3
"""`make counts`: what the figures need and a CPU can tell, into docs/data/: the ladder's counts (emu_ladder.json), scratch
memory (memory.csv) and errors against seqlen (error_by_seqlen.csv). The counts don't depend on the machine.

    counts.py WATCHED_FOLDER UNWATCHED_FOLDER LANDING...
"""
import csv
import os
import sys

import ladder
from measure import ROOT, MeasureError, machine, number_of, problem_options, progress, run_json, verdict_of

MEMORY_SEQLENS = [64, 128, 256, 512]  # three say what the polynomial is, the fourth that it is one
ERROR_SEQLENS = [64, 128, 256, 512, 1024, 2048, 4096]
ERROR_RUNS = [("04_flash_v2/flash_v2", "fp32"), ("05_tensor_core/3_pipeline", "fp16"), ("05_tensor_core/3_pipeline", "bf16")]
HEAD_DIM = 64


def report_of(folder, landing, seqlen, dtype=None):
    progress(f"{landing}, seqlen {seqlen}")
    report = run_json(f"{folder}/{landing}.run", problem_options(1, 1, seqlen, HEAD_DIM, dtype=dtype))
    if verdict_of(report) != "pass":
        raise MeasureError(f"{landing} at seqlen {seqlen}: {verdict_of(report)}, {report['check'].get('message')}")
    return report


def memory_rows(folder, landings):
    for landing in landings:
        for n in MEMORY_SEQLENS:
            r = report_of(folder, landing, n)
            yield {"step": number_of(landing), "dtype": r["problem"]["dtype"], "seqlen": n, "head_dim": HEAD_DIM,
                   "tensor_bytes": int(r["model"]["min_bytes"]), "workspace_bytes": int(r["model"]["workspace_bytes"])}


def error_rows(folder):
    for landing, dtype in ERROR_RUNS:
        for n in ERROR_SEQLENS:
            check = report_of(folder, landing, n, dtype)["check"]
            yield {"step": number_of(landing), "dtype": dtype, "seqlen": n, "head_dim": HEAD_DIM,
                   "max_error": check["max_error"], "rms_error": check["rms_error"], "bound": check["bound"]}


def write(name, rows):
    where = machine()
    rows = [dict(row, date=where["date"], commit=where["commit"]) for row in rows]
    with open(os.path.join(ROOT, "docs/data", name), "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    progress("")
    print(f"docs/data/{name}: {len(rows)} rows")


def main(argv):
    watched, unwatched, *landings = argv
    ladder.main([f"{watched}/{landing}.run" for landing in landings] + ["--out", "docs/data/emu_ladder.json"])
    write("memory.csv", memory_rows(unwatched, landings))
    write("error_by_seqlen.csv", error_rows(unwatched))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (MeasureError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
