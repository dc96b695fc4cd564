"""Figures of who holds what: drawn from lane maps, not measured. (05_tensor_core/banks.py draws which lane meets which bank.)"""
from figure import BLUE, GREEN, GREY, ORANGE, RED, cell, grid_axes, plt, save, tint


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
    figure.legend(handles, [f"a[{i}], b[{i}], c[{i}]" if i < 2 else f"a[{i}], c[{i}]" for i in range(4)], loc="upper center", ncol=4, fontsize=8)
    save(figure, out, "mma.sync m16n8k16 with 16-bit elements: the number is the lane that holds the element, the colour the register it is in "
         "(two neighbouring elements share a register of A and B). After the lane map in common/kernel/ptx/mma.cuh, which common/tests/ptx_test.cu tests.", top=0.94)


def wgmma_operands(data, out):
    """What one wgmma reads of a tile in slabs, and what LBO and SBO are."""
    shown, rows, slabs = 18, 128, 2  # rows drawn; of the tile; head_dim 128
    figure, panels = plt.subplots(1, 2, figsize=(10.4, 5.9))

    def draw(axes, title, is_read, leading_words):
        grid_axes(axes, 19, shown)
        axes.set_xlim(-3.4, 19)
        for slab in range(slabs):
            left = slab * 10
            for row in range(shown):
                for place in range(8):
                    chunk = place ^ row % 8
                    cell(axes, left + place, row, str(8 * slab + chunk), BLUE if is_read(row, 8 * slab + chunk) else "#ffffff")
            axes.text(left + 4, -0.4, f"slab {slab}: from byte {slab * rows * 128:,}", ha="center", fontsize=8)
        for row in range(0, shown, 4):
            axes.text(-0.2, row + 0.5, f"key {row}", ha="right", va="center", fontsize=7)
        arrow = {"arrowstyle": "->", "linewidth": 1.4}
        axes.annotate("", (-2.6, 8.2), (-2.6, 0.3), arrowprops={**arrow, "color": RED})
        axes.text(-2.9, 4.2, "SBO: 8 rows, 1,024 bytes", rotation=90, ha="right", va="center", fontsize=8, color=RED)
        axes.annotate("", (10.4, shown + 0.7), (0.2, shown + 0.7), arrowprops={**arrow, "color": ORANGE}, annotation_clip=False)
        axes.text(5.2, shown + 1.5, leading_words, ha="center", va="center", fontsize=8, color=ORANGE)
        axes.set_title(title, fontsize=10, pad=16)

    leading = f"LBO: a slab, {rows} rows, {rows * 128:,} bytes"
    draw(panels[0], "K in Q K^T, K-major: 16 deep is chunks 0 and 1 of every key", lambda row, chunk: chunk < 2, leading + " (not read)")
    draw(panels[1], "V in P V, MN-major: 16 deep is 16 keys, all columns", lambda row, chunk: row < 16, leading)
    save(figure, out, f"A tile of {rows} keys at head_dim 128, of which {shown} are drawn: a number is a chunk of 16 bytes, 8 columns of its row, where TMA puts it, "
         "chunk c of row r at c ^ r % 8 of a slab's row. In colour: what the first of the eight wgmmas (n128, k16) reads. The next reads chunks 2 and 3, or keys 16 to 31. "
         "After common/kernel/ptx/wgmma.cuh, which common/tests/wgmma_test.cu tests.")


FIGURES = {"fragments": fragments, "wgmma_operands": wgmma_operands}
