"""How the project's figures look: transparent, mid-grey text, lines that colour-blind readers can tell apart, so that they
read well on light and on dark pages. Each says in its last line where its figures came from."""
import io
import os
import re
import sys

from files import write_whole
from measure import ROOT

try:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
except ImportError:
    sys.exit("The pictures are drawn with matplotlib, and no python3 here has it: ./setup installs it (Debian's python3-matplotlib).")

GREY = "#808890"
# Okabe and Ito's colours, those that show on white and on black.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0080c8", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
PALETTE = [BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY]
MARKERS = "osD^vP*"

plt.rcParams.update({
    "svg.hashsalt": "flash-ladder", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.edgecolor": "none",
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY, "xtick.color": GREY,
    "ytick.color": GREY, "xtick.labelcolor": GREY, "ytick.labelcolor": GREY, "legend.labelcolor": GREY, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": GREY, "grid.alpha": 0.25,
    "axes.titlesize": 11, "axes.titlelocation": "left", "lines.linewidth": 1.6, "lines.markersize": 6,
})


def save(figure, path, caption, top=1.0):
    """Writes the figure with its caption in the last lines; path from the repository's root. Above `top` (a share of the
    height) is room for a legend of the whole figure."""
    words, line, lines = caption.split(" "), "", []
    for word in words:  # wrapped to the figure's width, about 0.05 inch a letter
        if line and len(line) + len(word) + 1 > figure.get_figwidth() / 0.053:
            lines, line = lines + [line], ""
        line += (" " if line else "") + word
    lines.append(line)
    figure.tight_layout(rect=(0, (0.06 + 0.13 * len(lines)) / figure.get_figheight(), 1, top))
    figure.text(0.01, 0.05 / figure.get_figheight(), "\n".join(lines), fontsize=7, color=GREY, va="bottom")
    path = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    drawn = io.StringIO()
    figure.savefig(drawn, metadata={"Date": None})
    plt.close(figure)
    text = drawn.getvalue()
    # A smaller file: no comment for every word, one font family, no rotation by nothing, nor blanks at lines' ends.
    text = re.sub(r"\n *<!--[^\n]*-->(?=\n)", "", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "sans-serif", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", text)
    text = re.sub(r"\n *(?=L |z\n|\" )", " ", text)
    text = re.sub(r"[ \t]+\n", "\n", text)
    write_whole(path, text)


def short_length(n):
    return f"{n >> 20}M" if n >= 1 << 20 and n % (1 << 20) == 0 else f"{n >> 10}k" if n >= 1024 and n % 1024 == 0 else str(n)


def seqlen_axis(axes, seqlens):
    axes.set_xscale("log", base=2)
    axes.set_xticks(seqlens, [short_length(n) for n in seqlens])
    axes.minorticks_off()
    axes.set_xlabel("seqlen")


def tint(colour):
    """A light, opaque version, on which dark letters read well whatever the page's colour is."""
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return tuple(0.45 * part + 0.55 for part in (red, green, blue))


def cell(axes, x, y, text, colour, fontsize=7):
    """A box of a grid with a word in it; y grows downwards when the axes are turned over."""
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=tint(colour), edgecolor=GREY, linewidth=0.6))
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=fontsize, color="#1f2328")


def grid_axes(axes, columns, rows):
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_aspect("equal")
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
