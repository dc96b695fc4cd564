#!/usr/bin/env python3
"""`make counts`: what the figures need and a CPU can tell, into docs/data/: the ladder's counts (emu_ladder.json), scratch
memory (memory.csv) and errors against seqlen (error_by_seqlen.csv). The counts don't depend on the machine. Nothing is
written before every run has passed.

    counts.py WATCHED_FOLDER UNWATCHED_FOLDER LANDING...
"""
import os

import ladder
from command import check_programs, run_main
from files import write_csv, write_whole
from measure import (ROOT, MeasureError, landings_of, machine, message_of, number_of, passed, problem_options, progress,
                     verdict_of)

DATA = os.environ.get("FLASH_DATA", "docs/data")
MEMORY_SEQLENS = [64, 128, 256, 512]  # three say what the polynomial is, the fourth that it is one
ERROR_SEQLENS = [64, 128, 256, 512, 1024, 2048, 4096]
ERROR_RUNS = [(*landings_of("04"), "fp32"), (*landings_of("05.6"), "fp16"), (*landings_of("05.6"), "bf16")]
HEAD_DIM = 64


def report_of(folder, landing, seqlen, dtype=None):
    progress(f"{landing}, seqlen {seqlen}")
    return passed(f"{folder}/{landing}.run", problem_options(1, 1, seqlen, HEAD_DIM, dtype=dtype))


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


def main(argv):
    if len(argv) < 3:
        raise MeasureError("usage: make counts")
    watched, unwatched, *landings = argv
    programs = [f"{watched}/{landing}.run" for landing in landings]
    check_programs(programs)
    options = ["--out", "docs/data/emu_ladder.json"]
    results, kept = ladder.measure(ladder.arguments(programs + options), options)
    for name, report in results:
        if verdict_of(report) != "pass":
            raise MeasureError(f"Nothing is written, for {name} didn't pass ({verdict_of(report)}): {message_of(report)}")
    ladder.show(results, kept, False)
    where = machine()
    tables = {name: [dict(row, date=where["date"], commit=where["commit"]) for row in rows]
              for name, rows in (("memory.csv", memory_rows(unwatched, landings)), ("error_by_seqlen.csv", error_rows(unwatched)))}
    progress("")
    data = lambda name: os.path.join(ROOT, DATA, name)
    write_whole(data("emu_ladder.json"), ladder.text_of(kept))
    for name, rows in tables.items():
        write_csv(data(name), rows)
        print(f"{DATA}/{name}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    run_main(main)
