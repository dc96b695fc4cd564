"""Keeps the documents true, in every *.md of the repository:
- a fenced block whose info string has file=PATH occurs in that file, verbatim but for labels (```cpp file=00_naive/naive.cu);
- where a report is quoted, "naive.cu:42" and the line of code that it shows, the kernel has that line there;
- a block marked report=PATH is what ./run says of that kernel broken: without the line that the excerpt before it shows, or
  with the lines of a ```cpp instead``` block there. The command before it has ./run's options, "..." stands for what is left out;
- a relative link leads to a file that exists, and its #anchor to a heading (or an id) of it;
- "39 lines that went and 25 that came" is what `make diff` counts, and the command stands before it in its paragraph;
- a block marked ```sh run``` runs, on the CPU back end, from the repository's root, and ends with status 0.
Paths of file= are from the root; those of links from the document."""
import os
import re
import subprocess
import sys
import unicodedata

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "common", "exercises"))
sys.dont_write_bytecode = True

from judge import build
from labels import without_labels

TIME_LIMIT = 120  # seconds a block of shell commands may take, on a slow machine
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^()\s<>]*(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\)")
HTML_LINK = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"")

passed, failed = 0, 0


def verdict(good, sentence):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"docs_test: {sentence}")


def documents():
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in ("build", "work"))
        for name in sorted(files):
            if name.endswith(".md"):
                yield os.path.relpath(os.path.join(folder, name), ROOT)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def fenced_blocks(text):
    """(line number, info string, content) of each fenced block; and the text without blocks and inline code."""
    blocks, prose, fence, info, content, begin = [], [], None, "", [], 0
    for number, line in enumerate(text.split("\n"), 1):
        mark = re.match(r"( *)(`{3,}|~{3,})\s*([^`]*)$", line)
        if fence is None and mark:
            indent, fence, info, content, begin = len(mark[1]), mark[2], mark[3].strip(), [], number
        elif fence is not None and mark and mark[2].startswith(fence) and not mark[3]:
            blocks.append((begin, info, "\n".join(content)))
            fence = None
        elif fence is not None:
            content.append(line[indent:] if not line[:indent].strip() else line)
        else:
            prose.append(line)
    if fence is not None:
        blocks.append((begin, "unclosed", ""))
    return blocks, re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", "\n".join(prose))


def anchors(path):
    """The anchors that GitHub gives a document's headings, and ids written in HTML."""
    _, prose = fenced_blocks(re.sub(r"(?m)^(#+ .*)$", lambda m: m[1].replace("`", ""), read(path)))
    found, seen = set(re.findall(r"\b(?:id|name)=\"([^\"]+)\"", prose)), {}
    for heading in re.findall(r"(?m)^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$", prose):
        heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        keep = (c for c in heading if c in "-_ " or unicodedata.category(c)[0] in "LN" or unicodedata.category(c) == "Mn")
        anchor = "".join(keep).replace(" ", "-")
        seen[anchor] = seen.get(anchor, -1) + 1
        found.add(anchor if seen[anchor] == 0 else f"{anchor}-{seen[anchor]}")
    return found


def check_excerpt(document, line, info, content):
    path = re.search(r"\bfile=(\S+)", info)[1]
    where = f"{document}:{line}"
    if not os.path.isfile(os.path.join(ROOT, path)):
        return verdict(False, f"{where} quotes {path}, and there is no such file")
    source = without_labels(read(path))
    if content.strip() and content + "\n" in source:
        return verdict(True, "")
    lost = next((text for text in content.split("\n") if text not in source.split("\n")), None)
    verdict(False, f"{where} quotes {path}, " + (f"which has no line\n    {lost}" if lost is not None
                                               else "whose lines are in another order or have others between them"))


# As --profile shows them. (Reports of faults are of kernels that an example broke, often by a line less.)
QUOTED_LINE = re.compile(r"(\d\d_\w+/\w+\.cu):(\d+) [^\n|]*\n +\| (\S.*)")


def check_quoted_lines(document, line, content):
    for path, number, shown in QUOTED_LINE.findall(content):
        shown = shown.rstrip()
        source = [text.strip() for text in read(path).split("\n")] if os.path.isfile(os.path.join(ROOT, path)) else []
        bare = [without_labels(text) for text in source]
        found = [n for n, text in enumerate(bare, 1) if text.startswith(shown)]
        verdict(int(number) in found, f"{document}:{line} shows {path}:{number} as `{shown}`" +
                (f", which is line {found[0]}" if found else ", and there is no such line"))


