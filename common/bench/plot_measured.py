"""Figures of what was measured or counted, from docs/data/."""
import math

from data import Bench, read_csv, read_ladder, where_and_when
from figure import (BLUE, GREEN, GREY, MARKERS, ORANGE, PALETTE, PURPLE, RED, SKY, plt, save, seqlen_axis,
                    short_length)
from ladder import human_bytes
from measure import MeasureError, is_backward, landings_for, landings_of, name_of, number_of

STEP_COLOURS = {"00": GREY, "01": SKY, "02": BLUE, "03.1": PURPLE, "03.2": ORANGE, "04": GREEN, "05.1": SKY, "05.2": BLUE,
                "05.3": PURPLE, "05.4": GREEN, "05.5": ORANGE, "05.6": RED, "06.1": PURPLE, "06.3": RED,
                "07.1": SKY, "07.2": BLUE, "07.5": PURPLE, "07.8": RED}
PEER_STYLES = {"torch_flash": (GREEN, "FlashAttention-2 (PyTorch)"), "torch_cudnn": (ORANGE, "cuDNN (PyTorch)"),
               "torch_efficient": (RED, "efficient (PyTorch)"), "torch_math": (PURPLE, "plain (PyTorch)"),
               "flash_attention_3": (PURPLE, "FlashAttention-3"), "flash_attention_4": (BLUE, "FlashAttention-4")}


def step_name(name):
    return f"{number_of(name)} {name_of(name).replace('_', ' ')}"


def source_of(bench):
    where, command = bench.source()
    return f"{where}: {command.replace('`', '')}"


def draw_ladder(ladder, out):
    """Bars: TFLOP/s of each step, or where nothing was timed the bytes it asks for."""
    timed = [s for s in ladder["steps"] if s.get("time_ms")]
    steps = timed or [s for s in ladder["steps"] if s.get("counts")]
    if not steps:
        raise MeasureError(f"{ladder.where}: no step has a time or counts")
    if timed:
        values = [s["tflops"] for s in steps]
        words = [f"{v:.3g}" for v in values]
    else:
        values = [s["counts"]["global_read_bytes"] + s["counts"]["global_write_bytes"] for s in steps]
        words = [human_bytes(v) for v in values]
    figure, axes = plt.subplots(figsize=(8.8, 0.42 * len(steps) + 1.5))
    names = [step_name(s["name"]) + f" ({s['problem']['dtype']})" for s in steps]
    colours = [PURPLE if is_backward(s["name"]) else BLUE for s in steps]
    axes.barh(range(len(steps)), values, color=colours, height=0.65)
    for i, word in enumerate(words):
        axes.annotate(word, (values[i], i), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(steps)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 3)
    axes.minorticks_off()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("TFLOP/s (log scale)" if timed else "bytes asked of global memory (log scale)")
    axes.set_title("The ladder. Purple: backward, a ladder of its own" if any(map(is_backward, (s["name"] for s in steps))) else "The ladder")
    save(figure, out, f"{where_and_when(ladder if timed else dict(ladder, gpu='', driver='', toolkit=''))}; {ladder['problem']}: {ladder['command']}")


def ladder(data, out):
    """TFLOP/s of every step."""
    draw_ladder(read_ladder(data("h200_ladder.json")), out)


def curves(data, file, direction, impls, out, column="tflops", causals=(0, 1)):
    bench = Bench(data(file))
    impls = [i for i in impls if any(k[0] == i and k[1] == direction for k in bench.cells)]
    panels = [(d, c) for d in bench.headdims() for c in causals if any(k[1] == direction and k[3:] == (d, c) for k in bench.cells)]
    if not impls or not panels:
        raise MeasureError(f"{file} has no {direction} rows")
    seqlens = bench.seqlens(impls)
    width = min(2, len(panels))
    figure, grid = plt.subplots(math.ceil(len(panels) / width), width, figsize=(9.6, 3.4 * math.ceil(len(panels) / width) + (1.2 if column == "ms" else 0.3)), squeeze=False, sharey=True)
    for axes in grid.flat[len(panels):]:
        axes.set_visible(False)
    for axes, (d, causal) in zip(grid.flat, panels):
        for n, impl in enumerate(impls):
            points = [(s, bench.cell(impl, direction, s, d, causal)) for s in seqlens]
            points = [(s, cell[column]) for s, cell in points if cell]
            if not points:
                continue
            peer = PEER_STYLES.get(impl)
            colour, label = peer or (STEP_COLOURS.get(number_of(impl), PALETTE[n % len(PALETTE)]), step_name(impl))
            if column == "ms" and len(points) > 1:
                (n0, t0), (n1, t1) = points[-2:]
                label += f": ~ N^{math.log(t1 / t0) / math.log(n1 / n0):.2f} at the end"
            axes.plot(*zip(*points), marker=MARKERS[n % len(MARKERS)], color=colour, linestyle="--" if peer else "-", label=label)
        seqlen_axis(axes, seqlens)
        if column == "ms":
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.08 * max(cell[column] for key, cell in bench.cells.items() if key[0] in impls and key[1] == direction))
        axes.set_title(f"head_dim {d}{', causal' if causal else ''}")
        axes.set_ylabel({"tflops": "TFLOP/s", "ms": "ms a call"}[column])
        if column == "ms":  # each panel has slopes of its own
            axes.set_ylim(top=8 * axes.get_ylim()[1])
            axes.legend(fontsize=8, loc="upper left")
    if column == "ms":
        return save(figure, out, source_of(bench))
    handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncol=4 if len(handles) > 5 else 5, fontsize=8)
    save(figure, out, source_of(bench), top=1 - 0.45 / figure.get_figheight())


