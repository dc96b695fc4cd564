"""Labels: names for places in a kernel, so that exercises and tests needn't know line numbers or the lines around.

A label is the first word of a // comment, `// @load-k` or `// @load-k: a warp takes a key`. It names its line, and
stands once in a file. What a reader is shown or given (a student's file, an excerpt, a report) has none.

Changes to a kernel are written so, one after the other; the first character is a mark, as in a diff, the rest the line:

    @load-k
    -    the lines that go
    +    the lines that come

The lines that go are looked for from the label's line on, to the end of its function (the next line that begins with
"}"); the nearest count. Space at a line's ends doesn't matter. Where nothing goes, what comes stands below the label's
line. So a line that no change names may be rewritten freely.
"""
import difflib
import re

LABEL = re.compile(r"// @([a-z0-9-]+)(?:: |$)")


class LabelError(Exception):
    """A sentence for a person."""


def bare(line):
    """The line without its label; None where it holds nothing else."""
    found = LABEL.search(line)
    if not found:
        return line
    text = LABEL.sub("// ", line) if line[found.end() :] else line[: found.start()].rstrip()
    return text if text.strip() else None


def without_labels(text):
    return "\n".join(line for line in map(bare, text.split("\n")) if line is not None)


def labels_of(text):
    """-> {label: the numbers of its lines, from 0}"""
    found = {}
    for number, line in enumerate(text.split("\n")):
        for label in LABEL.findall(line):
            found.setdefault(label, []).append(number)
    return found


def read_changes(text, path):
    """-> [(label, lines that go, lines that come)]"""
    changes = []
    for line in text.split("\n"):
        label = re.fullmatch(r"@([a-z0-9-]+)", line.rstrip())
        if label:
            changes.append((label[1], [], []))
        elif line[:1] in ("-", "+") and changes:
            changes[-1][1 if line[0] == "-" else 2].append(line[1:])
        elif line.strip():
            raise LabelError(f"{path}: '{line}' is no change: '@label', '-' and a line that goes, or '+' and one that comes")
    if not changes:
        raise LabelError(f"{path}: there is no change (a line such as '@load-k', and what goes and comes there)")
    for label, old, new in changes:
        if not old and not new:
            raise LabelError(f"{path}: nothing is changed at @{label}")
    return changes


def place_of(label, labels, kernel, path):
    """The number of the label's line, from 0."""
    if label not in labels:
        raise LabelError(f"{path}: {kernel} has no label @{label}; it has {', '.join('@' + l for l in labels) or 'none'}")
    if len(labels[label]) > 1:
        lines = " and ".join(str(n + 1) for n in labels[label])
        raise LabelError(f"{path}: the label @{label} must stand once in {kernel}, and stands in lines {lines}")
    return labels[label][0]


def find_lines(old, lines, at, label, kernel, path):
    """The number of the first of the lines `old`, from line `at` on."""
    stripped = [(line or "").strip() for line in lines]
    wanted = [line.strip() for line in old]
    end = next((n for n in range(at, len(lines)) if (lines[n] or "").startswith("}")), len(lines) - 1)
    for n in range(at, end + 1):
        if stripped[n : n + len(old)] == wanted:
            return n
    alike = lambda n: difflib.SequenceMatcher(None, "\n".join(wanted), "\n".join(stripped[n : n + len(old)])).ratio()
    nearest = max(range(at, end + 1), key=alike)
    shown = lambda some: "".join(f"\n    {line or ''}".rstrip(" ") for line in some)
    raise LabelError(
        f"{path} doesn't fit {kernel} any more. At @{label} it changes{shown(old)}\nand what stands there, in line "
        f"{nearest + 1}, is{shown(lines[nearest : nearest + len(old)])}"
    )


def changed(text, changes, kernel, path):
    """The text of `kernel` without labels and with the changes; `path` is who wants them, for messages."""
    lines, labels, edits = [bare(line) for line in text.split("\n")], labels_of(text), []
    for label, old, new in changes:
        at = place_of(label, labels, kernel, path)
        first = find_lines(old, lines, at, label, kernel, path) if old else at + 1
        edits.append((first, first + len(old), new))
    edits.sort(key=lambda edit: edit[:2])
    for (_, end, _), (begin, _, _) in zip(edits, edits[1:]):
        if begin < end:
            raise LabelError(f"{path}: two of its changes are to line {begin + 1} of {kernel}")
    for first, last, new in reversed(edits):
        lines[first:last] = new
    return "\n".join(line for line in lines if line is not None)
