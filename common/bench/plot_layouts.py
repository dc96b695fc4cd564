"""Figures of who holds what and in which order: drawn from addresses and lane maps, not measured."""
from data import read_json
from figure import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Missing, cell, grid_axes, plt, save, tint

BANKS, BANK_BYTES, ELEMENT_BYTES = 32, 4, 2
HEAD_DIM = 64


def plain_offset(row, column):
    """05.1: a tile's rows lie one behind the other. Elements."""
    return row * HEAD_DIM + column


def swizzled_offset(row, column):
    """05.2: the 16-byte chunk `c` of row `r` lies in the place of chunk c ^ (r % 8)."""
    return row * HEAD_DIM + (column // 8 ^ row % 8) * 8 + column % 8


def bank(offset):
    return offset * ELEMENT_BYTES // BANK_BYTES % BANKS


def passes(addresses):
    """Passes over the banks that one request takes: the most different words in one bank. `addresses` in elements."""
    words = {}
    for offset in addresses:
        words.setdefault(bank(offset), set()).add(offset * ELEMENT_BYTES // BANK_BYTES)
    return max(len(w) for w in words.values())


def banks(data, out):
    """Which bank each lane's 4 bytes of a K fragment come from: plain rows, and swizzled."""
    ladder = read_json(data("emu_ladder.json"))
    if not ladder:
        raise Missing("docs/data/emu_ladder.json (make counts)")
    conflicts = {s["step"]: s["counts"]["shared_read_conflicts"] + s["counts"]["shared_write_conflicts"] for s in ladder["steps"] if s.get("counts")}
    figure, both = plt.subplots(2, 1, figsize=(9.6, 5.6))
    colours = [BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY, "#a0522d"]
    for axes, offset, title in (
            (both[0], plain_offset, "05.1: rows one behind the other"), (both[1], swizzled_offset, "05.2: chunk c of row r at c ^ (r % 8)")):
        grid_axes(axes, BANKS, 8)
        for lane in range(32):
            row, column = lane // 4, lane % 4 * 2
            cell(axes, bank(offset(row, column)), row, str(lane), colours[row])
        axes.hlines(range(9), 0, BANKS, color=GREY, linewidth=0.3)
        axes.vlines(range(BANKS + 1), 0, 8, color=GREY, linewidth=0.3)
        needed = passes([offset(lane // 4, lane % 4 * 2) for lane in range(32)])
        axes.set_title(f"{title}: {needed} pass{'es' if needed > 1 else ''} over the banks", fontsize=10)
        axes.set_xticks([b + 0.5 for b in range(0, 32, 4)], [f"bank {b}" for b in range(0, 32, 4)], fontsize=7)
        axes.set_yticks([r + 0.5 for r in range(8)], [f"key {r}" for r in range(8)], fontsize=7)
        axes.tick_params(length=0)
    save(figure, out, f"Which bank lane 0 … 31 finds its two bf16 of a K fragment in (head_dim {HEAD_DIM}; from the addresses). Counted by the CPU back end, "
         f"{ladder['problem']}: {conflicts['05.1']:,} conflicts in 05.1, {conflicts['05.2']} in 05.2 ({ladder['command']}; {ladder['date']}, commit {ladder['commit']}).")


def fragments(data, out):
    """The lane maps of mma.m16n8k16."""
    figure, (a, b, c) = plt.subplots(1, 3, figsize=(10.4, 5.9), width_ratios=(16, 8, 8))
    colours = [BLUE, ORANGE, GREEN, RED]

    def draw(axes, columns, owner, title):
        grid_axes(axes, columns, 16)
        for row in range(16):
            for column in range(columns):
                lane, register = owner(row, column)
                cell(axes, column, row, str(lane), colours[register], fontsize=7)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([x + 0.5 for x in range(0, columns, 2)], range(0, columns, 2), fontsize=7)
        axes.set_yticks([y + 0.5 for y in range(0, 16, 2)], range(0, 16, 2), fontsize=7)
        axes.tick_params(length=0)

    draw(a, 16, lambda m, k: (m % 8 * 4 + k % 8 // 2, m // 8 + 2 * (k // 8)), "A: 16 rows (m) x 16 columns (k)")
    draw(b, 8, lambda k, n: (n * 4 + k % 8 // 2, k // 8), "B: 16 rows (k) x 8 columns (n)")
    draw(c, 8, lambda m, n: (m % 8 * 4 + n // 2, m // 8 * 2 + n % 2), "C: 16 rows (m) x 8 columns (n)")
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=tint(colour), edgecolor=GREY) for colour in colours]
    figure.legend(handles, [f"a[{i}], b[{i}], c[{i}]" if i < 2 else f"a[{i}], c[{i}]" for i in range(4)], loc="upper center", ncols=4, fontsize=8)
    save(figure, out, "mma.sync m16n8k16 with 16-bit elements: the number is the lane that holds the element, the colour the register it is in "
         "(two neighbouring elements share a register of A and B). After the lane map in common/ptx.cuh, which common/tests/ptx_test.cu tests.", top=0.94)


def tile_walk(data, out):
    """In which order steps 03 and 04 visit the tiles of S."""
    query_tiles = key_tiles = 5
    figure, (one, two) = plt.subplots(1, 2, figsize=(9.6, 5.6))
    colours = [BLUE, ORANGE, GREEN, RED, PURPLE]
    for axes, title in ((one, "03, FlashAttention-1: a block a head, keys outside"), (two, "04, FlashAttention-2: a block a query tile, keys inside")):
        grid_axes(axes, key_tiles, query_tiles)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([j + 0.5 for j in range(key_tiles)], [f"K, V tile {j}" for j in range(key_tiles)], fontsize=8)
        axes.set_yticks([i + 0.5 for i in range(query_tiles)], [f"Q tile {i}" for i in range(query_tiles)], fontsize=8)
        axes.tick_params(length=0)
        for i in range(query_tiles):
            for j in range(key_tiles):
                v1 = axes is one
                cell(axes, j, i, str(j * query_tiles + i + 1) if v1 else str(j + 1), BLUE if v1 else colours[i], fontsize=12)
    one.set_xlabel("Down a column: K and V stay in shared memory;\nO of every row is read and written in each column.", fontsize=8.5)
    two.set_xlabel("Along a row: Q and O stay with the block, O is written once.\nA colour a block; the blocks run at the same time.", fontsize=8.5)
    save(figure, out, "The number says when a tile of S = Q K^T is computed. After the loops of 03_flash_v1/flash_v1.cu and 04_flash_v2/flash_v2.cu, not measured.", top=0.97)


FIGURES = {"banks": banks, "fragments": fragments, "tile_walk": tile_walk}
