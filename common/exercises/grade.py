#!/usr/bin/env python3
"""`make grade SUBMISSIONS=dir`: for an instructor. dir/STUDENT/ holds a student's work files (3.1x2_NAME.cu, as in work/).

Each file is built in its step's place and run as a process of its own, under a time and a memory limit, on inputs that
this program draws anew (lengths and numbers that no test uses), the same for every student; SEED=… draws those of a
former run again. ./run's own checker judges it (O and LSE, or the gradients), and what it writes is compared here with
what the ladder's own kernel writes. Nothing else of a submission is taken or run.
It is no sandbox: a kernel file is C++ that runs as you do.
"""
import csv
import io
import json
import math
import os
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

from exercise_files import ROOT, ExerciseError, all_exercises, dtypes, is_backward, write_whole
from judge import FULL_POINTS, build, measured_count, missing_step, run_limited
from npy import read_npy, write_npy
from problems import check_problems

SECONDS = 60
MEMORY_BYTES = 8 << 30


# ---- problems of the day --------------------------------------------------------------------------------------------


def draw_problem(rng, problem):
    """One of the list, with lengths that no test uses; which of the two is longer, and by how much, stays."""
    more, times = rng.randrange(1, 60), rng.choice((1, 2))
    return problem._replace(
        batch=rng.choice((1, 2)), heads=times * problem.heads, kv_heads=times * problem.kv_heads,
        seqlen=problem.seqlen + more, seqlen_k=problem.seqlen_k + more)


def problem_text(p):
    text = f"batch {p.batch} heads {p.heads}/{p.kv_heads} seqlen {p.seqlen}, {p.seqlen_k} d {p.head_dim}"
    return text + (" causal" if p.causal else "") + (f" {p.dist}" if p.dist != "normal" else "")


def draw_value(rng, dist, name):
    x = rng.gauss(0, 1)
    if dist == "negative" and name in "qk":  # every score far below zero
        x = abs(x) + 4 if name == "q" else -abs(x) - 4
    if dist == "large" and name in "qk":
        x *= 8
    return round(x, 3)


def grade_dtype(landing):
    return "fp16" if "fp16" in dtypes(landing) else "fp32"


def write_inputs(rng, p, landing, folder):
    q = (p.batch, p.heads, p.seqlen, p.head_dim)
    k = (p.batch, p.kv_heads, p.seqlen_k, p.head_dim)
    files = []
    for name, shape in (("q", q), ("k", k), ("v", k)) + ((("do", q),) if is_backward(landing) else ()):
        files.append(os.path.join(folder, name + ".npy"))
        write_npy(files[-1], shape, [draw_value(rng, p.dist, name) for _ in range(math.prod(shape))], grade_dtype(landing))
    return files


def what_is_wrong(result):
    """-> what ./run says of its accesses and its result, in a sentence; None: they are right"""
    if result.get("faults"):
        return result["faults"][0]["message"].splitlines()[0]
    check = result["check"]
    if check["verdict"] == "pass":
        return None
    lines = check["message"].splitlines() or [""]  # one a tensor, and more
    return next((line for line in lines if " is wrong: " in line), lines[0])


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_on(program, p, landing, inputs, folder, limited):
    """-> output values, or a sentence"""
    outputs = [os.path.join(folder, n + ".npy") for n in (("dq", "dk", "dv") if is_backward(landing) else ("o",))]
    report = os.path.join(folder, "run.json")
    command = [program, "--input", ",".join(inputs), "--output", ",".join(outputs), "--json", report]
    command += ["--dtype", grade_dtype(landing)] + (["--causal"] if p.causal else [])
    for path in outputs + [report]:
        if os.path.exists(path):
            os.remove(path)
    status, _, err = run_limited(command, SECONDS, **({"preexec_fn": limit} if limited else {}))
    if status is None:
        return f"didn't end within {SECONDS} seconds"
    if status not in (0, 1):
        return (err.strip().splitlines() or [f"died with status {status}"])[0]
    try:
        with open(report, encoding="utf-8") as f:
            result = json.load(f)
        values = [x for path in outputs for x in read_npy(path)[2]]
        return what_is_wrong(result) or values
    except (OSError, ValueError, KeyError) as error:
        return f"left no readable result: {error}"


def difference(got, expected):
    """RMS of the error over the RMS of what was expected; infinity where something isn't a number."""
    if len(got) != len(expected) or any(not math.isfinite(x) for x in got):
        return math.inf
    error = sum((a - b) ** 2 for a, b in zip(got, expected))
    return math.sqrt(error / max(sum(b * b for b in expected), 1e-30))


# ---- a submission ---------------------------------------------------------------------------------------------------


