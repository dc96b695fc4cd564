"""Draws docs/figures/05_banks.svg: which lane meets which bank of shared memory, and in which pass, in 05.1 and 05.2.

The addresses are the kernels' own (head_dim 64). How many passes a request takes is not taken on trust: the drawing is
checked against what the CPU back end counted for the same line, and the script stops if they differ.

    make step 5.1 BACKEND=emu && ./run --json 1.json && make step 5.2 BACKEND=emu && ./run --json 2.json
    python3 05_tensor_core/banks.py 1.json 2.json
"""
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROW = 64 * 2  # bytes of a row of K or V
COLOURS = ["#0969da", "#e16f24", "#1a7f37", "#8250df", "#cf222e", "#bf8700", "#57606a", "#d4a72c"]


def passes(accesses):
    """[(lane, byte address, bytes)] -> [(lane, bank, pass)]: in one pass a bank gives one word, to any number of lanes."""
    words_of_bank, result = {}, []
    for lane, address, size in accesses:
        for word in range(address // 4, (address + size + 3) // 4):
            words = words_of_bank.setdefault(word % 32, [])
            if word not in words:
                words.append(word)
            result.append((lane, word % 32, words.index(word)))
    return result


def k_pairs():  # 05.1: load_pair of K
    return [(lane, lane // 4 * ROW + lane % 4 * 4, 4) for lane in range(32)]


def v_elements():  # 05.1: load_column_pair of V, the lower element
    return [(lane, lane % 4 * 2 * ROW + lane // 4 * 2, 2) for lane in range(32)]


def matrix(swizzled):  # one of ldmatrix's 8 x 8 matrices: eight lanes name its rows
    return [(lane, lane * ROW + (lane % 8 if swizzled else 0) * 16, 16) for lane in range(8)]


def counted_passes(report, text, of_a_request):
    """Wavefronts a request, of the lines of the kernel file that contain `text`, divided by `of_a_request`."""
    requests = wavefronts = 0
    for kernel in report["kernels"]:
        for line in kernel["lines"]:
            source = open(os.path.join(ROOT, line["file"]), encoding="utf-8").read().split("\n")[line["line"] - 1]
            if text in source:
                requests += line["counts"]["shared_read_requests"]
                wavefronts += line["counts"]["shared_read_wavefronts"]
    return wavefronts / requests / of_a_request


def panel(x, y, title, below, accesses):
    cell, lanes = 11, max(lane for lane, _, _ in accesses) + 1
    out = [f'<text x="{x}" y="{y}" font-size="13" font-weight="bold">{title}</text>',
           f'<text x="{x}" y="{y + 17}" font-size="12" fill="#57606a">{below}</text>']
    top = y + 30
    for lane in range(lanes):
        label = f'<text x="{x - 5}" y="{top + lane * cell + 9}" font-size="9" text-anchor="end" fill="#57606a">{lane}</text>'
        if lane % 4 == 0 or lanes == 8:
            out.append(label)
    for bank in (0, 8, 16, 24, 31):
        out.append(f'<text x="{x + bank * cell + 5}" y="{top + lanes * cell + 12}" font-size="9" text-anchor="middle" '
                   f'fill="#57606a">{bank}</text>')
    out.append(f'<rect x="{x}" y="{top}" width="{32 * cell}" height="{lanes * cell}" fill="#ffffff" stroke="#d0d7de"/>')
    for lane, bank, turn in passes(accesses):
        out.append(f'<rect x="{x + bank * cell + 1}" y="{top + lane * cell + 1}" width="{cell - 2}" height="{cell - 2}" '
                   f'fill="{COLOURS[turn]}"/>')
    return out


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    mma, ldmatrix = (json.load(open(name, encoding="utf-8")) for name in sys.argv[1:])
    drawn = [("05.1, K: 32 lanes load a word each", k_pairs(), counted_passes(mma, "const uint32_t*>(p)", 1)),
             ("05.1, V: 32 lanes load an element each", v_elements(), counted_passes(mma, "const unsigned short*>(p)", 1)),
             ("ldmatrix, rows as they come", matrix(False), None),
             ("05.2: ldmatrix, chunk c of row r at c ^ r % 8", matrix(True), counted_passes(ldmatrix, "ldmatrix_x4", 4))]
    places = [(46, 40), (460, 40), (46, 470), (460, 470)]
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 850 640" width="850" height="640" '
           'font-family="Helvetica, Arial, sans-serif" fill="#1f2328">',
           '<title>Lanes against banks of shared memory, in 05.1 and 05.2</title>',
           '<rect x="0.5" y="0.5" width="849" height="639" rx="8" fill="#f6f8fa" stroke="#d0d7de"/>']
    for (x, y), (title, accesses, counted) in zip(places, drawn):
        turns = 1 + max(turn for _, _, turn in passes(accesses))
        if counted is not None and counted != turns:
            sys.exit(f"{title}: {turns} passes drawn, {counted:g} counted")
        who = "a matrix's rows" if len(accesses) == 8 else "lanes"
        what = f"{turns} pass{'es' if turns > 1 else ''}" + (", as counted" if counted is not None else "")
        out += panel(x, y, title, f"{who} down, banks across; {what}", accesses)
    out.append('<text x="46" y="618" font-size="12" fill="#57606a">A colour is a pass: in one pass each bank gives one of its '
               'words, to any number of lanes.</text>')
    out.append("</svg>")
    with open(os.path.join(ROOT, "docs/figures/05_banks.svg"), "w", encoding="utf-8") as figure:
        figure.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
