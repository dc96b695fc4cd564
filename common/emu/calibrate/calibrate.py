#!/usr/bin/env python3
"""Compares the CPU back end's counts with Nsight Compute's, and its faults with compute-sanitizer's, on this GPU.

`make calibrate` builds what it needs and runs it; the tables (markdown) go to the terminal. docs/emulator.md has them.

usage: calibrate.py EMU_FOLDER CUDA_FOLDER [patterns] [steps] [faults] [--raw FOLDER] [--again]

--raw FOLDER keeps what Nsight Compute and compute-sanitizer said (default build/calibrate); --again compares with that
instead of running them, on a machine without a GPU as well.
"""
import csv
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

# Our counts -> the metrics of Nsight Compute, added up. (Its count of shared instructions includes those of which every
# lane was switched off, as an unrolled loop has them: shared requests are not compared.)
METRICS = {
    "global_read_requests": ["l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum"],
    "global_read_sectors": ["l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum"],
    "global_write_requests": ["l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
                              "l1tex__t_requests_pipe_lsu_mem_global_op_red.sum"],
    "global_write_sectors": ["l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
                             "l1tex__t_sectors_pipe_lsu_mem_global_op_red.sum"],
    "shared_read_wavefronts": ["l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum"],
    "shared_read_conflicts": ["l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum"],
    "shared_write_wavefronts": ["l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum"],
    "shared_write_conflicts": ["l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum"],
    "async_copies": ["smsp__inst_executed_op_ldgsts.sum"],
}
STEP_PROBLEM = ["--batch", "1", "--heads", "2", "--seqlen", "256", "--head-dim", "64"]
HANGS = -1
TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]