def tflops_fp32(data, out):
    """TFLOP/s against seqlen of the steps in fp32, with PyTorch's kernels."""
    curves(data, "h200_fp32.csv", "forward", (*landings_for("forward", "fp32"), "torch_efficient", "torch_math"), out)


def tflops_bf16(data, out):
    """TFLOP/s against seqlen of the steps in bf16, with PyTorch's."""
    curves(data, "h200_bf16.csv", "forward", (*landings_for("forward", "bf16"), "torch_flash", "torch_cudnn"), out)


def tflops_hopper(data, out):
    """TFLOP/s against seqlen of the landings of 07 that gain most, with the kernels that people use."""
    steps = landings_of("07.1", "07.2", "07.5", "07.8")
    curves(data, "h200_hopper.csv", "forward", (*steps, *(peer for peer in PEER_STYLES if peer.endswith(("flash", "cudnn", "_3", "_4")))), out)


def tflops_backward(data, out):
    """TFLOP/s against seqlen of the backward steps in bf16, with PyTorch's."""
    curves(data, "h200_bf16.csv", "backward", (*landings_for("backward", "bf16"), "torch_flash", "torch_cudnn"), out)


def time_by_seqlen(data, out):
    """Milliseconds a call against seqlen, with the slope between the last two points."""
    curves(data, "h200_fp32.csv", "forward", landings_for("forward", "fp32"), out, "ms", (0,))


def under_a_roof(ladder):
    """The steps that were timed, on a card whose peaks are known."""
    return [s for s in ladder["steps"] if s.get("time_ms") and s["model"].get("peak_tflops")]


def roofline(data, out):
    """The H200's roofs and where each step stands."""
    ladder = read_ladder(data("h200_ladder.json"))
    steps = under_a_roof(ladder)
    if not steps:
        raise MeasureError("h200_ladder.json has no times and peaks")
    bandwidth = steps[0]["model"]["peak_gb_per_s"]
    roofs = sorted({s["model"]["peak_tflops"] for s in steps})
    figure, axes = plt.subplots(figsize=(9.2, 5.8))
    asked = lambda s: s["model"]["flops"] / (s["model"]["read_bytes"] + s["model"]["write_bytes"])
    left = min(map(asked, steps)) / 3
    right = max(s["model"]["intensity"] for s in steps) * 3
    for roof in roofs:
        ridge = roof * 1e3 / bandwidth
        axes.plot([ridge, right], [roof, roof], color=GREY)
        axes.annotate(f"{roof:.0f} TFLOP/s", (right, roof), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=9)
    axes.plot([left, roofs[-1] * 1e3 / bandwidth], [left * bandwidth / 1e3, roofs[-1]], color=GREY)
    axes.annotate(f"{bandwidth:.0f} GB/s of device memory", (left * 1.3, left * 1.3 * bandwidth / 1e3), xytext=(8, -14), textcoords="offset points", fontsize=9)
    for n, s in enumerate(steps):
        number, colour = number_of(s["name"]), STEP_COLOURS.get(number_of(s["name"]), PALETTE[n % len(PALETTE)])
        axes.plot([asked(s), s["model"]["intensity"]], [s["tflops"]] * 2, ":", color=colour, linewidth=1)
        marker = "s" if is_backward(s["name"]) else "o"
        axes.plot(asked(s), s["tflops"], marker, color=colour)
        axes.plot(s["model"]["intensity"], s["tflops"], marker, color=colour, fillstyle="none")
        axes.annotate(number, (asked(s), s["tflops"]), xytext=(-5, 5), textcoords="offset points", ha="right", fontsize=9, color=colour)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP a byte. Full: by the bytes the threads ask for. Hollow: by the least bytes any kernel needs. Squares: backward")
    axes.set_ylabel("TFLOP/s")
    axes.set_title("Left of the slanted roof is possible: the caches answer most of what the threads ask for")
    save(figure, out, f"{where_and_when(ladder)}; {ladder['problem']}: {ladder['command']}")


