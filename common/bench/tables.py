#!/usr/bin/env python3
"""`make docs`: writes the tables between <!-- table:NAME --> and <!-- /table --> in every *.md from the files in
docs/data/ (and table:figure-NAME: the picture docs/figures/NAME.svg). With --check it changes nothing and ends with status 1
when a table isn't what the data give (`make test`). Where a table's data aren't there or are broken, no document is changed."""
import argparse
import os
import re
import statistics

from command import run_main
from data import Bench, Row, read_csv, read_ladder, read_text, where_and_when
from files import write_whole
from ladder import climb, emu_rows, markdown, ratio, share_of_roof
from measure import ROOT, MeasureError, dtypes, is_backward, landings_of, name_of, number_of

MARKS = re.compile(r"(<!-- table:(\S+) -->\n)(.*?)(<!-- /table -->)", re.S)
OPENING = re.compile(r"<!-- table:(\S+) -->")
PEERS = {"torch_flash": "FlashAttention-2", "torch_cudnn": "cuDNN", "torch_efficient": "PyTorch efficient", "torch_math": "PyTorch plain",
         "flash_attention_3": "FlashAttention-3", "flash_attention_4": "FlashAttention-4"}


def figure(x):
    """Three significant digits, no exponent: 0.0123, 1.23, 12.3, 123, 1230."""
    return f"{x:.3g}" if x < 1000 else f"{x:.0f}"


def cell_text(bench, column, impl, direction, seqlen, head_dim, causal):
    cell = bench.cell(impl, direction, seqlen, head_dim, causal)
    return figure(cell[column]) if cell else bench.why_not(impl, seqlen, head_dim, causal) or "–"


def caption(where, command, more=""):
    return f"{more}{where}: `{command}`"


def table(header, rows, first_right=1):
    return markdown([header, *rows], right=range(first_right, len(header)))


def of_ladder(data):
    """Every step on one problem."""
    ladder = read_ladder(data("h200_ladder.json"))
    rows = []
    for name, r, over_previous, over_first, first in climb([(s["name"], s) for s in ladder["steps"]]):
        step = f"{number_of(name)} {name_of(name)}"
        if over_first is None:
            rows.append((step, "", r["check"]["verdict"], "", "", "", ""))
            continue
        over = ratio(over_first, 1) + ("" if first == "00" else f" ({first})")
        rows.append((step, r["problem"]["dtype"], figure(r["time_ms"]["median"]), figure(r["tflops"]), ratio(over_previous, 1), over,
                     share_of_roof(r)))
    header = ("step", "dtype", "ms", "TFLOP/s", "x over previous", "x over 00", "of the roof")
    return table(header, rows, 2) + "\n\n" + caption(where_and_when(ladder), ladder["command"], ladder["problem"][0].upper() + ladder["problem"][1:] + ". ")


def of_012(data):
    """Times of 00, 01, 02 at the chapters' problem."""
    bench, seqlen = Bench(data("h200_fp32.csv")), 4096
    if seqlen not in bench.seqlens():
        return ""
    dims = bench.headdims()
    header = ["step"] + [f"{what}, d = {d}" for d in dims for what in ("ms", "TFLOP/s", "x over previous")]
    rows, before = [], {}
    for impl in landings_of("00", "01", "02"):
        row = [number_of(impl)]
        for d in dims:
            cell = bench.cell(impl, "forward", seqlen, d, 0)
            row += [cell_text(bench, column, impl, "forward", seqlen, d, 0) for column in ("ms", "tflops")]
            row.append(ratio(before[d], cell["ms"]) if cell and before.get(d) else "")
            before[d] = cell and cell["ms"]
        rows.append(row)
    batch, heads = bench.rows[0]["batch"], bench.rows[0]["heads"]
    return table(header, rows) + "\n\n" + caption(*bench.source(), f"fp32, batch {batch}, heads {heads}, seqlen {seqlen}, not causal. ")


