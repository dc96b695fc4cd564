"""The ladder's landings, for the Python tools: their numbers, names and what they take. Found by the files' names, as the
Makefile finds them."""
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def landings():
    """Every landing in order: 02_online_softmax/online_softmax, the one of its step; 05_tensor_core/1_mma, one of several."""
    found = []
    for folder in filter(re.compile(r"\d\d_").match, sorted(os.listdir(ROOT))):
        stems = sorted(file[: -len(".cu")] for file in os.listdir(os.path.join(ROOT, folder)) if file.endswith(".cu"))
        found += [f"{folder}/{stem}" for stem in stems if stem == folder[3:] or re.match(r"[1-9]_", stem)]
    return found


def number_of(landing):
    """'05_tensor_core/1_mma' -> '05.1', '04_flash_v2/flash_v2' -> '04'"""
    folder, file = landing.split("/")
    part = file.split("_")[0]
    return folder.split("_")[0] + ("." + part if part.isdigit() else "")


def short_number_of(landing):
    """As people type it: '5.1', '4'"""
    return re.sub("^0", "", number_of(landing))


def name_of(landing):
    """'05_tensor_core/1_mma' -> 'mma', '04_flash_v2/flash_v2' -> 'flash_v2'"""
    return landing.split("/")[-1].lstrip("0123456789_")


def landings_of(*steps):
    """Of all these steps, or single landings: '04', '05', '06.1'"""
    return [l for l in landings() if number_of(l) in steps or number_of(l).split(".")[0] in steps]


def is_backward(landing):
    return "_backward/" in landing


def dtypes(landing):
    """What its tensors may hold; the first is what it takes when nothing is said."""
    return ("bf16", "fp16") if re.search(r"_tensor_core", landing) else ("fp32",)


def landings_for(direction, dtype):
    """All that go in the direction, "forward" or "backward", and take the dtype."""
    return [l for l in landings() if is_backward(l) == (direction == "backward") and dtype in dtypes(l)]