def memory(data, out):
    """Device memory against seqlen, and where it runs out."""
    rows = read_csv(data("memory.csv"))
    heads = 32  # batch 2 x heads 16
    figure, axes = plt.subplots(figsize=(9.2, 5.4))
    lengths = [1024 * 2**k for k in range(11)]
    crossing = {}
    for number, colour in (("00", GREY), ("04", GREEN), ("05.6", RED), ("06.1", PURPLE), ("06.3", ORANGE)):
        mine = sorted((r.integer("seqlen"), r.integer("tensor_bytes"), r.integer("workspace_bytes")) for r in rows if r["step"] == number)
        if len(mine) < 4:
            raise MeasureError(f"memory.csv has fewer than four rows of step {number}")
        # Bytes are a polynomial of at most degree 2 in seqlen, through the three longest; multiples of 128 alone are used,
        # for below them a tile is padded. The first three must agree where the fourth can say so.
        (x0, *y0), (x1, *y1), (x2, *y2) = mine[-3:]

        def at(n, mine=((x0, sum(y0)), (x1, sum(y1)), (x2, sum(y2)))):
            return sum(y * math.prod((n - q) / (x - q) for q, _ in mine if q != x) for x, y in mine)

        axes.plot(lengths, [heads * at(n) for n in lengths], color=colour, label=f"{number} ({next(r['dtype'] for r in rows if r['step'] == number)})")
        crossing[number] = at
    for name, gigabytes in (("T4, 16 GB", 16), ("RTX 4090, 24 GB", 24), ("A100, 80 GB", 80), ("H200, 141 GB", 141)):
        axes.axhline(gigabytes * 1e9, color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(name, (lengths[0], gigabytes * 1e9), xytext=(0, -9 if gigabytes in (16, 80) else 2), textcoords="offset points", fontsize=8)
        n = 1
        while heads * crossing["00"](n) < gigabytes * 1e9:
            n += 1
        axes.plot(n, gigabytes * 1e9, "x", color=RED)
        axes.annotate(f"{n - 1:,}", (n, gigabytes * 1e9), xytext=(-5, 4), textcoords="offset points", ha="right", fontsize=8, color=RED)
    seqlen_axis(axes, lengths)
    axes.set_yscale("log")
    axes.set_ylim(1e7, 1e13)
    axes.set_ylabel("bytes of tensors and scratch memory")
    axes.set_title("Crosses: the longest sequence whose scores (step 00) a card can hold")
    axes.legend(loc="lower right")
    save(figure, out, f"Batch 2, heads 16, head_dim 64. By formula, through the bytes of the steps' own workspace_bytes at seqlens 128, 256 and 512 "
         f"(make counts; {rows[0]['date']}, commit {rows[0]['commit']}). Card sizes: data sheets; an operating system and a driver take some.")


def error_by_seqlen(data, out):
    """How wrong a result is, by dtype."""
    rows = read_csv(data("error_by_seqlen.csv"))
    figure, axes = plt.subplots(figsize=(8.8, 5))
    series = list(dict.fromkeys((r["step"], r["dtype"]) for r in rows))
    for (step, dtype), colour, marker in zip(series, (GREEN, ORANGE, BLUE), MARKERS):
        mine = [r for r in rows if (r["step"], r["dtype"]) == (step, dtype)]
        seqlens = [r.integer("seqlen") for r in mine]
        axes.plot(seqlens, [r.number("max_error") for r in mine], marker=marker, color=colour, label=f"{step}, {dtype}: worst row")
        axes.plot(seqlens, [r.number("rms_error") for r in mine], marker=marker, color=colour, linestyle=":", fillstyle="none", label=f"{step}, {dtype}: RMS over rows")
    seqlen_axis(axes, seqlens)
    axes.set_yscale("log")
    axes.set_ylabel("error of O, relative to its row")
    axes.set_title("fp32's error grows with the length; that of fp16 and bf16, rounding of P and O, does not")
    axes.legend(fontsize=8, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    save(figure, out, f"One head, head_dim {rows[0]['head_dim']}, normal inputs, not causal, against fp64; the CPU back end, not watched (make counts; {rows[0]['date']}, commit {rows[0]['commit']}).")


FIGURES = {"ladder": ladder, "tflops_fp32": tflops_fp32, "tflops_bf16": tflops_bf16,
           "tflops_hopper": tflops_hopper, "tflops_backward": tflops_backward, "time_by_seqlen": time_by_seqlen, "roofline": roofline, "memory": memory, "error_by_seqlen": error_by_seqlen}
