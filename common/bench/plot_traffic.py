#!/usr/bin/env python3
"""The bytes that steps 00-04 ask global memory for: counted on the CPU back end, and by formula.

    python3 common/bench/plot_traffic.py count    builds and runs the steps, writes docs/data/traffic_*.csv (minutes)
    python3 common/bench/plot_traffic.py plot     draws build/figures/traffic_*.svg from them (needs matplotlib)

The problem is one head of head_dim 64, not causal, seqlen_q = seqlen_k. count stops when a count differs from the step's
own formula (model.read_bytes, model.write_bytes of ./run --json); plot, when it differs from the closed forms below,
which docs/io_complexity.md derives. `make figures` draws the same pictures into docs/figures/.
"""
import os
import subprocess

from command import run_main
from data import read_csv
from files import write_csv
from measure import ROOT, MeasureError, command_output, landings_of, number_of, passed, problem_options

STEPS = {number_of(landing)[:2]: landing for landing in landings_of("00", "01", "02", "03", "04")}  # of each, the last landing
HEAD_DIM = 64
SEQLENS = [64, 128, 256, 512]
TILES = [(32, 16), (64, 32), (96, 48), (128, 64), (192, 96)]  # query rows, keys
TILE_SEQLEN = 768  # a multiple of every one of them
BY_SEQLEN, BY_TILE = "traffic_by_seqlen.csv", "traffic_by_tile.csv"


def closed_form(step, n, d, block_m=64, block_n=32):
    """Bytes read and written for one head of n queries and keys; n a multiple of both tile sizes."""
    if step == "00":
        return (16 * d + 12) * n * n, 8 * n * n + 4 * n * (d + 1)
    if step in ("01", "02"):
        return 8 * d * n * n + 32 * n * d, 4 * n * (d + 1)
    if step == "03":
        key_tiles = n // block_n
        return 4 * d * (2 * n + n * key_tiles) + n * (key_tiles - 1) * (4 * d + 8), n * key_tiles * (4 * d + 12)
    query_tiles = n // block_m
    return 4 * d * (n + 2 * n * query_tiles), 4 * n * (d + 1)


def shared_bytes(d, block_m, block_n):
    """Of 03 and 04: tiles of Q, K and V, rows padded by 4 floats; P, rows padded by 8."""
    return 4 * ((block_m + 2 * block_n) * (d + 4) + block_m * (block_n + 8))


