"""The quick part of the exercises' tests (`make test-exercises` is the whole): every patch applies without fuzz and has a
whole preamble; a student's edits survive; the score, the hints and one exercise from its start to its why; the points of
an idea exercise."""
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "common", "exercises"))
sys.dont_write_bytecode = True

import grade
import patches


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def classroom_command(work, *words, force=False):
    """Runs exercise.py on a work folder of its own. -> (status, what it printed)"""
    environment = dict(os.environ, FORCE="1" if force else "", FLASH_WORK=work, PYTHONDONTWRITEBYTECODE="1")
    result = subprocess.run([sys.executable, "common/exercises/exercise.py", *words], cwd=ROOT, env=environment,
                            capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return result.returncode, result.stdout + result.stderr


class Patches(unittest.TestCase):
    def test_every_patch_applies_and_every_preamble_is_whole(self):
        exercises = patches.all_exercises()
        self.assertGreaterEqual(len(exercises), 24)
        for e in exercises:
            with self.subTest(e.path):
                self.assertNotEqual(e.broken(), read(os.path.join(ROOT, e.kernel)))
                self.assertTrue(e.wrongs, "it has no near-miss repair")
                self.assertIn(e.fails.split()[0], ("check", "fault", "count", "test", "crash", "hang"))
                for path in e.wrongs:
                    patches.apply_patch(e.kernel, patches.read_patch(path)[2], path)
        self.assertEqual(len({e.name for e in exercises}), len(exercises), "two exercises have one name")
        steps = {}
        for e in exercises:
            steps.setdefault(e.landing[:2], []).append(e)
        for step in sorted(f[:2] for f in os.listdir(ROOT) if re.match(r"\d\d_", f)):
            self.assertGreaterEqual(len(steps.get(step, [])), 3, f"step {step} has fewer than three exercises")

    def test_a_patch_that_does_not_fit_is_an_error(self):
        e = patches.all_exercises()[0]
        with self.assertRaises(patches.ExerciseError):
            patches.apply_patch(e.kernel, re.sub(r"(?m)^-(?!--)", "-not there ", e.patch), e.path)


class Classroom(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.work = self.folder.name
        self.exercise = patches.find_exercise("one_barrier", patches.all_exercises())

    def tearDown(self):
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
            f.write(read(os.path.join(ROOT, self.exercise.kernel)))
        status, text = classroom_command(self.work, "check")
        self.assertEqual(status, 0, text)
        self.assertIn("Why:", text)
        status, text = classroom_command(self.work, "list")
        self.assertRegex(text, rf"{self.exercise.id} .*done")
        status, text = classroom_command(self.work, "solution", self.exercise.id)
        self.assertEqual(status, 0, text)


class Grade(unittest.TestCase):
    def grade(self, folder, text):
        exercise = patches.find_exercise("one_barrier", patches.all_exercises())
        path = os.path.join(folder, os.path.basename(exercise.work_file))
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return grade.grade_file(path, exercise, grade.Ladder(), random.Random(1)), exercise.points

    def test_a_wrong_lse_beside_a_right_o_gets_no_points(self):
        text = read(os.path.join(ROOT, "01_fused_softmax/fused_softmax.cu"))
        broken = text.replace("softmax_lse[row] = m + logf(l)", "softmax_lse[row] = m + log2f(l)")
        self.assertNotEqual(broken, text)
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


class Points(unittest.TestCase):
    def test_a_count_slides_between_the_ladders_and_the_broken_kernels(self):
        points = lambda count: grade.points_for_count(count, 100, 205, 4)
        self.assertEqual([points(c) for c in (90, 100, 105, 155, 205, 300)], [4, 4, 4, 2, 0, 0])

    def test_every_kind_of_problem_is_drawn_so_that_it_bites(self):
        rng = random.Random(1)
        for landing in ("00_naive/naive", "05_tensor_core/1_mma", "06_backward/1_recompute"):
            for _ in range(50):
                p = {kind: grade.draw_problem(rng, landing, kind) for kind in grade.KINDS}
                self.assertTrue(p["unequal"]["kv_heads"] > 1 and p["unequal"]["heads"] > p["unequal"]["kv_heads"])
                self.assertTrue(p["no_key"]["causal"] and p["no_key"]["seqlen"] > p["no_key"]["seqlen_k"])
                self.assertTrue(p["causal"]["causal"] and p["causal"]["seqlen"] <= p["causal"]["seqlen_k"])

    def test_counts_of_two_exercises_on_one_kernel_are_kept_apart(self):
        ladder = grade.Ladder()
        ladder.program = lambda source, landing: source
        exercises = [e for e in patches.all_exercises() if e.kernel == "04_flash_v2/flash_v2.cu" and e.count]
        measured, grade.measured_count = grade.measured_count, lambda program, exercise: exercise.count
        try:
            self.assertGreater(len(exercises), 1)
            for e in exercises:
                self.assertEqual(ladder.count(e.kernel, e), e.count)
        finally:
            grade.measured_count = measured

    def test_half_precision_files(self):
        with tempfile.TemporaryDirectory() as folder:
            for dtype in grade.CODES:
                path = os.path.join(folder, dtype + ".npy")
                grade.write_npy(path, (1, 1, 2, 2), [1, -0.5, 3, 0.25], dtype)
                self.assertEqual(grade.read_npy(path, dtype), [1, -0.5, 3, 0.25])

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