class Ladder:
    """The ladder's own kernels and the broken ones, built once: what a submission is compared with."""

    def __init__(self):
        self.built, self.counts = {}, {}

    def program(self, source, landing):
        if source not in self.built:
            out = "build/exercise/" + re.sub(r"\W+", "_", source)
            built, text = build(source, landing, out, "watched.run")
            if not built:
                raise ExerciseError(f"{source} doesn't build: {text}")
            self.built[source] = os.path.join(ROOT, out, "watched.run")
        return self.built[source]

    def count(self, source, exercise):
        key = (source, exercise.name)  # exercises of one kernel count different things
        if key not in self.counts:
            self.counts[key] = measured_count(self.program(source, exercise.landing), exercise)
        return self.counts[key]

    def broken_count(self, exercise):
        source = os.path.join("build", "exercise", f"{exercise.id}_as_shipped.cu")
        if (source, exercise.name) not in self.counts:
            os.makedirs(os.path.join(ROOT, os.path.dirname(source)), exist_ok=True)
            with open(os.path.join(ROOT, source), "w", encoding="utf-8") as f:
                f.write(exercise.broken())
        return self.count(source, exercise)


def points_for_count(count, solution, broken, points):
    """All up to 1.05 times the solution's count, none at the broken kernel's, a straight line between."""
    full, none = FULL_POINTS * solution, float(broken)
    if count <= full:
        return points
    return round(points * max(0.0, (none - count) / (none - full)), 2) if none > full else 0


def first_error(text):
    """The line of g++'s or the linker's text that says what is wrong; "In function …:" says only where."""
    lines = text.splitlines()
    return next((l for l in lines if re.search(r"\berror: |undefined reference|multiple definition", l)), lines[0])


def grade_file(path, exercise, ladder, seed):
    """-> (points, what was seen)"""
    if os.path.islink(path) or not os.path.isfile(path):
        return 0, f"{os.path.basename(path)} is no file but a {'link' if os.path.islink(path) else 'folder or a device'}"
    rng = random.Random(f"{seed} {exercise.id}")
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, os.path.basename(path))
        try:
            shutil.copyfile(path, source)
        except OSError as error:
            return 0, f"{os.path.basename(path)} can't be read: {error.strerror or error}"
        out = os.path.join(folder, "build")
        built, text = build(source, exercise.landing, out, "watched.run", env=dict(os.environ, LC_ALL="C"))
        if not built:
            return 0, "doesn't compile: " + first_error(text.replace(folder + "/", ""))
        program = os.path.join(out, "watched.run")
        if text := missing_step(program, exercise.landing, preexec_fn=limit):
            return 0, text
        landing = exercise.landing
        for p in (draw_problem(rng, problem) for problem in check_problems()):
            inputs = write_inputs(rng, p, landing, folder)
            expected = run_on(ladder.program(exercise.kernel, landing), p, landing, inputs, folder, False)
            if isinstance(expected, str):
                raise ExerciseError(f"{exercise.kernel} itself fails on {problem_text(p)}: {expected}")
            got = run_on(program, p, landing, inputs, folder, True)
            if isinstance(got, str):
                return 0, f"{problem_text(p)}: {got.replace(folder + '/', '')}"
            error = difference(got, expected)
            if not error <= (1e-4 if grade_dtype(landing) == "fp32" else 2e-2):
                return 0, f"{problem_text(p)}: relative error {error:.2g}"
        if exercise.count:
            count, solution_count = measured_count(program, exercise), ladder.count(exercise.kernel, exercise)
            if count is None:
                return 0, f"{exercise.count} could not be counted: the run left no report"
            seen = f"{exercise.count} {count}, the ladder's kernel {solution_count}"
            if exercise.kind == "idea":
                return points_for_count(count, solution_count, ladder.broken_count(exercise), exercise.points), seen
            if count > FULL_POINTS * solution_count:  # a hole is written or not
                return 0, seen
        return exercise.points, "right"


# ---- a class --------------------------------------------------------------------------------------------------------

OUR_FILES = re.compile(r"grades.*\.(json|csv)(\.part)?")
BESIDE_KERNELS = re.compile(r"\..*|state\.json|.*\.(md|bak|part)")  # what else lies in work/, and a system's own files


def survey(folder, exercises):
    """-> (students, [(student, file, exercise)], a remark on everything that isn't graded)"""
    students, files, remarks = [], [], []
    for student in sorted(os.listdir(folder)):
        path = os.path.join(folder, student)
        if not os.path.isdir(path):
            if not OUR_FILES.fullmatch(student) and not student.startswith("."):
                remarks.append(f"'{student}' is no student's folder")
            continue
        students.append(student)
        try:
            found = sorted(os.listdir(path))
        except OSError as error:
            remarks.append(f"{student}: the folder can't be read: {error.strerror}")
            continue
        for file in found:
            if file in exercises:
                files.append((student, file, exercises[file]))
            elif os.path.isdir(os.path.join(path, file)):
                remarks.append(f"{student}: '{file}' is a folder; only files of {student}/ itself are graded")
            elif not BESIDE_KERNELS.fullmatch(file):
                remarks.append(f"{student}: '{file}' is no exercise's file")
        if not found:
            remarks.append(f"{student}: the folder is empty")
    return students, files, remarks