def count(step, n, tile=None):
    name = f"{tile[0]}x{tile[1]}" if tile else ""
    program = f"build/emu{'-' + name if name else ''}/{STEPS[step]}.run"
    make = ["make", program, "BACKEND=emu"] + (["TILE=" + name] if name else [])
    if subprocess.run(make, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        raise MeasureError(f"{' '.join(make)} failed")
    report = passed(program, problem_options(1, 1, n, HEAD_DIM))
    model, counts = report["model"], report["counts"]
    row = {"step": step, "seqlen": n, "head_dim": HEAD_DIM, "read_bytes": counts["global_read_bytes"],
           "write_bytes": counts["global_write_bytes"], "formula_read_bytes": int(model["read_bytes"]),
           "formula_write_bytes": int(model["write_bytes"]), "distinct_bytes": counts["distinct_read_bytes"] + counts["distinct_write_bytes"]}
    if (row["read_bytes"], row["write_bytes"]) != (row["formula_read_bytes"], row["formula_write_bytes"]):
        raise MeasureError(f"{STEPS[step]} at seqlen {n}: counted {row['read_bytes']} + {row['write_bytes']} bytes, its formula "
                           f"says {row['formula_read_bytes']} + {row['formula_write_bytes']}")
    if tile:
        row.update(block_m=tile[0], block_n=tile[1], shared_bytes=shared_bytes(HEAD_DIM, *tile))
    print(row, flush=True)
    return row


def counted(path):
    """The rows of one of the two CSVs, each compared with the closed form."""
    rows = read_csv(path)
    for row in rows:
        n, d = row.integer("seqlen"), row.integer("head_dim")
        tile = (row.integer("block_m"), row.integer("block_n")) if "block_m" in row else (64, 32)
        expected = closed_form(row["step"], n, d, *tile)
        found = row.integer("read_bytes"), row.integer("write_bytes")
        if found != expected:
            raise MeasureError(f"{row.where}: counted {found[0]} + {found[1]} bytes, the closed form says {expected[0]} + {expected[1]}")
        row["bytes"] = sum(found)
    return rows


def by_seqlen(data, out):
    """Bytes that steps 00-04 ask for against seqlen."""
    from figure import BLUE, GREEN, GREY, ORANGE, RED, plt, save, seqlen_axis
    rows = counted(data(BY_SEQLEN))
    colours = {"00": RED, "01": ORANGE, "02": ORANGE, "03": BLUE, "04": GREEN}
    labels = {"00": "00 naive", "01": "01 fused", "02": "02 online (on top of 01)", "03": "03 FlashAttention-1", "04": "04 FlashAttention-2"}
    figure, axes = plt.subplots(figsize=(8.8, 5))
    lengths = [64 * 2**k for k in range(9)]
    for step in STEPS:
        if step != "02":
            axes.plot(lengths, [sum(closed_form(step, n, HEAD_DIM)) for n in lengths], color=colours[step])
        mine = [r for r in rows if r["step"] == step]
        axes.plot([r.integer("seqlen") for r in mine], [r["bytes"] for r in mine], MARKERS[step], color=colours[step], label=labels[step],
                  fillstyle="none" if step == "02" else "full")
    axes.plot(lengths, [4 * n * (4 * HEAD_DIM + 1) for n in lengths], "--", color=GREY, linewidth=1.2,
              label="Q, K, V read and O, LSE written once")
    axes.set_yscale("log")
    seqlen_axis(axes, lengths)
    axes.set_ylabel("bytes asked of global memory")
    axes.set_title("Marks: counted. Lines: the formula.")
    axes.legend(loc="upper left")
    save(figure, out, f"One head, head_dim {HEAD_DIM}, not causal; counts of the CPU back end, the same on every machine: python3 common/bench/plot_traffic.py count{dated(data(BY_SEQLEN))}")


def by_tile(data, out):
    """Bytes that steps 03 and 04 ask for against their shared memory."""
    from figure import BLUE, GREEN, GREY, plt, save
    rows = counted(data(BY_TILE))
    figure, axes = plt.subplots(figsize=(8.8, 5))
    for step, name, colour in (("03", "03 FlashAttention-1", BLUE), ("04", "04 FlashAttention-2", GREEN)):
        mine = [r for r in rows if r["step"] == step]
        points = [(r.integer("shared_bytes") / 1024, r["bytes"] / 1e6) for r in mine]
        axes.plot(*zip(*points), "-" + MARKERS[step], color=colour, label=name)
        for r, point in zip(mine, points):
            axes.annotate(f"{r['block_m']}x{r['block_n']}", point, textcoords="offset points", xytext=(6, 6), fontsize=9, color=colour)
    n, d = TILE_SEQLEN, HEAD_DIM
    kilobytes = [16 * 1.1**k for k in range(27)]
    axes.plot(kilobytes, [4 * n * n * d * d / (k * 256) / 1e6 for k in kilobytes], "--", color=GREY, linewidth=1.2,
              label="4 bytes x N² d² / M, M in floats")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([16, 32, 64, 128, 192], ["16", "32", "64", "128", "192"])
    axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_xlabel("shared memory of a block, KB (TILE = query rows x keys)")
    axes.set_ylabel("MB asked of global memory")
    axes.set_title("Marks: counted.")
    axes.legend(loc="lower left")
    save(figure, out, f"One head, N = {n}, d = {d}, not causal; counts of the CPU back end: python3 common/bench/plot_traffic.py count{dated(data(BY_TILE))}")


def dated(path):
    """When the counts were last changed, by git."""
    date = command_output("git", "log", "-1", "--format=%cs, commit %h", "--", path)
    return f" ({date})" if date else ""


FIGURES = {"traffic_by_seqlen": by_seqlen, "traffic_by_tile": by_tile}
MARKERS = {"00": "s", "01": "^", "02": "v", "03": "o", "04": "D"}


def main(words):
    data = lambda file: os.path.join(ROOT, "docs/data", file)
    if words == ["count"]:
        rows = [count(step, n) for step in STEPS for n in SEQLENS]
        tile_rows = [count(step, TILE_SEQLEN, tile) for step in ("03", "04") for tile in TILES]
        write_csv(data(BY_SEQLEN), rows)
        write_csv(data(BY_TILE), tile_rows)
    elif words == ["plot"]:
        for name, draw in FIGURES.items():
            draw(data, f"build/figures/{name}.svg")
    else:
        raise MeasureError(__doc__)


if __name__ == "__main__":
    run_main(main)