def by_seqlen(bench, impls, direction, dtype, column, compare=None):
    """A table a head_dim and mask: a row a seqlen, a column an implementation; the last compares two of them."""
    parts = []
    what = {"ms": "ms", "tflops": "TFLOP/s"}[column]
    impls = [i for i in impls if any(key[0] == i and key[1] == direction for key in bench.cells)]
    for d in bench.headdims():
        for causal in (0, 1):
            seqlens = [n for n in bench.seqlens(impls) if any(bench.cell(i, direction, n, d, causal) for i in impls)]
            if not seqlens:
                continue
            header = ["seqlen"] + [PEERS.get(i) or number_of(i) for i in impls]
            pair = compare if compare and set(compare) <= set(impls) else None
            if pair:
                header.append(f"speed, {number_of(pair[0])} / {PEERS.get(pair[1]) or number_of(pair[1])}")
            rows = []
            for n in seqlens:
                row = [str(n)] + [cell_text(bench, column, i, direction, n, d, causal) for i in impls]
                if pair:
                    faster = bench.ratio(*pair, direction, n, d, causal)
                    row.append(f"{faster[0]:.2f}" if faster else "")
                rows.append(row)
            parts.append(f"{what}, {dtype}, head_dim {d}{', causal' if causal else ''}:\n\n" + table(header, rows, 0))
    return "\n\n".join(parts) + "\n\n" + caption(*bench.source()) if parts else ""


def by_problem(bench, impls, lines, more):
    """A row a head_dim, mask and line of `lines`, which are (name, what a cell says of seqlen, head_dim, causal); a column
    a seqlen that `impls` have."""
    seqlens = bench.seqlens(impls)
    if not seqlens:
        return ""
    rows = [[f"d {d}{', causal' if causal else ''}", name] + [cell(n, d, causal) for n in seqlens]
            for d in bench.headdims() for causal in (0, 1) for name, cell in lines]
    header = ["", ""] + [f"{n // 1024}k" if n % 1024 == 0 else str(n) for n in seqlens]
    return table(header, rows, 2) + "\n\n" + caption(*bench.source(), f"{more}. ")


def shown_name(impl):
    return PEERS.get(impl) or number_of(impl)


def speeds(bench, impl, direction):
    return shown_name(impl), lambda *problem: cell_text(bench, "tflops", impl, direction, *problem)


def ratios(bench, mine, other, direction, with_spread=False):
    def cell(*problem):
        found = bench.ratio(mine, other, direction, *problem)
        if not found:
            return ""
        return "{:.2f} ({:.2f}–{:.2f})".format(*found) if with_spread else f"{found[0]:.2f}"

    return f"{shown_name(mine)} / {shown_name(other)}", cell


def side_by_side(bench, impls, direction, more):
    """TFLOP/s; the last of `impls` against the first."""
    lines = [speeds(bench, impl, direction) for impl in impls] + [ratios(bench, impls[-1], impls[0], direction)]
    return by_problem(bench, impls, lines, f"TFLOP/s, {more}")


def of_04_peers(data):
    bench = Bench(data("h200_fp32.csv"))
    impls = ("torch_efficient", "torch_math", *landings_of("02", "04"))
    return side_by_side(bench, impls, "forward", "fp32, batch 2, heads 16")


def of_05_peers(data):
    bench = Bench(data("h200_bf16.csv"))
    return side_by_side(bench, ("torch_flash", "torch_cudnn", *landings_of("05.6")), "forward", "bf16")


def of_06_peers(data):
    bench = Bench(data("h200_bf16.csv"))
    return side_by_side(bench, ("torch_flash", "torch_cudnn", *landings_of("06.3")), "backward", "bf16")


def of_07(data):
    bench, impls = Bench(data("h200_hopper.csv")), landings_of("05.6", "07")
    return by_problem(bench, impls, [speeds(bench, impl, "forward") for impl in impls], "TFLOP/s, bf16")


def of_07_gains(data):
    bench, impls = Bench(data("h200_hopper.csv")), landings_of("05.6", "07")
    lines = [ratios(bench, mine, before, "forward") for before, mine in zip(impls, impls[1:])]
    spreads = [bench.ratio(mine, before, *cell) for before, mine in zip(impls, impls[1:]) for (impl, *cell) in bench.cells if impl == mine]
    half = statistics.median((most - least) / 2 / middle for middle, least, most in filter(None, spreads))
    return by_problem(bench, impls, lines, "How many times as fast as the landing before, bf16, medians of the rounds' ratios; "
                                           f"in the median cell these lie within ± {100 * half:.0f} %")


def of_07_peers(data):
    bench, last = Bench(data("h200_hopper.csv")), landings_of("07")[-1]
    peers = [impl for impl in bench.values("impl") if impl in PEERS]
    lines = [speeds(bench, impl, "forward") for impl in (*peers, last)] + [ratios(bench, last, peer, "forward", True) for peer in peers]
    return by_problem(bench, (*peers, last), lines, "TFLOP/s, bf16; ratios are medians of the rounds' (least–greatest)")


