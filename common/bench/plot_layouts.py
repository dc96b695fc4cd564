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


FIGURES = {"fragments": fragments}
