"""The rooms of common/ and the arrows between them. A room includes itself and those named behind it; they all stand above
it in this list, so no arrow runs upward. A step's folder includes nothing of another step."""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOMS = {
    "common/base": [],
    "common/problem": ["base"],
    "common/check": ["base", "problem"],
    "common/device": ["base", "problem"],
    "common/emu/run": ["base", "problem", "device"],
    "common/emu/watch": ["base", "problem", "device", "emu/run"],
    "common/emu/instructions": ["base", "problem", "device", "emu/run", "emu/watch"],
    "common/kernel": ["base", "problem", "device"],
    "common/run": ["base", "problem", "check", "device", "kernel"],
    "a step's kernels": ["problem", "device", "kernel"],
}
ALL = [room[len("common/"):] for room in ROOMS if room.startswith("common/")]
ROOMS.update({"a step's tests": [*ALL, "tests"], "common/tests": ALL, "common/bench": ALL, "common/emu/calibrate": [*ALL, "tests"]})
# A kernel's instructions are the CPU back end's where nvcc doesn't compile.
EXCEPTIONS = r"common/kernel/(cuda\.cuh|ptx\b.*) common/emu/instructions/.*"


def what_is_wrong(path, included):
    """In a sentence; None: nothing is."""
    room, to = os.path.dirname(path), os.path.dirname(included)
    if room.startswith("common/kernel/"):
        room = "common/kernel"
    if path[0].isdigit():
        room = "a step's tests" if path.endswith(".cpp") else "a step's kernels"
    if room not in ROOMS:
        return f"{path} stands in no room that this test knows"
    allowed = {os.path.dirname(path), room, *("common/" + name for name in ROOMS[room])}
    if to in allowed or to.startswith("common/kernel/") and "common/kernel" in allowed or re.fullmatch(EXCEPTIONS, f"{path} {included}"):
        return None
    return f"{path} includes {included}, and {room} may not"


found, wrong = 0, []
for path in sorted(glob.glob("common/**/*.*", root_dir=ROOT, recursive=True) + glob.glob("[0-9][0-9]_*/*.*", root_dir=ROOT)):
    if path.endswith((".h", ".cuh", ".cpp", ".cu")):
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            arrows = [what_is_wrong(path, included) for included in re.findall(r'(?m)^\s*#\s*include\s*"([^"]+)"', file.read())]
        found, wrong = found + len(arrows), wrong + [sentence for sentence in arrows if sentence]
print("\n".join(wrong + [f"rooms_test: {found} arrows, {len(wrong)} wrong"]))
if os.environ.get("FLASH_TEST_TOTALS"):
    with open(os.environ["FLASH_TEST_TOTALS"], "a", encoding="utf-8") as totals:
        totals.write(f"{int(found > 100 and not wrong)} {max(len(wrong), int(found <= 100))}\n")
sys.exit(1 if wrong or found <= 100 else 0)