def of_034(data):
    bench = Bench(data("h200_fp32.csv"))
    impls = (*landings_of("02", "03", "04"), "torch_efficient", "torch_math")
    return by_seqlen(bench, impls, "forward", "fp32", "ms", (landings_of("04")[-1], landings_of("03")[-1]))


def of_05(data):
    bench = Bench(data("h200_bf16.csv"))
    steps = landings_of("05")
    return by_seqlen(bench, (*steps, "torch_flash", "torch_cudnn"), "forward", "bf16", "tflops", (steps[-1], "torch_flash"))


def of_06(data):
    parts = []
    for dtype, peers in (("fp32", ("torch_efficient", "torch_math")), ("bf16", ("torch_flash", "torch_cudnn"))):
        steps = [l for l in landings_of("06") if dtype in dtypes(l)]
        parts.append(by_seqlen(Bench(data(f"h200_{dtype}.csv")), (*steps, *peers), "backward", dtype, "tflops", (steps[-1], peers[0])))
    return "\n\n".join(p for p in parts if p)


def of_counts(data):
    """The CPU back end's counts of every step."""
    ladder = read_ladder(data("emu_ladder.json"))
    rows = [(number_of(row[0]) if n else row[0], *row[3:]) for n, row in enumerate(emu_rows([(s["name"], s) for s in ladder["steps"]]))]
    return markdown(rows, right=range(1, len(rows[0]))) + f"\n\nThe CPU back end, {ladder['problem']}, each step in its first dtype: `{ladder['command']}`"


def of_fp32(data):
    bench = Bench(data("h200_fp32.csv"))
    impls = [i for i in bench.values("impl") if not is_backward(i)]
    return by_seqlen(bench, impls, "forward", "fp32", "tflops")


def of_clocks(data):
    """What nvidia-smi said while the steps and the peers were measured."""
    rows = []
    for file in ("h200_fp32.csv", "h200_bf16.csv"):
        bench = Bench(data(file))
        for whose, peers in (("steps", False), ("PyTorch", True)):
            for column, name in (("sm_mhz", "SM clock, MHz"), ("mem_mhz", "memory clock, MHz"), ("power_w", "power, W")):
                seen = sorted(r.number(column) for r in bench.rows if r[column] and r["ms"] and (r["impl"] in PEERS) == peers)
                if seen:
                    rows.append((file, whose, name, f"{seen[0]:.0f}", f"{seen[len(seen) // 2]:.0f}", f"{seen[-1]:.0f}"))
    return table(("file", "of", "highest in a row", "least", "median", "most"), rows, 3) if rows else ""


def of_commands(data):
    """The commands that made docs/data/'s measurements, as the files have them."""
    commands = [read_ladder(data("h200_ladder.json"))["command"]]
    commands += [c for file in ("h200_fp32.csv", "h200_bf16.csv", "h200_hopper.csv") for c in Bench(data(file)).values("command")]
    return "```sh\n" + "\n".join(commands) + "\n```"


NCU = (  # what docs/tools.md's table asks of Nsight Compute, in its order
    ("1. arithmetic and issue, %", "sm__throughput.avg.pct_of_peak_sustained_elapsed"),
    ("1. memory, on the chip and off it, %", "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"),
    ("2. shared memory, %", "l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_elapsed"),
    ("2. L2, %", "lts__throughput.avg.pct_of_peak_sustained_elapsed"),
    ("2. device memory, %", "dram__throughput.avg.pct_of_peak_sustained_elapsed"),
    ("4. conflicts of shared reads, millions", "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum"),
    ("4. passes of shared reads, millions", "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum"),
    ("5. tensor cores, %", "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"),
    ("6. cycles in which something is issued, %", "smsp__issue_active.avg.pct_of_peak_sustained_active"),
    ("6. warps, % of 64 an SM", "sm__warps_active.avg.pct_of_peak_sustained_active"),
    *((f"7. {stall.replace('_', ' ')}", f"smsp__average_warps_issue_stalled_{stall}_per_issue_active.ratio")
      for stall in ("long_scoreboard", "short_scoreboard", "mio_throttle", "barrier", "math_pipe_throttle", "wait")),
    ("clock, GHz", "sm__cycles_elapsed.avg.per_second"),
)