def totals(grades):
    return {s: round(sum(r["points"] for r in grades["grades"] if r["student"] == s), 2) for s in grades["students"]}


def as_csv(grades, ids):
    """A line a student, a column an exercise; an empty cell: nothing was handed in."""
    text, total = io.StringIO(), totals(grades)
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["student", *ids, "total", "of"])
    for student in grades["students"]:
        points = {r["exercise"]: r["points"] for r in grades["grades"] if r["student"] == student}
        lines.writerow([student, *(points.get(i, "") for i in ids), total[student], grades["of"]])
    return text.getvalue()


def as_table(grades):
    lines = [f"{'student':16s} {'exercise':34s} {'points':>9s}  seen"]
    for r in grades["grades"]:
        points = f"{r['points']:4g} of {r['of']:2g}"
        lines.append(f"{r['student']:16s} {r['exercise'] + ' ' + r['name']:34s} {points}  {r['seen'][:90]}")
    for student, points in totals(grades).items():
        lines.append(f"{student:16s} {'total':34s} {points:4g} of {grades['of']:2g}")
    return "\n".join(lines)


def keep_former(path):
    """grades.json of a former run becomes grades-DAY-TIME.json."""
    if os.path.exists(path):
        written = time.strftime("%Y%m%d-%H%M%S", time.localtime(os.path.getmtime(path)))
        os.replace(path, f"{path[:-len('.json')]}-{written}.json")


def main(arguments):
    if not 1 <= len(arguments) <= 2 or not arguments[0]:
        raise ExerciseError("usage: make grade SUBMISSIONS=dir, a folder with one folder a student")
    folder, seed = os.path.expanduser(arguments[0]), "".join(arguments[1:]) or str(random.SystemRandom().randrange(10**9))
    if not os.path.isdir(folder):
        raise ExerciseError(f"there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ExerciseError(f"the grades are written into {folder}, and it can't be written to")
    exercises = all_exercises()
    students, files, remarks = survey(folder, {os.path.basename(e.work_file): e for e in exercises})
    print("\n".join(remarks) + "\n" if remarks else "", end="", flush=True)
    if not files:
        raise ExerciseError(f"nothing to grade: {folder}/STUDENT/ holds no file named as in work/, such as 2x1_merge.cu")

    path = os.path.join(folder, "grades.json")
    grades = {"seed": seed, "finished": False, "of": sum(e.points for e in exercises if e.in_course), "students": students,
              "totals": {}, "grades": [], "remarks": remarks}

    def save():
        grades["totals"] = totals(grades)
        # U+FEFF in front: some spreadsheets know UTF-8 by it. A name that is no UTF-8 gets question marks.
        sheet = ("\ufeff" + as_csv(grades, [e.id for e in exercises])).encode("utf-8", "replace").decode("utf-8")
        try:
            write_whole(path, json.dumps(grades, indent=2) + "\n")
            write_whole(path[:-len(".json")] + ".csv", sheet)
        except OSError as error:
            raise ExerciseError(f"can't write {error.filename}: {error.strerror}")

    keep_former(path)
    ladder, failed = Ladder(), 0
    try:
        for n, (student, file, exercise) in enumerate(files, 1):
            save()
            print(f"{n} of {len(files)}: {student} {exercise.id} ...", file=sys.stderr, flush=True)
            try:
                points, seen = grade_file(os.path.join(folder, student, file), exercise, ladder, seed)
            except Exception as error:  # whatever it is: the other students' files are graded
                points, seen = 0, f"could not be graded: {error if isinstance(error, ExerciseError) else repr(error)}"
                failed += 1
            grades["grades"].append({"student": student, "exercise": exercise.id, "name": exercise.name,
                                     "points": points, "of": exercise.points, "seen": seen})
        grades["finished"] = True
    except KeyboardInterrupt:
        save()
        print(f"\nStopped: {len(grades['grades'])} of {len(files)} files are graded, and written to {path}.", file=sys.stderr)
        return 130
    save()
    print(as_table(grades))
    print(f"\nWritten to {path}, and as a table to grades.csv. This is no sandbox: submissions ran with your rights.")
    print(f"For the same inputs once more: make grade SUBMISSIONS={shlex.quote(folder)} SEED={shlex.quote(seed)}")
    if failed:
        print(f"{failed} of {len(files)} files could not be graded, and have 0 points: look at them yourself.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name may hold bytes that are no UTF-8
    try:
        sys.exit(main(sys.argv[1:]))
    except ExerciseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped before anything was graded.", file=sys.stderr)
        sys.exit(130)
