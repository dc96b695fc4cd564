"""Ablations: a landing with one of its parts taken out, so that what the part brings can be timed again.

05_tensor_core/ablations/6_no_vote.ablation is one of 05_tensor_core/6_lean_loop.cu, as the number says: a line that says
what it is without, an empty line, and the lines that change (common/exercises/labels.py has the format). Its kernel file
is written to build/ablations/05_tensor_core/6_lean_loop_no_vote.cu, and to every tool it is a landing of that name."""
import glob
import os
import subprocess
import sys

from measure import ROOT, MeasureError, landing_of, number_of, progress

sys.path.append(os.path.join(ROOT, "common", "exercises"))
from labels import LabelError, changed, read_changes

SOURCES = "build/ablations"


def read_text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def ablations_of(landing):
    """'05_tensor_core/6_lean_loop' -> {'05_tensor_core/6_lean_loop_no_vote': text of the kernel file}"""
    folder, file = landing.split("/")
    part = file.split("_")[0]
    kernels = {}
    for path in sorted(glob.glob(os.path.join(ROOT, folder, "ablations", f"{part}_*.ablation"))):
        name = os.path.basename(path)[len(part) + 1 : -len(".ablation")]
        path = os.path.relpath(path, ROOT)
        changes = read_text(path).partition("\n\n")[2]
        kernels[f"{landing}_{name}"] = changed(read_text(landing + ".cu"), read_changes(changes, path), landing + ".cu", path)
    return kernels


def build(step, programs, endings):
    """The program of the step's landing, and those of its ablations, built beside it for the same GPU."""
    program = next((p for p in programs if number_of(landing_of(p)) in (step, "0" + step)), None)
    if not program:
        raise MeasureError(f"--ablations: there is no landing {step}")
    landing = landing_of(program)
    try:
        kernels = ablations_of(landing)
    except LabelError as error:
        raise MeasureError(str(error)) from None
    if not kernels:
        raise MeasureError(f"{landing} has no ablations: there is no {landing.split('/')[0]}/ablations/ with one of it")
    for name, text in kernels.items():
        path = os.path.join(ROOT, SOURCES, name + ".cu")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    beside = program[: -len(f"{landing}.run")] + f"{SOURCES}/"
    built = [f"{beside}{name}.run" for name in kernels]
    progress(f"building {len(built)} ablations of {landing}")
    done = subprocess.run(["make", *(name[: -len(".run")] + ending for name in built for ending in endings)],
                          cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise MeasureError(f"The ablations of {landing} don't build: {(done.stderr or done.stdout).strip()}")
    return [program, *built]