def of_ncu(data):
    """Nsight Compute's answers for one kernel a column, head_dim 128."""
    found = Row("ncu_h200.csv", {r["metric"]: r for r in read_csv(data("ncu_h200.csv"))})
    columns = [c for c in next(iter(found.values())) if c.endswith(" d128")]
    rows = []
    for label, metric in NCU:
        values = [found[metric].number(c) for c in columns]
        rows.append([label] + [figure(v / 1e6 if "millions" in label else v) for v in values])
    return table(["question", *(c.split()[0] for c in columns)], rows)


def of_probe(data):
    text = read_text(data("probe_h200.txt")).strip("\n")
    return text and f"```text\n{text}\n```"


# Pictures that `make figures` draws from measurements.
PICTURES = {"ladder": "TFLOP/s of every step, as bars", "roofline": "The card's roofs and where each step stands",
            "tflops_fp32": "TFLOP/s against seqlen, steps 00 to 04 and PyTorch's fp32 kernels",
            "tflops_bf16": "TFLOP/s against seqlen, step 05 and PyTorch's bf16 kernels",
            "tflops_hopper": "TFLOP/s against seqlen, landings of 07 and the kernels that people use",
            "tflops_backward": "TFLOP/s against seqlen of the backward pass",
            "time_by_seqlen": "Milliseconds a call against seqlen, with slopes"}


def picture(name, root, document):
    path = os.path.join(root, "docs/figures", name + ".svg")
    return os.path.exists(path) and f"![{PICTURES[name]}]({os.path.relpath(path, os.path.dirname(document))})"


TABLES = {"ladder": of_ladder, "h200-012": of_012, "h200-034": of_034, "h200-04-peers": of_04_peers, "h200-05": of_05, "h200-05-peers": of_05_peers, "h200-06": of_06, "h200-06-peers": of_06_peers,
          "h200-07": of_07, "h200-07-gains": of_07_gains, "h200-07-peers": of_07_peers, "h200-fp32": of_fp32,
          "h200-clocks": of_clocks, "commands": of_commands, "counts": of_counts, "probe": of_probe, "ncu": of_ncu}


def documents(root):
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in ("build", "work"))
        yield from (os.path.join(folder, f) for f in sorted(files) if f.endswith(".md"))


def outside_code(text):
    return re.sub(r"(?ms)^(`{3,}|~{3,}).*?^\1", "", text)


def main(argv):
    p = argparse.ArgumentParser(prog="tables.py", description=__doc__)
    p.add_argument("--check", action="store_true", help="change nothing; status 1 when a table is stale")
    p.add_argument("--root", default=ROOT, help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    data = lambda name: os.path.join(a.root, "docs/data", name)
    made, wrong, new = {}, [], {}  # new: the text of each document with tables
    names = {*TABLES, *("figure-" + name for name in PICTURES)}
    for path in documents(a.root):
        text = read_text(path)
        name = os.path.relpath(path, a.root)

        def filled(match):
            table_name = match[2]
            if table_name not in names:
                return match[0]
            if table_name not in TABLES:
                content = picture(table_name[len("figure-"):], a.root, path)
            else:
                if table_name not in made:
                    made[table_name] = TABLES[table_name](data)
                content = made[table_name]
            if not content:
                raise MeasureError(f"{name}: there is nothing to put at '{table_name}'")
            return f"{match[1]}\n{content}\n\n{match[4]}"

        for table_name in OPENING.findall(outside_code(text)):
            if table_name not in names:
                wrong.append(f"{name} asks for a table '{table_name}'; there are {', '.join(sorted(names))}")
        if len(OPENING.findall(text)) != len(MARKS.findall(text)):
            wrong.append(f"{name} has a <!-- table:… --> that is never closed by <!-- /table -->")
        elif MARKS.search(text):
            new[path] = text, MARKS.sub(filled, text)
    if not new and not wrong:
        raise MeasureError(f"No document under {a.root} has a table.")
    changed = [path for path, (old, text) in new.items() if text != old]
    for sentence in wrong:
        print(sentence)
    for path in changed:
        name = os.path.relpath(path, a.root)
        if not a.check and not wrong:
            write_whole(path, new[path][1])
            print(f"{name}: written anew")
        elif a.check:
            print(f"{name}: a table is not what docs/data/ gives; `make docs` writes it anew")
    if not changed and not wrong:
        print("Every table is what docs/data/ gives.")
    return 1 if wrong or (a.check and changed) else 0


if __name__ == "__main__":
    run_main(main)