def run(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def run_for(seconds, command):
    """The command's output; if it takes longer it is ended with all its children, and the answer says so."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "the kernel hangs"


def known_metrics():
    listed = run(["ncu", "--query-metrics", "--query-metrics-mode", "all"]).stdout
    words = set(listed.split())
    wanted = [m for names in METRICS.values() for m in names]
    known = [m for m in dict.fromkeys(wanted) if m in words or m.rsplit(".", 1)[0] in words]
    return known or [m for names in METRICS.values() for m in names]


again = False  # --again


def ncu(command, metrics, csv_file, *options):
    """The profiled launches in order: (kernel's name, {metric: value})."""
    text = "" if again else run(["ncu", "--clock-control", "none", "--csv", "--print-units", "base", "--metrics",
                                 ",".join(metrics), "--log-file", csv_file, *options, *command]).stdout
    with open(csv_file) as file:
        lines = [line for line in file if line.startswith('"')]
    if not lines:
        with open(csv_file) as file:
            sys.exit(f"ncu gave no counts for {' '.join(command)}:\n{file.read()[-2000:]}\n{text[-2000:]}")
    launches = {}
    for row in csv.DictReader(lines):
        name, values = launches.setdefault(int(row["ID"]), (base_name(row["Kernel Name"]), {}))
        try:
            values[row["Metric Name"]] = int(float(row["Metric Value"].replace(",", "")))
        except ValueError:
            pass  # n/a
    return [launches[i] for i in sorted(launches)]


def base_name(name):
    """'void <unnamed>::scores_kernel<(int)64>(const float *)' -> 'scores_kernel'"""
    name = name.replace("(anonymous namespace)::", "").replace("<unnamed>::", "")
    return re.match(r"(?:void )?(?:\w+::)*(\w+)", name).group(1)


def of_metrics(values, key):
    found = [values[m] for m in METRICS[key] if m in values]
    return sum(found) if found else None


def comparable(kernel):
    """A kernel's counts as Nsight Compute sees them: what cp.async writes isn't among its stores to shared memory."""
    counts = {key: kernel["counts"][key] for key in METRICS}
    for line in kernel["lines"]:
        if line["counts"]["async_copies"]:
            for key in ("shared_write_wavefronts", "shared_write_conflicts"):
                counts[key] -= line["counts"][key]
    return counts


def patterns(emu, cuda, metrics, raw):
    ours = []
    for line in run([f"{emu}/kernels", "patterns"]).stdout.splitlines():
        name, _, report = line.partition("\t")
        ours.append((name, json.loads(report)["counts"]))
    theirs = ncu([f"{cuda}/kernels", "patterns"], metrics, f"{raw}/patterns.csv")
    assert len(ours) == len(theirs), f"{len(ours)} patterns, {len(theirs)} launches"
    table = {}
    for (name, counts), (kernel, values) in zip(ours, theirs):
        family = name.split(",")[0]
        width = re.search(r"(\d+) bytes$", name)
        row = table.setdefault((family, width.group(1) + " bytes" if width else ""), {"n": 0, "exact": {}, "off": []})
        row["n"] += 1
        for key in METRICS:
            value = of_metrics(values, key)
            if value is None:
                continue
            same = value == counts[key]
            row["exact"][key] = row["exact"].get(key, 0) + same
            if not same:
                row["off"].append(f"{name}: {key} {counts[key]}, Nsight Compute {value}")
    print("\n### Micro-kernels: how many patterns agree exactly\n")
    keys = list(METRICS)
    print("| kernel | width | patterns | " + " | ".join(k.replace("_", " ") for k in keys) + " |")
    print("|" + " --- |" * (len(keys) + 3))
    for (family, width), row in table.items():
        cells = [str(row["exact"].get(k, "n/a")) for k in keys]
        print(f"| {family} | {width} | {row['n']} | " + " | ".join(cells) + " |")
    off = [line for row in table.values() for line in row["off"]]
    print(f"\n{len(off)} counts differ." if off else "\nNo count differs.")
    for line in off:
        print(f"- {line}")


def steps(emu, cuda, metrics, raw):
    print("\n### Steps: " + " ".join(STEP_PROBLEM) + "\n")
    print("One number: the CPU back end and Nsight Compute agree exactly.\n")
    print("| step | kernel | " + " | ".join(key.replace("_", " ") for key in METRICS) + " |")
    print("| --- | --- |" + " --- |" * len(METRICS))
    found = sorted(os.path.relpath(os.path.join(folder, file), emu)
                   for folder, _, files in os.walk(emu) for file in files if file.endswith(".run"))
    for step in found:
        name = step[:-4]
        if not again and not os.path.exists(f"{cuda}/{step}"):
            continue
        result = f"{raw}/{name.replace('/', '_')}.json"
        said = run([f"{emu}/{step}", *STEP_PROBLEM, "--json", result])
        try:
            with open(result) as file:
                kernels = json.load(file)["kernels"]
        except (OSError, ValueError, KeyError):
            print(f"| {name} | {''.join(said.stdout.splitlines()[-1:])} |")
            continue
        launches = ncu([f"{cuda}/{step}", *STEP_PROBLEM, "--iters", "1"], metrics,
                       f"{raw}/{name.replace('/', '_')}.csv", "--launch-count", "40")
        ours, left = {}, {}
        for kernel in kernels:
            counts = ours.setdefault(base_name(kernel["name"]), dict.fromkeys(METRICS, 0))
            left[base_name(kernel["name"])] = left.get(base_name(kernel["name"]), 0) + kernel["launches"]
            for key, value in comparable(kernel).items():
                counts[key] += value
        theirs = {}
        for kernel, values in launches:  # the run launches its kernels again to time them
            if left.get(kernel, 0) <= 0:
                continue
            left[kernel] -= 1
            for key in METRICS:
                value = of_metrics(values, key)
                if value is not None:
                    sums = theirs.setdefault(kernel, {})
                    sums[key] = sums.get(key, 0) + value
        for kernel, counts in ours.items():
            cells = [compared(counts[key], theirs.get(kernel, {}).get(key)) for key in METRICS]
            print(f"| {name} | {kernel} | " + " | ".join(cells) + " |")


def compared(mine, value):
    if value is None:
        return f"{mine} (n/a)"
    if mine == value:
        return str(mine)
    return f"{mine}, Nsight {value}" + (f" ({100 * (mine - value) / value:+.2f} %)" if value else "")


def faults(emu, cuda, raw):
    cases = [line.split("\t") for line in run([f"{emu}/kernels", "faults"]).stdout.splitlines()]

    def ask(job):
        name, which, tool = job
        path = f"{raw}/{tool}_{which}_{name}.txt"
        if not again:
            out = run_for(30, ["compute-sanitizer", "--tool", tool, f"{cuda}/kernels", which, name])
            with open(path, "w") as file:
                file.write(out)
        with open(path) as file:
            out = file.read()
        summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", out)
        return job, int(summary.group(1)) if summary else HANGS

    jobs = [(case[0], which, tool) for case in cases for which in ("fault", "twin") for tool in TOOLS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(pool.map(ask, jobs))
    print("\n### Planted faults: which tool reports which\n")
    print("| mistake | CPU back end | " + " | ".join(TOOLS) + " |")
    print("| --- | --- |" + " --- |" * len(TOOLS))
    for name, kind, what, ours, twin in cases:
        cells = [{0: "-", HANGS: "hangs"}.get(found[name, "fault", t], "yes") for t in TOOLS]
        print(f"| {what} (`{name}`) | {ours or '-'} | " + " | ".join(cells) + " |")
    accused = [f"{t} accuses {c[0]}'s twin" for c in cases for t in TOOLS if found[c[0], "twin", t]]
    accused += [f"the CPU back end accuses {c[0]}'s twin: {c[4]}" for c in cases if c[4]]
    print("\nCorrect twins: " + ("; ".join(accused) if accused else "no tool reports any.") )


def main():
    arguments = sys.argv[1:]
    raw = "build/calibrate"
    if "--raw" in arguments:
        at = arguments.index("--raw")
        raw = arguments[at + 1]
        del arguments[at:at + 2]
    global again
    if "--again" in arguments:
        again = True
        arguments.remove("--again")
    if len(arguments) < 2:
        sys.exit(__doc__)
    emu, cuda, parts = arguments[0], arguments[1], arguments[2:] or ["patterns", "steps", "faults"]
    os.makedirs(raw, exist_ok=True)
    if not again:
        gpu = run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]).stdout.strip()
        version = run(["ncu", "--version"]).stdout.strip().splitlines()[-1]
        nvcc = re.search(r"release ([\d.]+)", run(["nvcc", "--version"]).stdout)
        with open(f"{raw}/machine.txt", "w") as file:
            file.write(f"{gpu.replace(', ', ', driver ')}, CUDA {nvcc.group(1) if nvcc else '?'}, Nsight Compute "
                       f"{version.split()[1]}")
    with open(f"{raw}/machine.txt") as file:
        print(file.read())
    metrics = known_metrics() if not again and set(parts) & {"patterns", "steps"} else []
    if "patterns" in parts:
        patterns(emu, cuda, metrics, raw)
    if "steps" in parts:
        steps(emu, cuda, metrics, raw)
    if "faults" in parts:
        faults(emu, cuda, raw)


main()
