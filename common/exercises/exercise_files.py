"""The exercises as files: NN_step/exercises/NAME.exercise, what to change in the step's kernel, behind a preamble.

The preamble is `key: value` lines; the value of task, hint and why is the indented text below the key:

    title: One barrier too few
    kernel: fused_softmax.cu
    kind: bug                      (bug, hole or idea)
    minutes: 15
    points: 2
    fails: fault race              (what must fail as shipped; see judge.py)
    count: global_write_bytes      (idea: the count that says how good a repair is)
    task:
      What the student sees.
    hint:
      The first tier. Each further `hint:` is the next.
    why:
      What is shown after success.

Then the changes that break the kernel, at its labels (labels.py says how they are written):

    @scores-complete
    -  __syncthreads();  // each thread now reads scores that other warps wrote

NAME.wrong1, NAME.wrong2 ... are near-miss repairs: a remark, and changes to the ladder's kernel that must still fail.
"""
import os
import re
import sys

from labels import LabelError, changed, read_changes

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path += [os.path.join(ROOT, "common", "bench"), os.path.join(ROOT, "common", "make")]
from files import write_whole  # these, for the scripts beside this one
from landings import dtypes, is_backward, short_number_of

KINDS = ("bug", "hole", "idea")
WORK = os.environ.get("FLASH_WORK", "work")  # a student's files; another folder for tests


ExerciseError = LabelError  # a sentence for a person


class Exercise:
    def __init__(self, path):
        self.path = path
        self.stem = os.path.basename(path)[: -len(".exercise")]  # 2_one_barrier: the number only orders
        self.name = re.sub(r"^\d+_", "", self.stem)
        preamble, self.changes = read_file(path)
        self.fields, self.hints = read_preamble(preamble, path)
        for key in ("title", "kernel", "kind", "minutes", "points", "fails", "task", "why"):
            if not self.fields.get(key):
                raise ExerciseError(f"{path}: the preamble has no '{key}:'")
        if self.fields["kind"] not in KINDS:
            raise ExerciseError(f"{path}: kind must be one of {', '.join(KINDS)}, not '{self.fields['kind']}'")
        if self.fields["kind"] == "idea" and "count" not in self.fields:
            raise ExerciseError(f"{path}: an idea exercise names the count that judges it ('count:')")
        self.kernel = os.path.dirname(os.path.dirname(path)) + "/" + self.fields["kernel"]  # 03_flash_v1/1_tiles.cu
        self.landing = self.kernel[: -len(".cu")]
        self.title, self.kind = self.fields["title"], self.fields["kind"]
        self.points, self.minutes = int(self.fields["points"]), int(self.fields["minutes"])
        self.fails, self.task, self.why = self.fields["fails"], self.fields["task"], self.fields["why"]
        self.count = self.fields.get("count")
        self.wrongs = sorted(
            os.path.join(os.path.dirname(path), f)
            for f in os.listdir(os.path.join(ROOT, os.path.dirname(path)))
            if re.fullmatch(re.escape(self.stem) + r"\.wrong\d+", f)
        )
        self.id = ""  # 3.1x2: given by all_exercises()

    @property
    def in_course(self):
        """The eleven weeks of docs/course.md end with 06. What comes later is for whoever wants more."""
        return self.kernel < "07"

    @property
    def chapter(self):
        return os.path.dirname(self.kernel) + "/README.md"

    @property
    def work_file(self):
        return os.path.join(WORK, f"{self.id}_{self.name}.cu")

    def broken(self):
        """The text of the kernel file as the student gets it."""
        return self.with_changes(self.changes, self.path)

    def wrong_repair(self, path):
        """The kernel with the near-miss repair of that file."""
        return self.with_changes(read_file(path)[1], path)

    def with_changes(self, changes, path):
        return changed(read_kernel(self.kernel, path), changes, self.kernel, path)


def read_kernel(kernel, path):
    try:
        with open(os.path.join(ROOT, kernel), encoding="utf-8") as f:
            return f.read()
    except OSError:
        raise ExerciseError(f"{path}: there is no {kernel}")


def read_file(path):
    """-> (text before the changes, the changes)"""
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        text = f.read()
    start = re.search(r"^@", text, re.M)
    begin = start.start() if start else len(text)
    return text[:begin], read_changes(text[begin:], path)


def read_preamble(text, path):
    """-> (fields, hints)"""
    fields, hints, key = {}, [], None
    for line in text.splitlines():
        match = re.match(r"([a-z]+):\s*(.*)$", line)
        if match:
            key = match.group(1)
            if key == "hint":
                hints.append(match.group(2))
            else:
                fields[key] = match.group(2)
        elif key and (line.startswith("  ") or not line.strip()):
            more = line[2:].rstrip()
            if key == "hint":
                hints[-1] = (hints[-1] + "\n" + more).strip("\n")
            else:
                fields[key] = (fields[key] + "\n" + more).strip("\n")
        elif line.strip():
            raise ExerciseError(f"{path}: '{line}' is neither 'key: value' nor indented text below a key")
    return fields, hints


def all_exercises():
    """In the order of the ladder; within a landing by file name."""
    found = []
    for folder in sorted(os.listdir(ROOT)):
        exercises = os.path.join(folder, "exercises")
        if not re.match(r"\d\d_", folder) or not os.path.isdir(os.path.join(ROOT, exercises)):
            continue
        for file in sorted(os.listdir(os.path.join(ROOT, exercises))):
            if file.endswith(".exercise"):
                found.append(Exercise(os.path.join(exercises, file)))
    found.sort(key=lambda e: (e.landing, e.path))
    numbers = {}
    for exercise in found:
        number = short_number_of(exercise.landing)
        numbers[number] = numbers.get(number, 0) + 1
        exercise.id = f"{number}x{numbers[number]}"
    return found


def find_exercise(word, exercises):
    """By number, by name, or by the student's file."""
    file = re.sub(r"\.(cu|md|exercise)$", "", os.path.basename(word))
    for exercise in exercises:
        if word in (exercise.id, exercise.name) or file in (exercise.stem, f"{exercise.id}_{exercise.name}"):
            return exercise
    step = re.match(r"0?(\d)", word)
    here = [e.id for e in exercises if step and e.id.startswith(step.group(1))]
    those = f"; there are {', '.join(here)}" if here else ""
    raise ExerciseError(f"there is no exercise '{word}'{those}; `make exercises` lists all with their titles")
