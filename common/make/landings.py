"""The steps, found by their files: 02_online_softmax/online_softmax.cu is the one landing of step 2, and
05_tensor_core/1_mma.cu is landing 5.1. Run as a program (`make list`) it prints them."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = re.compile(r"(\d\d)_([A-Za-z0-9_]+)")
PART = re.compile(r"([1-9]\d*)_([A-Za-z0-9_]+)")  # of a folder with several landings


class Landing:
    def __init__(self, folder, file, root=ROOT):
        self.root, self.folder, self.path = root, folder, f"{folder}/{file}"  # the path without its .cu
        step, self.folder_name = FOLDER.fullmatch(folder).groups()
        part = PART.fullmatch(file) if file != self.folder_name else None
        self.file, self.part = file, part[1] if part else ""
        self.name = part[2] if part else file  # mma
        self.number = step + (f".{self.part}" if part else "")  # 05.1
        self.short = str(int(step)) + (f".{self.part}" if part else "")  # 5.1
        self.order = (int(step), folder, int(self.part or 0))

    def __repr__(self):
        return f"Landing({self.path})"

    @property
    def direction(self):
        """As far as the folder's name says."""
        return next((d for d in ("backward", "decode") if self.folder.endswith("_" + d)), "forward")

    @property
    def words(self):
        """What a person may call it: 4 04 04_flash_v2 flash_v2 04_flash_v2/flash_v2; one of several 5.1 1_mma mma too."""
        step = self.number.split(".")[0]
        words = {step, str(int(step)), self.folder, self.folder + "/", self.folder_name, self.path, self.path + ".cu"}
        return words | ({self.number, self.short, self.file, self.name} if self.part else set())

    def text(self, path=None):
        with open(os.path.join(self.root, path or self.path + ".cu"), encoding="utf-8", errors="replace") as file:
            return file.read()

    @property
    def has_tile_size(self):
        return "TILE_M" in self.text()

    @property
    def dtypes(self):
        """Those it registers; the first is what it takes when nothing is said."""
        return tuple(re.findall(r"Dtype::(\w+)", self.text().rpartition("RegisterStep registered")[2]))

    @property
    def architectures(self):
        """The one it compiles for where it says so (common/kernel/step.h): exactly(90) is sm_90a. Else none: any will do."""
        return [f"sm_{capability}a" for capability in re.findall(r"\bexactly\((\d+)\)", self.text())[:1]]

    @property
    def tested_tiles(self):
        """Those that the folder's test.cpp names in a line `// Tested with TILE=32x16 too.`, for whom they can be set."""
        if not self.has_tile_size or not os.path.exists(os.path.join(self.root, self.folder, "test.cpp")):
            return []
        return re.findall(r"(?m)^// Tested with TILE=([1-9]\d*x[1-9]\d*) too\.$", self.text(self.folder + "/test.cpp"))


def landings(root=ROOT):
    """All, in the ladder's order."""
    found = []
    for folder in filter(FOLDER.fullmatch, os.listdir(root)):
        name = FOLDER.fullmatch(folder)[2]
        if os.path.isdir(os.path.join(root, folder)):
            files = [f[: -len(".cu")] for f in os.listdir(os.path.join(root, folder)) if f.endswith(".cu")]
            found += [Landing(folder, f, root) for f in files if f == name or PART.fullmatch(f)]
    return sorted(found, key=lambda landing: landing.order)


def find(word, among=None):
    """The landing a word names, the last where it names several (5 is 5.6), or None."""
    return next((one for one in reversed(landings() if among is None else among) if word in one.words), None)


def before(landing, among):
    """The landing that this one goes on from: the last before it of its direction, else the last before it; or None."""
    earlier = [one for one in among if one.order < landing.order]
    return next((one for one in reversed(earlier) if one.direction == landing.direction), earlier[-1] if earlier else None)


def lasts(among):
    """Each folder's last landing."""
    return list({one.folder: one for one in among}.values())


def forwards_for(landing, among):
    """A backward step needs O and LSE: the last landing of every forward folder before its own. The program picks the
    last of them that takes its problem on its device."""
    if landing.direction != "backward":
        return []
    return lasts([one for one in among if one.direction == "forward" and one.folder < landing.folder])


# For the tools that know a landing by its path, 05_tensor_core/1_mma.


def landing_at(path):
    return Landing(*path.split("/"))


def number_of(path):
    """'05_tensor_core/1_mma' -> '05.1', '04_flash_v2/flash_v2' -> '04'"""
    return landing_at(path).number


def short_number_of(path):
    """As people type it: '5.1', '4'"""
    return landing_at(path).short


def name_of(path):
    """'05_tensor_core/1_mma' -> 'mma', '04_flash_v2/flash_v2' -> 'flash_v2'"""
    return landing_at(path).name


def dtypes(path):
    return landing_at(path).dtypes


def is_backward(path):
    """Of any implementation's name; a peer's has no folder."""
    return "_backward/" in path


def landings_of(*steps):
    """The paths of all these steps, or single landings: '04', '05', '06.1'"""
    return [one.path for one in landings() if one.number in steps or one.number.split(".")[0] in steps]


def landings_for(direction, dtype):
    """The paths of all that go in the direction, "forward" or "backward", and take the dtype."""
    return [one.path for one in landings() if one.direction == direction and dtype in one.dtypes]


def listing(among):
    return "".join(f"  make step {one.short:5} {one.path}.cu\n" for one in among)


if __name__ == "__main__":
    sys.stdout.write(listing(landings()))
