#!/usr/bin/env python3
"""The bytes that steps 00-04 ask global memory for: counted on the CPU back end, and by formula.

    python3 common/bench/plot_traffic.py count    builds and runs the steps, writes docs/data/traffic_*.csv (minutes)
    python3 common/bench/plot_traffic.py plot     draws docs/figures/traffic_*.svg from them (needs matplotlib)

The problem is one head of head_dim 64, not causal, seqlen_q = seqlen_k. count stops when a count differs from the step's
own formula (model.read_bytes, model.write_bytes of ./run --json); plot, when it differs from the closed forms below,
which docs/io_complexity.md derives.
"""
import csv
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STEPS = {"00": "00_naive/naive", "01": "01_fused_softmax/fused_softmax", "02": "02_online_softmax/online_softmax",
         "03": "03_flash_v1/flash_v1", "04": "04_flash_v2/flash_v2"}
HEAD_DIM = 64
SEQLENS = [64, 128, 256, 512]
TILES = [(32, 16), (64, 32), (96, 48), (128, 64), (192, 96)]  # query rows, keys
TILE_SEQLEN = 768  # a multiple of every one of them
BY_SEQLEN, BY_TILE = "docs/data/traffic_by_seqlen.csv", "docs/data/traffic_by_tile.csv"


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
    subprocess.run(make, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    out = subprocess.run([program, "--heads", "1", "--seqlen", str(n), "--head-dim", str(HEAD_DIM), "--json", "-"], cwd=ROOT,
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    report = json.loads(out)
    model, counts = report["model"], report["counts"]
    row = {"step": step, "seqlen": n, "head_dim": HEAD_DIM, "read_bytes": counts["global_read_bytes"],
           "write_bytes": counts["global_write_bytes"], "formula_read_bytes": int(model["read_bytes"]),
           "formula_write_bytes": int(model["write_bytes"]), "distinct_bytes": counts["distinct_read_bytes"] + counts["distinct_write_bytes"]}
    if (row["read_bytes"], row["write_bytes"]) != (row["formula_read_bytes"], row["formula_write_bytes"]):
        sys.exit(f"{STEPS[step]} at seqlen {n}: counted {row['read_bytes']} + {row['write_bytes']} bytes, its formula says "
                 f"{row['formula_read_bytes']} + {row['formula_write_bytes']}")
    if tile:
        row.update(block_m=tile[0], block_n=tile[1], shared_bytes=shared_bytes(HEAD_DIM, *tile))
    print(row, flush=True)
    return row


def write_csv(path, rows):
    path = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path):
    with open(os.path.join(ROOT, path), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        n, d = int(row["seqlen"]), int(row["head_dim"])
        tile = (int(row["block_m"]), int(row["block_n"])) if "block_m" in row else (64, 32)
        expected = closed_form(row["step"], n, d, *tile)
        if (int(row["read_bytes"]), int(row["write_bytes"])) != expected:
            sys.exit(f"{path}: step {row['step']} at seqlen {n}, tile {tile}: counted {row['read_bytes']} + {row['write_bytes']}, "
                     f"the closed form says {expected}")
        row["bytes"] = int(row["read_bytes"]) + int(row["write_bytes"])
    return rows


def plot():
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "flash-ladder", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11,
                         "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "#f6f8fa",
                         "axes.facecolor": "#f6f8fa", "axes.grid": True, "grid.color": "#d0d7de", "legend.frameon": False})
    colours = {"00": "#8250df", "01": "#bc4c00", "02": "#bc4c00", "03": "#0969da", "04": "#1a7f37"}
    markers = {"00": "s", "01": "^", "02": "v", "03": "o", "04": "D"}

    def save(figure, name):
        figure.tight_layout()
        figure.savefig(os.path.join(ROOT, "docs/figures", name), metadata={"Date": None})

    def sum_of(step, n, *tile):
        return sum(closed_form(step, n, HEAD_DIM, *tile))

    rows = read_csv(BY_SEQLEN)
    figure, axes = plt.subplots(figsize=(8.8, 5))
    lengths = [64 * 2**k for k in range(9)]
    for step in STEPS:
        label = {"00": "00 naive", "01": "01 fused", "02": "02 online (on top of 01)", "03": "03 FlashAttention-1",
                 "04": "04 FlashAttention-2"}[step]
        if step != "02":
            axes.plot(lengths, [sum_of(step, n) for n in lengths], color=colours[step], linewidth=1.5)
        mine = [r for r in rows if r["step"] == step]
        axes.plot([int(r["seqlen"]) for r in mine], [r["bytes"] for r in mine], markers[step], color=colours[step], label=label,
                  markersize=7, fillstyle="none" if step == "02" else "full")
    axes.plot(lengths, [4 * n * (4 * HEAD_DIM + 1) for n in lengths], "--", color="#57606a", linewidth=1.2,
              label="Q, K, V read and O, LSE written once")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{n // 1024}k" if n >= 1024 else str(n) for n in lengths])
    axes.set_xlabel("seqlen N (one head, d = 64)")
    axes.set_ylabel("bytes asked of global memory")
    axes.set_title("Marks: counted. Lines: the formula.", loc="left", fontsize=11)
    axes.legend(loc="upper left")
    save(figure, "traffic_by_seqlen.svg")

    rows = read_csv(BY_TILE)
    figure, axes = plt.subplots(figsize=(8.8, 5))
    for step, name in (("03", "03 FlashAttention-1"), ("04", "04 FlashAttention-2")):
        mine = [r for r in rows if r["step"] == step]
        axes.plot([int(r["shared_bytes"]) / 1024 for r in mine], [r["bytes"] / 1e6 for r in mine], "-" + markers[step],
                  color=colours[step], label=name, markersize=7, linewidth=1.5)
        for r in mine:
            axes.annotate(f"{r['block_m']}x{r['block_n']}", (int(r["shared_bytes"]) / 1024, r["bytes"] / 1e6),
                          textcoords="offset points", xytext=(6, 6), fontsize=9, color=colours[step])
    n, d = TILE_SEQLEN, HEAD_DIM
    kilobytes = [16 * 1.1**k for k in range(27)]
    axes.plot(kilobytes, [4 * n * n * d * d / (k * 256) / 1e6 for k in kilobytes], "--", color="#57606a", linewidth=1.2,
              label="4 bytes x N² d² / M, M in floats")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([16, 32, 64, 128, 192], ["16", "32", "64", "128", "192"])
    axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_ylim(top=45)
    axes.set_xlabel("shared memory of a block, KB (TILE = query rows x keys)")
    axes.set_ylabel("MB asked of global memory")
    axes.set_title(f"One head, N = {n}, d = {d}. Marks: counted.", loc="left", fontsize=11)
    axes.legend(loc="lower left")
    save(figure, "traffic_by_tile.svg")


def main():
    if sys.argv[1:] == ["count"]:
        write_csv(BY_SEQLEN, [count(step, n) for step in STEPS for n in SEQLENS])
        write_csv(BY_TILE, [count(step, TILE_SEQLEN, tile) for step in ("03", "04") for tile in TILES])
    elif sys.argv[1:] == ["plot"]:
        plot()
    else:
        sys.exit(__doc__)


main()