def check_report(document, line, blocks, info, content):
    """`blocks`: those before it in the document."""
    kernel = re.search(r"\breport=(\S+)", info)[1]
    where = f"{document}:{line} quotes a report of {kernel}"
    excerpt = max((n for n, block in enumerate(blocks) if block[1] == f"cpp file={kernel}"), default=None)
    commands = [c.split() for _, i, text in blocks if i.startswith("sh") for c in text.split("\n") if c.startswith("./run")]
    if excerpt is None or not commands:
        return verdict(False, f"{where}, and no excerpt of it, or no ./run, stands before")
    gone, come = blocks[excerpt][2].split("\n"), [text for _, i, text in blocks[excerpt:] if i == "cpp instead"]
    lines = read(kernel).split("\n")
    at = next((n for n in range(len(lines)) if list(map(without_labels, lines[n : n + len(gone)])) == gone), None)
    if at is None:
        return  # check_excerpt has said so
    lines[at : at + len(gone)] = come[-1].split("\n") if come else []
    source, out = "build/docs/broken.cu", "build/docs/broken"
    os.makedirs(os.path.join(ROOT, "build/docs"), exist_ok=True)
    with open(os.path.join(ROOT, source), "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    built, said = build(source, kernel[: -len(".cu")], out, "watched.run", env=environment())
    if not built:
        return verdict(False, f"{where}, and broken so it doesn't build: {said}")
    result = subprocess.run([f"{out}/watched.run", *commands[-1][1:]], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIME_LIMIT)
    output, at = " ".join(result.stdout.replace(source, kernel).split()), 0
    for piece in re.split(r"(?m)^\.\.\.$", content):
        piece = " ".join(piece.split())
        at = output.find(piece, at)
        if at < 0:
            return verdict(False, f"{where} that says\n  {piece}\nand what is said is\n  {output}")
    verdict(True, "")


def check_link(document, target):
    if re.match(r"[a-z][a-z0-9+.-]*:", target) or target.startswith("//"):
        return  # elsewhere on the net
    path, _, anchor = target.partition("#")
    path = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
    if not os.path.exists(os.path.join(ROOT, path)):
        return verdict(False, f"{document} links to {target}, and there is no {path}")
    if anchor and path.endswith(".md") and anchor not in anchors(path):
        return verdict(False, f"{document} links to {target}, and {path} has no heading #{anchor}")
    verdict(True, "")


def environment():
    """Of a command that a reader types: nothing of a make above it, and no GPU."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TILE", "WATCH")}
    return {**kept, "BACKEND": "emu"}


def check_diff(document, paragraph, match):
    counted = f"{document}: '{match[0]}'"
    command = re.findall(r"`make (diff [\d. ]+)`", paragraph[: match.start()])
    if not command:
        return verdict(False, f"{counted} needs the `make diff` before it that counts them")
    result = subprocess.run(["make", *command[-1].split()], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
                            capture_output=True, text=True)
    counts = re.search(r"(\d+) lines went, (\d+) came", result.stdout)
    said = f"{counts[1]} lines that went and {counts[2]} that came" if counts else "nothing"
    verdict(said == match[0], f"{counted}, and make {command[-1]} counts {said}")


def run_block(document, line, commands):
    where = f"{document}:{line}"
    try:
        result = subprocess.run(["bash", "-e", "-c", commands], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return verdict(False, f"{where}: the commands took more than {TIME_LIMIT} s")
    output = result.stdout.decode(errors="replace")
    verdict(result.returncode == 0, f"{where}: the commands ended with status {result.returncode}, after\n" +
            "\n".join(output.split("\n")[-20:]))


def main():
    link_before = os.readlink(os.path.join(ROOT, "run")) if os.path.islink(os.path.join(ROOT, "run")) else None
    for document in documents():
        blocks, prose = fenced_blocks(read(document))
        for number, (line, info, content) in enumerate(blocks):
            check_quoted_lines(document, line, content)
            if info == "unclosed":
                verdict(False, f"{document}:{line} opens a block that is never closed")
            if re.search(r"\bfile=", info):
                check_excerpt(document, line, info, content)
            if re.search(r"\breport=", info):
                check_report(document, line, blocks[:number], info, content)
            if re.match(r"(sh|bash)\s+run\b", info):
                run_block(document, line, content)
        for paragraph in (" ".join(p.split()) for p in re.split(r"\n\s*\n", read(document))):
            for match in re.finditer(r"\d+ lines that went and \d+ that came", paragraph):
                check_diff(document, paragraph, match)
        for target in LINK.findall(prose) + HTML_LINK.findall(prose):
            check_link(document, target)
    if link_before:  # what the reader had built last is what ./run runs again
        os.unlink(os.path.join(ROOT, "run"))
        os.symlink(link_before, os.path.join(ROOT, "run"))
    print(f"docs_test: {passed} passed, {failed} failed")
    if os.environ.get("FLASH_TEST_TOTALS"):
        with open(os.environ["FLASH_TEST_TOTALS"], "a") as totals:
            totals.write(f"{passed} {failed}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
