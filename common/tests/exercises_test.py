"""The quick part of the exercises' tests (`make test-exercises` is the whole): every exercise fits its kernel and has
a whole preamble; a student's edits survive; the score, the hints and one exercise from its start to its why; the grades of
a class with everything odd in it; the points of an idea exercise."""
import contextlib
import copy
import csv
import glob
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "common", "exercises"))
sys.dont_write_bytecode = True

import exercise_files
import grade
import judge
import labels
import npy
import problems
import verify


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def course_exercises():
    return [e for e in exercise_files.all_exercises() if e.in_course]


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def classroom_command(work, *words, force=False):
    """Runs exercise.py on a work folder of its own. -> (status, what it printed)"""
    environment = dict(os.environ, FORCE="1" if force else "", FLASH_WORK=work, PYTHONDONTWRITEBYTECODE="1")
    environment.pop("FLASH_TEST_TOTALS", None)  # the step's tests that a check runs aren't counted as ours
    result = subprocess.run([sys.executable, "common/exercises/exercise.py", *words], cwd=ROOT, env=environment,
                            capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return result.returncode, result.stdout + result.stderr


FUSED = "01_fused_softmax/fused_softmax.cu"


def fused(changes=()):
    """The text of 01's kernel without labels, with changes (as labels.read_changes() gives them)."""
    return labels.changed(read(os.path.join(ROOT, FUSED)), changes, FUSED, "a test")


def with_an_unused_variable():
    return fused([("load-q", [], ["  int nobody_reads_it = 3;"])])


class Exercises(unittest.TestCase):
    def test_every_exercise_fits_and_every_preamble_is_whole(self):
        exercises = exercise_files.all_exercises()
        self.assertGreaterEqual(len(exercises), 24)
        for e in exercises:
            with self.subTest(e.path):
                kernel = labels.without_labels(read(os.path.join(ROOT, e.kernel)))
                self.assertNotEqual(e.broken(), kernel)
                self.assertNotIn("// @", e.broken())
                self.assertTrue(e.wrongs, "it has no near-miss repair")
                self.assertIn(e.fails.split()[0], ("check", "fault", "count", "test", "crash", "hang"))
                for path in e.wrongs:
                    self.assertNotIn(e.wrong_repair(path), (kernel, e.broken()))
        self.assertEqual(len({e.name for e in exercises}), len(exercises), "two exercises have one name")
        steps = {}
        for e in exercises:
            steps.setdefault(e.landing[:2], []).append(e)
        for step in sorted(f[:2] for f in os.listdir(ROOT) if re.match(r"\d\d_", f)):
            self.assertGreaterEqual(len(steps.get(step, [])), 3, f"step {step} has fewer than three exercises")

    def test_every_label_of_a_kernel_names_something(self):
        used = {}  # by exercises; by tests, those of the step and this file
        for e in exercise_files.all_exercises():
            for path in (e.path, *e.wrongs):
                used.setdefault(e.kernel, set()).update(label for label, _, _ in exercise_files.read_file(path)[1])
        for kernel in used:
            folder = os.path.join(ROOT, os.path.dirname(kernel))
            tests = read(os.path.join(folder, "test.cpp")) + read(__file__) * (kernel == FUSED)
            ablations = "".join(map(read, glob.glob(os.path.join(folder, "ablations", "*.ablation"))))
            for label, lines in labels.labels_of(read(os.path.join(ROOT, kernel))).items():
                self.assertEqual(len(lines), 1, f"{kernel} has @{label} more than once")
                spoken_of = label in used[kernel] or f'"{label}"' in tests or f"@{label}\n" in ablations
                self.assertTrue(spoken_of, f"nobody speaks of @{label} in {kernel}")


class Labels(unittest.TestCase):
    KERNEL = """// A kernel.
__global__ void f() {
  a = 1;  // @first
  b = 2;

  if (a) {
    b = 2;  // @second: again
  }
  // @alone
  c = 3;
}

void g() {
  d = 4;  // @third
  b = 2;
}
"""

    def changed(self, text, kernel=KERNEL):
        return labels.changed(kernel, labels.read_changes(text, "e"), "k.cu", "e")

    def refused(self, sentence, text, kernel=KERNEL):
        with self.assertRaises(labels.LabelError) as error:
            self.changed(text, kernel)
        self.assertEqual(str(error.exception), sentence)

    def test_a_reader_sees_none(self):
        bare = labels.without_labels(self.KERNEL)
        self.assertNotIn("@", bare)
        for line in ("  a = 1;", "    b = 2;  // again"):
            self.assertIn("\n" + line + "\n", bare)
        self.assertIn("  }\n  c = 3;\n", bare)

    def test_the_nearest_lines_from_the_label_on_go(self):
        bare = labels.without_labels(self.KERNEL)
        self.assertEqual(self.changed("@first\n-b = 2;\n+  b = 5;\n"), bare.replace("  b = 2;", "  b = 5;", 1))
        self.assertEqual(self.changed("@second\n-    b = 2;  // again\n"), bare.replace("    b = 2;  // again\n", ""))
        self.assertEqual(self.changed("@alone\n+  e = 5;\n"), bare.replace("  c = 3;", "  e = 5;\n  c = 3;"))
        two = "@second\n+    e = 5;\n@first\n-  a = 1;\n+  a = 6;\n+  a = 7;\n"
        self.assertEqual(self.changed(two), bare.replace("a = 1;", "a = 6;\n  a = 7;").replace("again", "again\n    e = 5;"))

    def test_what_stands_elsewhere_may_be_rewritten(self):
        kernel = self.KERNEL.replace("c = 3;", "// rewritten\n  c = 4;").replace("// A kernel.\n", "")
        self.assertIn("a = 2;", self.changed("@first\n-  a = 1;\n+  a = 2;\n", kernel))

    def test_what_does_not_fit_is_told_with_both_sides(self):
        self.refused("e doesn't fit k.cu any more. At @second it changes\n    d = 4;\nand what stands there, in line 10, is\n"
                     "      c = 3;", "@second\n-d = 4;\n+d = 5;\n")  # @third's line is another function's
        self.refused("e: k.cu has no label @fourth; it has @first, @second, @alone, @third", "@fourth\n-a = 1;\n")
        self.refused("e: the label @first must stand once in k.cu, and stands in lines 3 and 14", "@first\n-a = 1;\n",
                     self.KERNEL.replace("@third", "@first"))
        self.refused("e: two of its changes are to line 3 of k.cu", "@first\n-a = 1;\n@first\n-a = 1;\n-b = 2;\n")
        self.refused("e: ' a = 1;' is no change: '@label', '-' and a line that goes, or '+' and one that comes",
                     "@first\n a = 1;\n")
        self.refused("e: nothing is changed at @first", "@first\n@second\n+e = 5;\n")
        self.refused("e: there is no change (a line such as '@load-k', and what goes and comes there)", "\n")

    def test_an_exercise_says_which_it_is(self):
        e = exercise_files.all_exercises()[0]
        old = "not what stands there"
        with self.assertRaises(exercise_files.ExerciseError) as error:
            e.with_changes([(e.changes[0][0], [old], [])], e.path)
        for part in (e.path, e.kernel, "@" + e.changes[0][0], old):
            self.assertIn(part, str(error.exception))


def remove_built(source):
    """What judge() built of a file of a test's own."""
    shutil.rmtree(os.path.join(ROOT, "build", "exercise", re.sub(r"\W+", "_", source)), ignore_errors=True)


class Classroom(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.work = self.folder.name
        self.exercise = exercise_files.find_exercise("one_barrier", exercise_files.all_exercises())

    def tearDown(self):
        remove_built(self.path())
        self.folder.cleanup()

    def path(self):
        return os.path.join(self.work, os.path.basename(self.exercise.work_file))

    def test_edits_survive(self):
        status, text = classroom_command(self.work, "begin", self.exercise.id)
        self.assertEqual(status, 0, text)
        with open(self.path(), "a", encoding="utf-8") as f:
            f.write("// mine\n")
        status, text = classroom_command(self.work, "begin", "one_barrier")
        self.assertIn("holds your edits", text)
        self.assertIn("// mine", read(self.path()))
        status, text = classroom_command(self.work, "begin", self.exercise.id, force=True)
        self.assertNotIn("// mine", read(self.path()))
        backups = [f for f in os.listdir(self.work) if f.endswith(".bak")]
        self.assertEqual(len(backups), 1)
        self.assertIn("// mine", read(os.path.join(self.work, backups[0])))

    def test_what_a_person_can_get_wrong(self):
        for words, part in ((["begin"], "which one"), (["begin", "9x9"], "no exercise '9x9'"), (["check"], "no exercise is begun"),
                            (["check", self.exercise.id], "isn't begun"), (["solution", self.exercise.id], "isn't passed yet")):
            status, text = classroom_command(self.work, *words)
            self.assertEqual(status, 2, text)
            self.assertIn(part, text)

    def test_a_work_folder_that_cannot_be_is_one_sentence(self):
        file = os.path.join(self.work, "work")
        open(file, "w").close()
        for words in (["begin", "one_barrier"], ["list"]):
            status, text = classroom_command(file, *words)
            self.assertEqual((status, len(text.splitlines())), (2, 1), text)
            self.assertIn("work", text)

    def test_from_the_task_to_the_why(self):
        classroom_command(self.work, "begin", self.exercise.id)
        status, text = classroom_command(self.work, "check")
        self.assertEqual(status, 1, text)
        self.assertIn("race", text)
        self.assertIn(os.path.basename(self.path()) + ":", text)  # the student's own line
        for tier in (1, 2):
            status, text = classroom_command(self.work, "hint")
            self.assertIn(f"Hint {tier} of 2", text)
        with open(self.path(), "w", encoding="utf-8") as f:
            f.write("this is no C++\n")
        status, text = classroom_command(self.work, "check")
        self.assertEqual(status, 1, text)
        self.assertIn(os.path.basename(self.path()) + ":1:", text)
        with open(self.path(), "w", encoding="utf-8") as f:
            f.write("")
        status, text = classroom_command(self.work, "check")
        self.assertEqual(status, 1, text)
        self.assertIn("this program registers no step", text)
        with open(self.path(), "w", encoding="utf-8") as f:
            f.write(with_an_unused_variable())
        status, text = classroom_command(self.work, "check")
        self.assertEqual(status, 0, text)
        self.assertIn("The compiler warns", text)
        self.assertIn("nobody_reads_it", text)
        self.assertIn("Why:", text)
        status, text = classroom_command(self.work, "list")
        self.assertRegex(text, rf"{self.exercise.id} .*done")
        status, text = classroom_command(self.work, "solution", self.exercise.id)
        self.assertEqual(status, 0, text)


class Grade(unittest.TestCase):
    def grade(self, folder, text):
        exercise = exercise_files.find_exercise("one_barrier", exercise_files.all_exercises())
        path = os.path.join(folder, os.path.basename(exercise.work_file))
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return grade.grade_file(path, exercise, grade.Ladder(), "1"), exercise.points

    def test_a_wrong_lse_beside_a_right_o_gets_no_points(self):
        text, broken = fused(), fused([("lse", [], ["  if (lane == 0) softmax_lse[row] = m + log2f(l);"])])
        with tempfile.TemporaryDirectory() as folder:
            (points, seen), of = self.grade(folder, text)
            self.assertEqual((points, seen), (of, "right"))
            (points, seen), of = self.grade(folder, broken)
            self.assertEqual(points, 0)
            self.assertIn("LSE is wrong", seen)

    def test_what_the_checker_says_is_told_in_a_sentence(self):
        fault = {"faults": [{"message": "race: a\nb"}], "check": {"verdict": "pass", "message": ""}}
        wrong = {"check": {"verdict": "fail", "message": "O is right: ...\nLSE is wrong: 3 of 4\n  first: ..."}}
        skip = {"check": {"verdict": "skip", "message": "O can't be checked"}}
        said = [grade.what_is_wrong(r) for r in (fault, wrong, skip, {"check": {"verdict": "pass", "message": "fine"}})]
        self.assertEqual(said, ["race: a", "LSE is wrong: 3 of 4", "O can't be checked", None])


class Class(unittest.TestCase):
    """A folder of submissions as it comes out of thirty people's zip files."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = os.path.join(holder.name, "my class")
        os.mkdir(self.folder)

    def hand_in(self, student, file=None, text=None):
        path = os.path.join(self.folder, student, file or "")
        os.makedirs(path if text is None else os.path.dirname(path), exist_ok=True)
        if text is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)

    def grades(self):
        return json.loads(read(os.path.join(self.folder, "grades.json")))

    def main(self, *seed):
        """grade.main in this process. -> (status, stdout, stderr)"""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            status = grade.main([self.folder, *seed])
        return status, out.getvalue(), err.getvalue()

    def test_odd_entries_are_named_and_the_others_graded(self):
        file, right = "1x1_one_barrier.cu", fused()
        self.hand_in("ada", file, right)
        self.hand_in("ada", "1x1_one_barrier (1).cu", right)
        for beside in ("1x1_one_barrier.md", "state.json", "1x1_one_barrier.cu.20260101-000000.bak", ".DS_Store"):
            self.hand_in("ada", beside, "")
        self.hand_in("bob", "work/" + file, right)
        self.hand_in("carl", file)  # a folder
        self.hand_in("dora")
        self.hand_in("eve", file, with_an_unused_variable())
        self.hand_in("fay", file, fused([("warp-max", [], ["  m = no_such_name;"])]))
        self.hand_in("gil", file, "")
        self.hand_in("gil", "6.1x1_wrong_tensor.cu", "")
        self.hand_in("hal")
        os.symlink(os.path.join(ROOT, FUSED), os.path.join(self.folder, "hal", file))
        self.hand_in("", "ina.zip", "")

        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        result = subprocess.run(["make", "grade", f"SUBMISSIONS={self.folder}/", "SEED=5"], cwd=ROOT, capture_output=True,
                                text=True, stdin=subprocess.DEVNULL, env=environment)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        grades = self.grades()
        self.assertEqual(grades["remarks"], [
            "ada: '1x1_one_barrier (1).cu' is no exercise's file", "bob: 'work' is a folder; only files of bob/ itself are graded",
            "dora: the folder is empty", "'ina.zip' is no student's folder"])
        for remark in grades["remarks"]:
            self.assertIn(remark, result.stdout)
        self.assertEqual((grades["seed"], grades["finished"]), ("5", True))
        of = sum(e.points for e in course_exercises())
        self.assertEqual(grades["of"], of)
        self.assertEqual(grades["totals"], {"ada": 1, "bob": 0, "carl": 0, "dora": 0, "eve": 1, "fay": 0, "gil": 0, "hal": 0})
        for student, points in grades["totals"].items():
            self.assertRegex(result.stdout, rf"(?m)^{student} +total +{points} of {of}$")
        seen = {(r["student"], r["exercise"]): r["seen"] for r in grades["grades"]}
        for row, part in ((("ada", "1x1"), "right"), (("carl", "1x1"), "folder"), (("eve", "1x1"), "right"),
                          (("fay", "1x1"), "error: 'no_such_name'"), (("gil", "1x1"), "this program registers no step"),
                          (("gil", "6.1x1"), "this file registers no step 06_backward"), (("hal", "1x1"), "link")):
            self.assertIn(part, seen[row])
        self.assertEqual(len(seen), 7)
        with open(os.path.join(self.folder, "grades.csv"), encoding="utf-8-sig", newline="") as f:
            lines = {line["student"]: line for line in csv.DictReader(f)}
        self.assertEqual(list(lines), list(grades["totals"]))
        self.assertEqual([lines["ada"][k] for k in ("1x1", "6.1x1", "total", "of")], ["1", "", "1", str(of)])
        self.assertEqual([lines["gil"][k] for k in ("1x1", "6.1x1", "total", "of")], ["0", "0", "0", str(of)])

    def three_files(self):
        for student in ("ada", "bob", "carl"):
            self.hand_in(student, "1x1_one_barrier.cu", "")

    def test_what_breaks_the_grader_costs_one_file(self):
        self.three_files()
        for error in (OSError("disk"), exercise_files.ExerciseError("a sentence"), KeyError("x")):
            with mock.patch.object(grade, "grade_file", side_effect=[(1, "right"), error, (1, "right")]):
                status, out, err = self.main()
            self.assertEqual(status, 1)
            self.assertIn("1 of 3 files could not be graded", err)
            self.assertEqual(self.grades()["totals"], {"ada": 1, "bob": 0, "carl": 1})
            self.assertIn("could not be graded", self.grades()["grades"][1]["seen"])
            self.assertRegex(out, r"carl +total +1 of")

    def test_a_stop_keeps_what_is_graded_and_the_former_grades(self):
        self.three_files()
        with mock.patch.object(grade, "grade_file", return_value=(1, "right")):
            self.main()
        former = self.grades()
        with mock.patch.object(grade, "grade_file", side_effect=[(0, "wrong"), KeyboardInterrupt]):
            status, out, err = self.main()
        self.assertEqual((status, out), (130, ""))
        self.assertIn("Stopped: 1 of 3 files are graded", err)
        self.assertEqual([r["seen"] for r in self.grades()["grades"]], ["wrong"])
        self.assertFalse(self.grades()["finished"])
        kept = [f for f in os.listdir(self.folder) if re.fullmatch(r"grades-.*\.json", f)]
        self.assertEqual([json.loads(read(os.path.join(self.folder, f))) for f in kept], [former])

    def test_a_grade_is_on_disk_before_the_next_file_is_begun(self):
        self.three_files()
        on_disk = []

        def one(*arguments):
            on_disk.append(len(self.grades()["grades"]))
            return 1, "right"

        with mock.patch.object(grade, "grade_file", side_effect=one):
            self.main()
        self.assertEqual(on_disk, [0, 1, 2])

    def test_one_seed_draws_the_same_for_every_student(self):
        self.three_files()
        drawn = []

        def draw(rng, problem):
            drawn.append(rng.random())
            raise exercise_files.ExerciseError("enough")

        with mock.patch.object(grade, "build", return_value=(True, "")), mock.patch.object(grade, "draw_problem", draw), \
                mock.patch.object(grade, "missing_step", return_value=None):
            for seed in (["7"], [], []):
                self.main(*seed)
            self.main(self.grades()["seed"])
        runs = [set(drawn[i : i + 3]) for i in range(0, 12, 3)]
        self.assertEqual([len(r) for r in runs], [1, 1, 1, 1])
        self.assertEqual(runs[2], runs[3])
        self.assertEqual(len(set().union(*runs)), 3)

    def test_what_cannot_be_graded_at_all(self):
        for arguments, sentence in (([], "usage"), ([""], "usage"), ([self.folder + "/nobody"], "there is no folder"),
                                    ([self.folder], "nothing to grade")):
            with self.assertRaisesRegex(exercise_files.ExerciseError, sentence):
                grade.main(arguments)

    def test_the_line_that_says_what_is_wrong(self):
        compiler = "a.cu: In function 'void f()':\na.cu:3:2: error: 'x' was not declared\na.cu:4:2: error: more"
        linker = "/usr/bin/ld: a.o: in function `f':\na.cu:9: undefined reference to `g'\ncollect2: error: ld returned 1 exit status"
        self.assertEqual(grade.first_error(compiler), "a.cu:3:2: error: 'x' was not declared")
        self.assertEqual(grade.first_error(linker), "a.cu:9: undefined reference to `g'")
        self.assertEqual(grade.first_error("make failed without a word"), "make failed without a word")

    def test_the_courses_example_is_what_comes_out(self):
        course = read(os.path.join(ROOT, "docs/course.md"))
        table = re.search(r"```text\n(student .*?)\n```", course, re.S)[1]
        rows = re.findall(r"(?m)^(\S+) +(\S+) (\S+) +(\d+) of +(\d+)  (\S.*)$", table)
        rows = [{"student": s, "exercise": i, "name": n, "points": int(p), "of": int(of), "seen": seen}
                for s, i, n, p, of, seen in rows]
        self.assertEqual(len(rows), 2)
        grades = {"students": [r["student"] for r in rows], "of": sum(e.points for e in course_exercises()), "grades": rows}
        self.assertEqual(table, grade.as_table(grades))
        seed = re.search(r"make grade SUBMISSIONS=submissions SEED=(\S+)", course)[1]
        p = grade.draw_problem(random.Random(f"{seed} 1x1"), problems.check_problems()[0])
        self.assertTrue(rows[1]["seen"].startswith(grade.problem_text(p) + ": "), rows[1]["seen"])


class Course(unittest.TestCase):
    """What docs/course.md and docs/projects.md say can be kept."""

    def weeks(self):
        """-> [(cells of the plan's row, its exercises)]"""
        all_of_them = exercise_files.all_exercises()
        ids, weeks = [e.id for e in all_of_them], []
        for row in re.findall(r"(?m)^\| \d+ · .*\|$", read(os.path.join(ROOT, "docs/course.md"))):
            cells = [c.strip() for c in row.strip("|").split("|")]
            found = []
            for part in filter(None, cells[3].split(", ")):
                first, _, last = part.partition(" … ")
                found += ids[ids.index(first) : ids.index(last or first) + 1]
            weeks.append((cells, [all_of_them[ids.index(i)] for i in found]))
        return weeks

    def test_every_exercise_has_its_week_and_its_points(self):
        weeks, course = self.weeks(), read(os.path.join(ROOT, "docs/course.md"))
        self.assertEqual(len(weeks), 11)
        self.assertEqual([e.id for _, found in weeks for e in found], [e.id for e in course_exercises()])
        for cells, found in weeks:
            self.assertEqual(int(cells[4] or 0), sum(e.points for e in found), cells[0])
        of = sum(e.points for e in course_exercises())
        for sentence in (f"points and minutes: {of} points", f"`make grade`: points divided by {of} "):
            self.assertIn(sentence, course)

    def test_the_hours(self):
        course = read(os.path.join(ROOT, "docs/course.md"))
        rows = {cells[0].split(":")[0]: cells[1:] for cells in (
            [c.strip() for c in row.strip("|").split("|")] for row in course.split("### Hours")[1].split("\n\n")[1].splitlines())}
        span = {name: [[float(x) for x in cell.split(" to ")] for cell in rows[name]]
                for name in ("reading", "exercises", "lab note", "project", "together")}
        for part in range(3):
            for end in (0, -1):
                self.assertEqual(sum(span[n][part][end] for n in span if n != "together"), span["together"][part][end])
        weeks = self.weeks()
        for part, some in enumerate((weeks[:6], weeks[6:10], weeks[10:])):
            hours = [2 * sum(e.minutes for e in found) / 60 for _, found in some]
            self.assertTrue(span["exercises"][part][0] <= min(hours) and max(hours) <= span["exercises"][part][-1], hours)
        project = sum(n * span["project"][part][0] for part, n in enumerate((6, 4, 1)))
        self.assertIn(f"a project has {project:g} hours a student", course)
        levels = re.findall(r"(?m)^\| (\d) · .*\| (\d+) \| (one|two) \| (\d+) \|$", read(os.path.join(ROOT, "docs/projects.md")))
        self.assertEqual([int(h) for _, h, _, _ in levels], [project * (1 if by == "one" else 2) for _, _, by, _ in levels])

    def test_the_criteria_of_a_project_add_up_and_none_needs_a_gpu(self):
        projects = read(os.path.join(ROOT, "docs/projects.md"))
        maxima = [int(m) for m in re.findall(r"(?m)^\| \d · .*\| (\d+) \|$", projects)]
        judged = re.findall(r"(?ms)^\*Judged:\*(.*?)\n\n", projects)
        self.assertEqual([sum(map(int, re.findall(r"\((\d+)\)", text))) for text in judged], maxima)
        self.assertIn("level's maximum, {}, {}, {} or {}.".format(*maxima), projects)
        for text in judged:
            for criterion in re.split(r"\(\d+\)", text)[1:]:
                if re.search(r"clocks|speed|faster|with a metric", criterion):
                    self.assertIn("*without a GPU:*", " ".join(criterion.split()))

    def test_a_demonstration_in_class_is_no_exercise(self):
        kernel = fused()
        barriers = [m.start() for m in re.finditer(r"__syncthreads\(\);", kernel)]
        self.assertEqual(len(barriers), 4)
        without = [kernel[:at] + kernel[at + len("__syncthreads();") :] for at in barriers]
        exercise = exercise_files.find_exercise("1x1", exercise_files.all_exercises()).broken()
        code = lambda text: re.sub(r"\s|//.*", "", text)
        self.assertEqual([code(exercise) == code(text) for text in without], [True, False, False, False])
        with tempfile.TemporaryDirectory() as folder:
            for n, verdicts in ((1, ("pass", "fail")), (3, ("fail", "fail"))):  # the second, the fourth
                source = os.path.join(folder, f"{n}.cu")
                with open(source, "w", encoding="utf-8") as f:
                    f.write(without[n])
                built, text = judge.build(source, "01_fused_softmax/fused_softmax", f"{folder}/{n}", "watched.run")
                self.assertTrue(built, text)
                for length, verdict in zip((20, 128), verdicts):
                    run = subprocess.run([f"{folder}/{n}/watched.run", "--seqlen", str(length)], cwd=ROOT,
                                         capture_output=True, text=True)
                    self.assertIn("check    " + verdict.upper(), run.stdout)
                    self.assertIn("race", run.stdout)


class Warnings(unittest.TestCase):
    def test_a_broken_kernel_is_shipped_without_one(self):
        exercise = copy.copy(exercise_files.find_exercise("one_barrier", exercise_files.all_exercises()))
        exercise.broken = with_an_unused_variable
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "shipped.cu")
            with open(path, "w", encoding="utf-8") as f:
                f.write(exercise.broken())
            with mock.patch.object(verify, "write", return_value=path):
                self.assertIn("doesn't compile without warnings", verify.shipped(exercise))
            remove_built(path)


class Interrupt(unittest.TestCase):
    def test_no_process_is_left_running(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(50)"
            for runner, command, last in ((judge.run_limited, ["sleep", "50"], signal.SIGTERM),
                                          (judge.run_until_silent, ["sleep", "50"], signal.SIGTERM),
                                          (judge.run_limited, [sys.executable, "-c", stubborn], signal.SIGKILL)):
                with mock.patch.object(judge, "end", side_effect=judge.end) as ended:
                    signal.setitimer(signal.ITIMER_REAL, 0.5)
                    with self.assertRaises(KeyboardInterrupt):
                        runner(command)
                self.assertEqual(ended.call_count, 1)
                self.assertEqual(ended.call_args[0][0].returncode, -last)
        finally:
            signal.signal(signal.SIGALRM, before)


class Points(unittest.TestCase):
    def test_a_count_slides_between_the_ladders_and_the_broken_kernels(self):
        points = lambda count: grade.points_for_count(count, 100, 205, 4)
        self.assertEqual([points(c) for c in (90, 100, 105, 155, 205, 300)], [4, 4, 4, 2, 0, 0])

    def test_the_problems_bite_and_still_do_when_drawn_anew(self):
        rng, of_check = random.Random(1), problems.check_problems()
        for drawn in (of_check, *([grade.draw_problem(rng, p) for p in of_check] for _ in range(50))):
            for bites in (lambda p: p.heads > p.kv_heads > 1, lambda p: p.dist == "negative", lambda p: p.dist == "large",
                          lambda p: p.causal and p.seqlen == p.seqlen_k, lambda p: p.head_dim == 128,
                          lambda p: p.causal and p.seqlen >= p.seqlen_k + 64,  # a whole tile of rows sees no key
                          lambda p: p.seqlen % 32 and p.seqlen_k % 32, lambda p: p.seqlen_k > 64):
                self.assertTrue(any(map(bites, drawn)), drawn)
        self.assertEqual(problems.options(of_check[0]), "--heads 1 --seqlen 64")
        whole = problems.Problem(2, 4, 2, 70, 37, 128, True, "large")
        self.assertEqual(problems.options(whole),
                         "--batch 2 --heads 4 --kv-heads 2 --seqlen 70 --seqlen-k 37 --head-dim 128 --causal --dist large")

    def test_every_line_of_the_list_of_problems_is_one(self):
        lines = [line for line in read(problems.LIST).splitlines() if line and not line.startswith("#")]
        form = re.compile(r"( +\d+){5} +(every|64|128) +(every|yes|no) +(normal|uniform|outliers|large|negative) +[\d.]+ +(-|small|check)")
        self.assertEqual([line for line in lines if not form.fullmatch(line)], [])
        of_check = [line for line in lines if line.endswith(" check")]
        self.assertEqual([line for line in of_check if line.split()[6] == "every" or line.split()[8] != "1"], [])

    def test_counts_of_two_exercises_on_one_kernel_are_kept_apart(self):
        ladder = grade.Ladder()
        ladder.program = lambda source, landing: source
        exercises = [e for e in exercise_files.all_exercises() if e.kernel == "04_flash_v2/flash_v2.cu" and e.count]
        measured, grade.measured_count = grade.measured_count, lambda program, exercise: exercise.count
        try:
            self.assertGreater(len(exercises), 1)
            for e in exercises:
                self.assertEqual(ladder.count(e.kernel, e), e.count)
        finally:
            grade.measured_count = measured

    def test_npy_files_come_back(self):
        with tempfile.TemporaryDirectory() as folder:
            for dtype, descr in npy.DESCRS.items():
                path = os.path.join(folder, dtype + ".npy")
                npy.write_npy(path, (1, 1, 2, 2), [1, -0.5, 3, 0.25], dtype)
                self.assertEqual(npy.read_npy(path), (descr, (1, 1, 2, 2), [1, -0.5, 3, 0.25]))
                for content in (b"", b"no file of NumPy's", read_bytes(path)[:-1]):
                    with open(path, "wb") as f:
                        f.write(content)
                    with self.assertRaises(ValueError):
                        npy.read_npy(path)

    def test_what_is_not_a_number_is_infinitely_wrong(self):
        self.assertEqual(grade.difference([1.0, float("nan")], [1.0, 1.0]), float("inf"))
        self.assertEqual(grade.difference([1.0], [1.0, 1.0]), float("inf"))
        self.assertEqual(grade.difference([1.0, 2.0], [1.0, 2.0]), 0)


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    bad = len(result.failures) + len(result.errors)
    if "FLASH_TEST_TOTALS" in os.environ:
        with open(os.environ["FLASH_TEST_TOTALS"], "a", encoding="utf-8") as totals:
            totals.write(f"{result.testsRun - min(bad, result.testsRun)} {min(bad, result.testsRun)}\n")
    sys.exit(1 if bad else 0)
